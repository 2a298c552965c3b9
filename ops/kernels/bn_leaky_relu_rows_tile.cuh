// The tile that one thread block computes in the single-launch ROWS kernels, and its reduction.
//
// A block of eager mode's virtual grid has 16 chains of four slots. Here a block takes all 64 slots
// over TILE channels: one physical thread a slot, 16 bytes of channels wide. A chain's four slots
// lie in four lanes of a warp, so a 4 x 4 transposition by shuffles brings them together for the
// sequential merge that eager mode does inside a thread.
#pragma once

#include "bn_leaky_relu_channel.cuh"
#include "bn_leaky_relu_copy.cuh"
#include "bn_leaky_relu_parts.h"

#include <cooperative_groups.h>
#include <cuda/atomic>

namespace rp_kernels {

constexpr int CHAINS = 16; // of a block; the single-launch kernels take no other number
constexpr int SLOTS = 4;   // of a chain
constexpr int MAXIMUM_BLOCKS = 128;

// Rows, blocks and tiles of one call. The grid is (blocks, sets): set s walks the tiles s,
// s + sets, ...
struct RowsWork {
    int rows, channels;
    int blocks;        // of eager mode's grid
    int trips;         // rows of the longest slot
    int tiles, sets;   // of channels
    int rows_a_chain;  // every chain has these
    int longer_chains; // and the first ones one more
    Workspace workspace;
};

inline RowsWork rows_work(int rows, int channels, int blocks, int tiles, int sets,
                          const Workspace &workspace) {
    const int chains = CHAINS * blocks;
    const int trips = 1 + (rows - 1) / (SLOTS * chains);
    return {rows, channels, blocks, trips, tiles, sets, rows / chains, rows % chains, workspace};
}

// The thread's index, which the compiler can't see through: what follows from it is computed where
// it is used, and not kept over the streaming loops, which need the registers.
__device__ __forceinline__ int opaque_thread() {
    int thread = threadIdx.x;
    asm volatile("" : "+r"(thread));
    return thread;
}

// Where a thread stands in a tile.
template <typename scalar_t, int TILE> struct RowTile {
    static constexpr int PACK = Scalar<scalar_t>::PACK;
    static constexpr int COLUMNS = TILE / PACK;
    static constexpr int THREADS = CHAINS * SLOTS * COLUMNS;
    static constexpr int WARP_COLUMNS = COLUMNS < 8 ? COLUMNS : 8;
    static constexpr int WARP_CHAINS = 32 / (SLOTS * WARP_COLUMNS);
    static constexpr int COLUMN_GROUPS = COLUMNS / WARP_COLUMNS;

    int chain;   // of the block, 0 ... 15
    int slot;    // of the chain
    int channel; // of the tile, the first of PACK

    __device__ explicit RowTile(int thread) {
        const int lane = thread % 32;
        const int warp = thread / 32;
        chain = warp / COLUMN_GROUPS * WARP_CHAINS + lane / (SLOTS * WARP_COLUMNS);
        slot = lane / WARP_COLUMNS % SLOTS;
        channel = (warp % COLUMN_GROUPS * WARP_COLUMNS + lane % WARP_COLUMNS) * PACK;
    }
};

// Shared memory of a tile's reduction. Two floats of padding keep both directions of access free
// of bank conflicts.
template <int TILE> struct TileScratch {
    Channel parameters[TILE];
    float first[CHAINS][TILE + 2], second[CHAINS][TILE + 2];
    float variance[TILE];       // forward
    float sum[TILE], dot[TILE]; // backward: of each channel's gradients
};

__device__ __forceinline__ int rows_of_chain(const RowsWork &work, int chain) {
    return work.rows_a_chain + (chain < work.longer_chains);
}

__device__ __forceinline__ int rows_of_slot(int rows_of_chain, int slot) {
    return (rows_of_chain - slot + SLOTS - 1) / SLOTS;
}

__device__ __forceinline__ int rows_of_block(const RowsWork &work, int block) {
    const int longer = min(max(work.longer_chains - block * CHAINS, 0), CHAINS);
    return work.rows_a_chain * CHAINS + longer;
}

// Afterwards value[s] of slot j is what value[j] of slot s was.
template <int WARP_COLUMNS>
__device__ __forceinline__ void transpose_slots(float *value, int slot) {
#pragma unroll
    for (int bit = 1; bit < SLOTS; bit *= 2) {
        const bool upper = slot & bit;
        const int other = bit == 1 ? 2 : 1; // the distance between the two exchanges
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            const int low = pair * other;
            const int high = low + bit;
            const float received =
                __shfl_xor_sync(~0u, upper ? value[low] : value[high], bit * WARP_COLUMNS);
            if (upper) {
                value[low] = received;
            } else {
                value[high] = received;
            }
        }
    }
}

