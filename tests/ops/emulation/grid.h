// A grid of GPU threads as fibers of one CPU thread: each runs until it waits for others. A barrier
// that is missing can show as other numbers; one that nobody completes aborts.
//
// Limits: memory is sequentially consistent, so fences do nothing, and threads change only where
// they wait; a finished block's memory stays; device memory is not checked.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

namespace emulation {

struct Index {
    unsigned x, y, z;
};

// Where `expected` threads meet, again and again.
struct Meeting {
    int arrived = 0;
    unsigned phase = 0;
};

constexpr int warp_threads = 32, most_warps = 16, most_bytes = 16 * sizeof(uint32_t);

struct Warp {
    Meeting meeting;
    uint8_t given[warp_threads][most_bytes]; // by each lane, to the others
};

struct Block {
    Index index;
    int threads;
    uint8_t *memory; // shared_bytes
    Meeting meeting, *cluster;
    int cluster_blocks;
    Warp warps[most_warps];
};

struct Thread {
    Index index;
    Block *block;
    bool waits;     // between arrive and wait
    unsigned phase; // of the meeting in which it has arrived
    std::vector<std::vector<std::function<void()>>> products; // a warpgroup's, by commits
    int lane() const { return static_cast<int>(index.x) % warp_threads; }
    Warp &warp() const { return block->warps[index.x / warp_threads]; }
};

struct Launch {
    Index grid; // blocks
    int block_threads, cluster_blocks;
    size_t dynamic_bytes;
};

// Shared memory of a block: an object and the dynamic part. Its address is an offset in the memory
// of all blocks, which lies block after block.
constexpr size_t object_bytes = 64 * 1024, shared_bytes = 512 * 1024;
uint8_t *shared_memory();
// Aborts where it isn't a block's own memory, or not aligned.
uint8_t *shared_at(uint32_t address, size_t bytes, size_t alignment);

extern Thread *thread; // the running one
extern Index threadIdx, blockIdx, gridDim;

// Seeds the order in which threads take turns, how often each warp does, and when what is on its
// way arrives. 0: by their numbers, all equally often, and soon.
extern unsigned order_seed;

// What happens at some time after this call: copies and stores that nobody waits for here.
void later(std::function<void()> arrival);
// The same, but with an order_seed half of them happen only when all threads wait.
void at_last(std::function<void()> arrival);

// Runs kernel() once a thread. Aborts when all threads only wait.
void run(const Launch &launch, const std::function<void()> &kernel);

void yield();
void meet(Meeting &meeting, int expected);
// The same in two halves, with meetings of another kind between them. Aborts on two arrivals
// without a wait.
void arrive(Meeting &meeting, int expected);
void wait(const Meeting &meeting);

inline void meet_warp() {
    meet(thread->warp().meeting, warp_threads);
}

// What each lane gives is read by use(given), a view of all lanes' bytes, before any lane goes on.
template <class T, class Use> auto exchange(const T &value, const Use &use) {
    static_assert(sizeof(T) <= most_bytes);
    Warp &warp = thread->warp();
    std::memcpy(warp.given[thread->lane()], &value, sizeof(T));
    meet_warp();
    const auto result = use([&warp](int lane) {
        T given;
        std::memcpy(&given, warp.given[lane], sizeof(T));
        return given;
    });
    meet_warp();
    return result;
}

} // namespace emulation
