#include "grid.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
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
constexpr int rounds_of_all = 16;      // in which every warp has had two turns

// A fiber begins by its context and goes on by a jump, which makes no system call.
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
size_t blocks_of_launch = 0, bytes_of_block = 0;
std::vector<std::function<void()>> arrivals, last_arrivals;
std::mt19937 random_bits;

[[noreturn]] void fail(const char *what) {
    std::fprintf(stderr, "emulation: %s\n", what);
    std::abort();
}

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

std::vector<Fiber> fibers_of(const Launch &launch, std::vector<Block> &blocks,
                             const Pages &stacks) {
    const auto block_threads = static_cast<size_t>(launch.block_threads);
    std::vector<Fiber> fibers(blocks.size() * block_threads);
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
    return fibers;
}

// Which fibers take a turn in which round.
class Turns {
  public:
    explicit Turns(size_t fibers) : order_(fibers), paces_(fibers / warp_threads, 1) {
        std::iota(order_.begin(), order_.end(), size_t{0});
        if (order_seed != 0) {
            std::shuffle(order_.begin(), order_.end(), random_bits);
            for (unsigned &pace : paces_) {
                pace = 1u << random_bits() % 4;
            }
        }
    }
    const std::vector<size_t> &order() const { return order_; }
    bool has(size_t fiber, unsigned round) const {
        return round % paces_[fiber / warp_threads] == 0;
    }

  private:
    std::vector<size_t> order_;
    std::vector<unsigned> paces_; // of a warp: rounds from turn to turn
};

void deliver() {
    std::vector<std::function<void()>> waiting;
    waiting.swap(arrivals);
    for (auto &arrival : waiting) {
        progress = true;
        if (order_seed != 0 && random_bits() % 4 != 0) {
            arrivals.push_back(std::move(arrival));
        } else {
            arrival();
        }
    }
}

// One of those that come when all threads wait.
void deliver_last() {
    if (!last_arrivals.empty()) {
        const size_t i = random_bits() % last_arrivals.size();
        last_arrivals[i]();
        last_arrivals.erase(last_arrivals.begin() + static_cast<std::ptrdiff_t>(i));
        progress = true;
    }
}

} // namespace

uint8_t *shared_memory() {
    return all_shared;
}

uint8_t *shared_at(uint32_t address, size_t bytes, size_t alignment) {
    const size_t block = address / shared_bytes, offset = address % shared_bytes;
    if (block >= blocks_of_launch || offset + bytes > bytes_of_block) {
        fail("an address outside of the block's shared memory");
    }
    if (address % alignment != 0) {
        fail("a shared address that is not aligned");
    }
    return all_shared + address;
}

void later(std::function<void()> arrival) {
    arrivals.push_back(std::move(arrival));
}

void at_last(std::function<void()> arrival) {
    if (order_seed != 0 && random_bits() % 2 == 0) {
        last_arrivals.push_back(std::move(arrival));
    } else {
        later(std::move(arrival));
    }
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

void arrive(Meeting &meeting, int expected) {
    if (thread->waits) {
        fail("a thread arrives twice");
    }
    thread->waits = true;
    thread->phase = meeting.phase;
    progress = true;
    if (++meeting.arrived == expected) {
        meeting.arrived = 0;
        ++meeting.phase;
    }
    yield(); // to those that it lets go on
}

void wait(const Meeting &meeting) {
    if (!thread->waits) {
        fail("a thread waits where it has not arrived");
    }
    while (meeting.phase == thread->phase) {
        yield();
    }
    thread->waits = false;
}

void run(const Launch &launch, const std::function<void()> &kernel) {
    blocks_of_launch = launch.grid.x * launch.grid.y;
    bytes_of_block = object_bytes + launch.dynamic_bytes;
    const size_t threads = blocks_of_launch * static_cast<size_t>(launch.block_threads);
    const Pages shared(blocks_of_launch * shared_bytes), stacks(threads * stack_bytes);
    all_shared = shared.at(0);
    for (size_t b = 0; b < blocks_of_launch; ++b) { // what an earlier kernel may have left
        std::memset(all_shared + b * shared_bytes, 0xff, bytes_of_block);
    }
    gridDim = launch.grid;
    entry = &kernel;
    random_bits.seed(order_seed);
    std::vector<Meeting> clusters(blocks_of_launch / static_cast<size_t>(launch.cluster_blocks));
    std::vector<Block> blocks = blocks_of(launch, clusters);
    std::vector<Fiber> fibers = fibers_of(launch, blocks, stacks);
    const Turns turns(fibers.size());
    unsigned round = 0;
    int idle_rounds = 0;
    for (bool left = true; left;) {
        left = progress = false;
        ++round;
        for (const size_t i : turns.order()) {
            if (!fibers[i].done) {
                left = true;
                if (turns.has(i, round)) {
                    resume(fibers[i]);
                }
            }
        }
        deliver();
        if (idle_rounds == rounds_of_all) {
            deliver_last();
        }
        idle_rounds = progress ? 0 : idle_rounds + 1;
        if (idle_rounds > most_idle_rounds) {
            fail("every thread waits for another one");
        }
    }
    if (!arrivals.empty() || !last_arrivals.empty()) {
        fail("something was sent that nobody waited for");
    }
    for (size_t i = 0; i < threads; ++i) {
        if (*stacks.at(i * stack_bytes) != 0) { // its last byte, which was zero
            fail("a thread's stack is full");
        }
    }
}

} // namespace emulation