// The four slots of each chain and channel, merged in sequence, into the scratch.
template <typename Merge, typename scalar_t, int TILE>
__device__ __forceinline__ void merge_slots(TileScratch<TILE> &scratch,
                                            const RowTile<scalar_t, TILE> &at, int rows_of_chain,
                                            float *first, float *second) {
    using Tile = RowTile<scalar_t, TILE>;
#pragma unroll
    for (int quad = 0; quad < Tile::PACK; quad += SLOTS) {
        transpose_slots<Tile::WARP_COLUMNS>(first + quad, at.slot);
        transpose_slots<Tile::WARP_COLUMNS>(second + quad, at.slot);
        Partial total = {rows_of_slot(rows_of_chain, 0), first[quad], second[quad]};
#pragma unroll
        for (int s = 1; s < SLOTS; ++s) {
            total = Merge::slots(
                total, {rows_of_slot(rows_of_chain, s), first[quad + s], second[quad + s]});
        }
        scratch.first[at.chain][at.channel + quad + at.slot] = total.first;
        scratch.second[at.chain][at.channel + quad + at.slot] = total.second;
    }
}

// Tree over 16 neighbouring lanes; the result is the first one's.
template <typename Merge> __device__ __forceinline__ Partial merge_sixteen(Partial partial) {
#pragma unroll
    for (int offset = CHAINS / 2; offset > 0; offset /= 2) {
        const Partial other = {__shfl_down_sync(~0u, partial.count, offset),
                               __shfl_down_sync(~0u, partial.first, offset),
                               __shfl_down_sync(~0u, partial.second, offset)};
        partial = Merge::blocks(partial, other);
    }
    return partial;
}

// All blocks' partial results of one channel; lane y of sixteen starts empty and takes blocks
// y, y + 16, ... in order.
template <typename Merge>
__device__ __forceinline__ Partial merge_blocks(const RowsWork &work, int channel, int lane) {
    constexpr int LOADS = MAXIMUM_BLOCKS / CHAINS;
    float2 part[LOADS] = {};
    const bool exists = channel < work.channels;
#pragma unroll
    for (int k = 0; k < LOADS; ++k) {
        const int block = lane + CHAINS * k;
        if (exists && block < work.blocks) {
            part[k] = __ldcg(work.workspace.partials + static_cast<int64_t>(channel) * work.blocks +
                             block);
        }
    }
    Partial total = {};
#pragma unroll
    for (int k = 0; k < LOADS; ++k) {
        const int block = lane + CHAINS * k;
        if (exists && block < work.blocks) {
            total = Merge::blocks(total, {rows_of_block(work, block), part[k].x, part[k].y});
        }
    }
    return merge_sixteen<Merge>(total);
}

// The blocks of a set wait for each other. The first time it is the whole grid that waits, which
// also shows the counters' zeros to all; later the sets go on by themselves, so that one loads
// while another stores.
__device__ __forceinline__ void wait_for_set(const RowsWork &work, int round) {
    // The sums' memory is free: these kernels keep the sums on the chip.
    unsigned *arrivals = reinterpret_cast<unsigned *>(work.workspace.sum) + blockIdx.y;
    if (round == 0) {
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            *arrivals = 0;
        }
        cooperative_groups::this_grid().sync(); // every block's partial results are in memory
        return;
    }
    __syncthreads(); // this block's partial results are written
    if (threadIdx.x == 0) {
        cuda::atomic_ref<unsigned, cuda::thread_scope_device> counter(*arrivals);
        counter.fetch_add(1, cuda::memory_order_acq_rel);
        while (counter.load(cuda::memory_order_acquire) <
               static_cast<unsigned>(round * work.blocks)) {
        }
    }
    __syncthreads(); // the set's partial results are in memory, and seen by all
}

// Reduces the tile whose slots are merged in the scratch and seen by all, over the chains and, when
// GRID, over the blocks of the whole grid; finish(channel of the tile, total) in one thread a
// channel.
template <typename Merge, bool GRID, int THREADS, int TILE, typename Finish>
__device__ __forceinline__ void reduce_tile(const TileScratch<TILE> &scratch, const RowsWork &work,
                                            int block, int round, int first_channel,
                                            const Finish &finish) {
    for (int q = opaque_thread(); q < CHAINS * TILE; q += THREADS) {
        const int chain = q % CHAINS;
        const int channel = q / CHAINS;
        Partial partial = {rows_of_chain(work, block * CHAINS + chain),
                           scratch.first[chain][channel], scratch.second[chain][channel]};
        partial = merge_sixteen<Merge>(partial);
        if (chain == 0 && first_channel + channel < work.channels) {
            if constexpr (GRID) {
                __stcg(work.workspace.partials +
                           static_cast<int64_t>(first_channel + channel) * work.blocks + block,
                       make_float2(partial.first, partial.second));
            } else {
                finish(channel, partial);
            }
        }
    }
    if constexpr (GRID) {
        wait_for_set(work, round);
        for (int q = opaque_thread(); q < CHAINS * TILE; q += THREADS) {
            const int lane = q % CHAINS;
            const int channel = q / CHAINS;
            const Partial total = merge_blocks<Merge>(work, first_channel + channel, lane);
            if (lane == 0 && first_channel + channel < work.channels) {
                finish(channel, total);
            }
        }
    }
    __syncthreads(); // what finish wrote is seen by all
}

