#include "grid.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace emulation {

Thread *thread = nullptr;
Index threadIdx = {}, blockIdx = {}, gridDim = {};
unsigned order_seed = 0;

namespace {

constexpr size_t stack_bytes = 64 * 1024;
constexpr int most_idle_rounds = 1000; // in which no thread met others

// A fiber begins by its context and goes on by a jump, which asks the kernel nothing.
struct Fiber {
    ucontext_t context;
    jmp_buf place;
    Thread thread;
    bool begun = false, done = false;
};

jmp_buf scheduler;
Fiber *running = nullptr;
const std::function<void()> *entry = nullptr;
bool progress = false;

// Pages that read as zeros and cost nothing until they are touched.
class Pages {
  public:
    explicit Pages(size_t bytes)
        : bytes_(bytes), memory_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
        if (memory_ == MAP_FAILED) {
            std::perror("emulation: mmap");
            std::abort();
        }
    }
    ~Pages() { munmap(memory_, bytes_); }
    Pages(const Pages &) = delete;
    Pages &operator=(const Pages &) = delete;
    uint8_t *at(size_t offset) const { return static_cast<uint8_t *>(memory_) + offset; }

  private:
    size_t bytes_;
    void *memory_;
};

uint8_t *all_shared = nullptr;

void start() {
    (*entry)();
    running->done = progress = true;
    _longjmp(scheduler, 1);
}

void resume(Fiber &fiber) {
    running = &fiber;
    thread = &fiber.thread;
    threadIdx = thread->index;
    blockIdx = thread->block->index;
    if (_setjmp(scheduler) != 0) {
        return; // it waits, or is done
    }
    if (fiber.begun) {
        _longjmp(fiber.place, 1);
    }
    fiber.begun = true;
    setcontext(&fiber.context);
}

std::vector<Block> blocks_of(const Launch &launch, std::vector<Meeting> &clusters) {
    std::vector<Block> blocks(launch.grid.x * launch.grid.y);
    for (size_t b = 0; b < blocks.size(); ++b) {
        const auto index = static_cast<unsigned>(b);
        Block &block = blocks[b];
        block.index = {index % launch.grid.x, index / launch.grid.x, 0};
        block.threads = launch.block_threads;
        block.memory = all_shared + b * shared_bytes;
        block.cluster = &clusters[b / static_cast<size_t>(launch.cluster_blocks)];
        block.cluster_blocks = launch.cluster_blocks;
    }
    return blocks;
}

} // namespace

uint8_t *shared_memory() {
    return all_shared;
}

void yield() {
    if (_setjmp(running->place) == 0) {
        _longjmp(scheduler, 1);
    }
}

void meet(Meeting &meeting, int expected) {
    const unsigned phase = meeting.phase;
    progress = true;
    if (++meeting.arrived == expected) {
        meeting.arrived = 0;
        ++meeting.phase;
        return;
    }
    while (meeting.phase == phase) {
        yield();
    }
}

void run(const Launch &launch, const std::function<void()> &kernel) {
    const size_t blocks_count = launch.grid.x * launch.grid.y;
    const auto block_threads = static_cast<size_t>(launch.block_threads);
    const Pages shared(blocks_count * shared_bytes);
    const Pages stacks(blocks_count * block_threads * stack_bytes);
    all_shared = shared.at(0);
    gridDim = launch.grid;
    entry = &kernel;
    std::vector<Meeting> clusters(blocks_count / static_cast<size_t>(launch.cluster_blocks));
    std::vector<Block> blocks = blocks_of(launch, clusters);
    std::vector<Fiber> fibers(blocks_count * block_threads);
    for (size_t i = 0; i < fibers.size(); ++i) {
        Fiber &fiber = fibers[i];
        fiber.thread = {{static_cast<unsigned>(i % block_threads), 0, 0},
                        &blocks[i / block_threads]};
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks.at(i * stack_bytes);
        fiber.context.uc_stack.ss_size = stack_bytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, start, 0);
    }
    std::vector<size_t> order(fibers.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::vector<unsigned> paces(fibers.size() / warp_threads, 1); // of a warp: rounds a turn
    if (order_seed != 0) {
        std::mt19937 random(order_seed);
        std::shuffle(order.begin(), order.end(), random);
        for (unsigned &pace : paces) {
            pace = 1u << random() % 4;
        }
    }
    unsigned round = 0;
    int idle_rounds = 0;
    for (bool left = true; left;) {
        left = progress = false;
        ++round;
        for (const size_t i : order) {
            if (!fibers[i].done) {
                left = true;
                if (round % paces[i / warp_threads] == 0) {
                    resume(fibers[i]);
                }
            }
        }
        idle_rounds = progress ? 0 : idle_rounds + 1;
        if (idle_rounds > most_idle_rounds) {
            std::fprintf(stderr, "emulation: every thread waits for another one\n");
            std::abort();
        }
    }
}

} // namespace emulation