// The rows of one slot of a tile, as one thread sees them.
template <typename scalar_t, int TILE> struct SlotRows {
    RowTile<scalar_t, TILE> at;
    int thread, chain_rows, count;
    int first;  // element
    int stride; // elements from a row to the next

    __device__ SlotRows(const RowsWork &work, int block, int first_channel, int thread_)
        : at(thread_), thread(thread_) {
        const int chains = work.blocks * CHAINS;
        const int chain = block * CHAINS + at.chain;
        chain_rows = rows_of_chain(work, chain);
        count = has_channel(first_channel, work) ? rows_of_slot(chain_rows, at.slot) : 0;
        first = (chain + at.slot * chains) * work.channels + first_channel + at.channel;
        stride = SLOTS * chains * work.channels;
    }

    // Of the tile that starts at `first_channel`.
    __device__ bool has_channel(int first_channel, const RowsWork &work) const {
        return first_channel + at.channel < work.channels;
    }
};

// What one thread reads of its slot: the rows of a tile upward, then downward. Row r has place
// r % DEPTH in shared memory, and only the thread itself touches it, which needs no barrier.
//
// Where all rows have a place (on_chip), the next tile's rows arrive in those that the way down has
// read. Else copies run DEPTH rows ahead, each into the place of the row just read, and the last
// rows of the way up are still there when the way down begins.
template <typename scalar_t, int TENSORS, int DEPTH, int THREADS> class RowQueue {
  public:
    struct Words {
        uint4 tensor[TENSORS];
    };

    // memory: [DEPTH][TENSORS][THREADS], shared
    __device__ RowQueue(uint4 *memory, bool on_chip, const void *tensor,
                        const void *second_tensor = nullptr)
        : memory_(memory + threadIdx.x),
          on_chip_(on_chip), tensor_{static_cast<const scalar_t *>(tensor)} {
        if constexpr (TENSORS == 2) {
            tensor_[1] = static_cast<const scalar_t *>(second_tensor);
        }
    }

    // `count` rows, `stride` elements apart from element `first` on.
    __device__ void start(int first, int stride, int count) {
#pragma unroll 2
        for (int row = 0; row < min(count, DEPTH); ++row) {
            copy(row, first + row * stride);
            commit_copies();
        }
    }

    // use(row, words) for all rows.
    template <typename Use> __device__ void up(int first, int stride, int count, const Use &use) {
        if (on_chip_) {
            wait_copies<0>();
#pragma unroll 2
            for (int row = 0; row < count; ++row) {
                use(row, read(row));
            }
            return;
        }
        place_ = 0;
        for (int row = 0; row < count; ++row) {
            wait_copies<DEPTH - 1>();
            const Words words = read(place_);
            if (row + DEPTH < count) {
                copy(place_, first + (row + DEPTH) * stride);
            }
            commit_copies();
            place_ = place_ + 1 == DEPTH ? 0 : place_ + 1;
            use(row, words);
        }
    }

    // The same downward. The next tile, if it has this thread's channels, lies `to_next` elements
    // further.
    template <typename Use>
    __device__ void down(int first, int stride, int count, bool has_next, int to_next,
                         const Use &use) {
        if (on_chip_) {
#pragma unroll 2
            for (int row = 0; row < count; ++row) {
                const Words words = read(row);
                if (has_next) {
                    copy(row, first + to_next + row * stride);
                }
                use(row, words);
            }
            commit_copies();
            return;
        }
        for (int row = count - 1; row >= 0; --row) {
            place_ = place_ == 0 ? DEPTH - 1 : place_ - 1;
            wait_copies<DEPTH - 1>();
            const Words words = read(place_);
            if (row >= DEPTH) {
                copy(place_, first + (row - DEPTH) * stride);
            }
            commit_copies();
            use(row, words);
        }
        if (has_next) {
            start(first + to_next, stride, count);
        }
    }

  private:
    __device__ uint4 *word(int place, int t) const {
        return memory_ + (place * TENSORS + t) * THREADS;
    }

    __device__ Words read(int place) const {
        Words words;
#pragma unroll
        for (int t = 0; t < TENSORS; ++t) {
            words.tensor[t] = *word(place, t);
        }
        return words;
    }

    __device__ void copy(int place, int element) const {
#pragma unroll
        for (int t = 0; t < TENSORS; ++t) {
            copy_async(word(place, t), tensor_[t] + element);
        }
    }

    uint4 *memory_;
    bool on_chip_;
    const scalar_t *tensor_[TENSORS];
    int place_ = 0; // of the next row
};

} // namespace rp_kernels
