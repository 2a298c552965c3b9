// ROWS whose size is no multiple of 16 bytes. Such a row starts at any alignment, but the 16 rows
// that one slot of a block of chains takes in one trip, a chunk, lie in a run and start aligned.
//
// A thread block takes one block of eager mode's grid over all channels. A thread takes the same
// four elements of every chunk, a quad, so it always meets the same four (chain, channel) pairs,
// and holds their slots in registers as a thread of eager mode does. What it reads goes through a
// queue of its own in shared memory, long enough to keep the memory busy, and the end of the first
// pass is still in the queue when the second begins.
#pragma once

#include "bn_leaky_relu_copy.cuh"
#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_rows_tile.cuh"

#include <type_traits>

namespace rp_kernels {

constexpr int QUAD = 4;            // elements
constexpr int CHUNK_THREADS = 544; // at most: two passes over 1,028 quads; 96 registers each
constexpr int QUEUE_WORDS = 22;    // of each thread

template <typename scalar_t>
using QuadWord = std::conditional_t<sizeof(scalar_t) == sizeof(float), uint4, uint2>;

template <typename scalar_t>
__device__ __forceinline__ void unpack_quad(const QuadWord<scalar_t> &word, float (&value)[QUAD]) {
    const scalar_t *element = reinterpret_cast<const scalar_t *>(&word);
#pragma unroll
    for (int e = 0; e < QUAD; ++e) {
        value[e] = Scalar<scalar_t>::widen(element[e]);
    }
}

template <typename scalar_t>
__device__ __forceinline__ QuadWord<scalar_t> pack_quad(const float (&value)[QUAD]) {
    QuadWord<scalar_t> word;
    scalar_t *element = reinterpret_cast<scalar_t *>(&word);
#pragma unroll
    for (int e = 0; e < QUAD; ++e) {
        element[e] = Scalar<scalar_t>::narrow(value[e]);
    }
    return word;
}

// The four elements of a quad, of one or two tensors laid out alike.
template <int TENSORS> struct Quads { float tensor[TENSORS][QUAD]; };

struct ChunkWork {
    RowsWork rows;
    int quads; // of a chunk
};

// One quad of the chunks of one block.
struct ChunkColumn {
    const RowsWork &work;
    int block, quad;
    unsigned first;  // element of the quad in the block's first chunk
    unsigned stride; // elements from a chunk of the block to the next
    int whole;       // chunks of the block that end within the tensor

    __device__ ChunkColumn(const ChunkWork &chunks, int block_, int quad_)
        : work(chunks.rows), block(block_), quad(quad_),
          first(static_cast<unsigned>(QUAD) * (block * chunks.quads + quad)),
          stride(static_cast<unsigned>(QUAD) * work.blocks * chunks.quads),
          whole((work.rows / CHAINS - block + work.blocks - 1) / work.blocks) {}

    __device__ unsigned element(int chunk) const { return first + chunk * stride; }
    __device__ bool inside(unsigned element) const {
        return element < static_cast<unsigned>(work.rows) * work.channels;
    }
    __device__ int channel(int e) const { return (QUAD * quad + e) % work.channels; }
    __device__ int rows_of_chain(int e) const {
        const int chain = (QUAD * quad + e) / work.channels;
        return rp_kernels::rows_of_chain(work, block * CHAINS + chain);
    }
};

// What one thread reads: its quads one after the other, of each the whole chunks upward; after
// turn() the same backward. Copies run DEPTH quads ahead, each into the place of the one just read.
template <typename scalar_t, int TENSORS> class ChunkQueue {
  public:
    // memory: [QUEUE_WORDS][threads], shared
    __device__ ChunkQueue(const ChunkWork &work, int block, QuadWord<scalar_t> *memory,
                          const void *tensor, const void *second_tensor = nullptr)
        : tensor_{static_cast<const scalar_t *>(tensor)}, memory_(memory + threadIdx.x) {
        if constexpr (TENSORS == 2) {
            tensor_[1] = static_cast<const scalar_t *>(second_tensor);
        }
        const ChunkColumn column(work, block, threadIdx.x);
        first_ = next_ = column.first;
        stride_ = column.stride;
        whole_ = column.whole;
        ahead_ = size_ =
            whole_ * static_cast<int>((work.quads + blockDim.x - 1 - threadIdx.x) / blockDim.x);
        for (int place = 0; place < DEPTH; ++place) {
            copy_next(place);
        }
    }

    __device__ const scalar_t *tensor(int t) const { return tensor_[t]; }

    __device__ Quads<TENSORS> next() {
        const Quads<TENSORS> quads = read(place_);
        copy_next(place_);
        place_ = place_ + 1 == DEPTH ? 0 : place_ + 1;
        return quads;
    }

    __device__ void turn() {
        ahead_ = max(size_ - DEPTH, 0);
        const int last = ahead_ - 1;
        chunk_ = last % whole_;
        next_ = first_ + last / whole_ * QUAD * blockDim.x + chunk_ * stride_;
    }

    __device__ Quads<TENSORS> previous() {
        place_ = place_ == 0 ? DEPTH - 1 : place_ - 1;
        const Quads<TENSORS> quads = read(place_);
        if (ahead_ > 0) {
            copy(place_);
            const bool first_of_quad = chunk_ == 0;
            chunk_ = first_of_quad ? whole_ - 1 : chunk_ - 1;
            next_ -= first_of_quad ? to_next_quad() : stride_;
        }
        commit_copies();
        return quads;
    }

  private:
    static constexpr int DEPTH = QUEUE_WORDS / TENSORS;

    // Elements from a quad's last chunk to the next quad's first one; it wraps, as unsigned does.
    __device__ unsigned to_next_quad() const { return QUAD * blockDim.x - (whole_ - 1) * stride_; }

    __device__ QuadWord<scalar_t> *word(int place, int t) const {
        return memory_ + (place * TENSORS + t) * blockDim.x;
    }

    __device__ Quads<TENSORS> read(int place) const {
        wait_copies<DEPTH - 1>();
        Quads<TENSORS> quads;
#pragma unroll
        for (int t = 0; t < TENSORS; ++t) {
            unpack_quad<scalar_t>(*word(place, t), quads.tensor[t]);
        }
        return quads;
    }

    __device__ void copy(int place) {
#pragma unroll
        for (int t = 0; t < TENSORS; ++t) {
            copy_async(word(place, t), tensor_[t] + next_);
        }
        --ahead_;
    }

    __device__ void copy_next(int place) {
        if (ahead_ > 0) {
            copy(place);
            const bool last_of_quad = chunk_ == whole_ - 1;
            chunk_ = last_of_quad ? 0 : chunk_ + 1;
            next_ += last_of_quad ? to_next_quad() : stride_;
        }
        commit_copies(); // an empty group too, so that a place's group is always as old
    }

    const scalar_t *tensor_[TENSORS];
    QuadWord<scalar_t> *memory_;
    unsigned first_, stride_;
    unsigned next_;    // element of the next copy
    int whole_, size_; // chunks of a quad, and of all quads
    int ahead_;        // not yet copied
    int chunk_ = 0;    // of the next copy
    int place_ = 0;    // in the queue, of the next read
};

// The elements of one quad of a chunk that the tensor's end may cut.
template <typename scalar_t, int TENSORS, typename Use>
__device__ __forceinline__ void for_each_inside(const ChunkColumn &column,
                                                const ChunkQueue<scalar_t, TENSORS> &queue,
                                                int chunk, const Use &use) {
#pragma unroll
    for (int e = 0; e < QUAD; ++e) {
        const unsigned element = column.element(chunk) + e;
        Quads<TENSORS> quads;
        const bool inside = column.inside(element);
#pragma unroll
        for (int t = 0; t < TENSORS; ++t) {
            quads.tensor[t][e] = inside ? Scalar<scalar_t>::widen(queue.tensor(t)[element]) : 0.0f;
        }
        use(e, quads, inside, element);
    }
}

// The chains of a quad over all their rows, their slots then merged in sequence into first and
// second: add(first, second, e, quads, reciprocal of the count) for a row, past_the_end(first,
// second, e) for a row that the last trip lacks.
template <typename Merge, typename scalar_t, int TENSORS, typename Add, typename PastTheEnd>
__device__ __forceinline__ void
reduce_quad(const ChunkColumn &column, ChunkQueue<scalar_t, TENSORS> &queue, float4 &merged_first,
            float4 &merged_second, const Add &add, const PastTheEnd &past_the_end) {
    float first[SLOTS][QUAD] = {}, second[SLOTS][QUAD] = {};
    const auto add_next = [&](int s, float reciprocal) {
        const Quads<TENSORS> quads = queue.next();
#pragma unroll
        for (int e = 0; e < QUAD; ++e) {
            add(first[s][e], second[s][e], e, quads, reciprocal);
        }
    };
    const int full_trips = column.whole / SLOTS;
    for (int trip = 0; trip < full_trips; ++trip) {
        const float reciprocal = reciprocal_of(trip + 1);
#pragma unroll
        for (int s = 0; s < SLOTS; ++s) {
            add_next(s, reciprocal);
        }
    }
    const float reciprocal = reciprocal_of(full_trips + 1);
#pragma unroll
    for (int s = 0; s < SLOTS && full_trips < column.work.trips; ++s) {
        const int chunk = SLOTS * full_trips + s;
        if (chunk < column.whole) {
            add_next(s, reciprocal);
            continue;
        }
        for_each_inside(column, queue, chunk,
                        [&](int e, const Quads<TENSORS> &quads, bool inside, unsigned) {
                            if (inside) {
                                add(first[s][e], second[s][e], e, quads, reciprocal);
                            } else {
                                past_the_end(first[s][e], second[s][e], e);
                            }
                        });
    }
#pragma unroll
    for (int e = 0; e < QUAD; ++e) {
        const int rows = column.rows_of_chain(e);
        Partial total = {rows_of_slot(rows, 0), first[0][e], second[0][e]};
#pragma unroll
        for (int s = 1; s < SLOTS; ++s) {
            total = Merge::slots(total, {rows_of_slot(rows, s), first[s][e], second[s][e]});
        }
        (&merged_first.x)[e] = total.first;
        (&merged_second.x)[e] = total.second;
    }
}

// Reduces the merged slots, [CHAINS][channels] in shared memory, over chains and blocks;
// finish(channel, total) in one thread of the grid a channel, and all see what it wrote.
template <typename Merge, typename Finish>
__device__ __forceinline__ void reduce_chunks(const float *first, const float *second,
                                              const RowsWork &work, int block,
                                              const Finish &finish) {
    __syncthreads(); // every slot is in shared memory
    const int chain = threadIdx.x % CHAINS;
    const int group = threadIdx.x / CHAINS;
    const int groups = blockDim.x / CHAINS; // whole warps take part in the trees
    for (int base = 0; base < work.channels; base += groups) {
        const int channel = min(base + group, work.channels - 1);
        const int index = chain * work.channels + channel;
        const Partial partial = merge_sixteen<Merge>(
            {rows_of_chain(work, block * CHAINS + chain), first[index], second[index]});
        if (chain == 0 && base + group < work.channels) {
            __stcg(work.workspace.partials + static_cast<int64_t>(channel) * work.blocks + block,
                   make_float2(partial.first, partial.second));
        }
    }
    cooperative_groups::this_grid().sync(); // every block's partial results are in memory
    for (int base = 0; base < work.channels; base += groups * work.blocks) {
        const int channel = base + group * work.blocks + block;
        const Partial total = merge_blocks<Merge>(work, channel, chain);
        if (chain == 0 && channel < work.channels) {
            finish(channel, total);
        }
    }
    cooperative_groups::this_grid().sync(); // every channel is finished
}

// The second pass over a quad, newest chunks first: output = transform(e, quads).
template <typename scalar_t, int TENSORS, typename Transform>
__device__ __forceinline__ void transform_quad(const ChunkColumn &column,
                                               ChunkQueue<scalar_t, TENSORS> &queue,
                                               scalar_t *output, const Transform &transform) {
    for_each_inside(column, queue, column.whole,
                    [&](int e, const Quads<TENSORS> &quads, bool inside, unsigned element) {
                        if (inside) {
                            output[element] = Scalar<scalar_t>::narrow(transform(e, quads));
                        }
                    });
    for (int chunk = column.whole - 1; chunk >= 0; --chunk) {
        const Quads<TENSORS> quads = queue.previous();
        float result[QUAD];
#pragma unroll
        for (int e = 0; e < QUAD; ++e) {
            result[e] = transform(e, quads);
        }
        __stcs(reinterpret_cast<QuadWord<scalar_t> *>(output + column.element(chunk)),
               pack_quad<scalar_t>(result));
    }
}

template <typename scalar_t> int chunk_shared_bytes(int threads, int channels) {
    return QUEUE_WORDS * threads * static_cast<int>(sizeof(QuadWord<scalar_t>)) +
           2 * CHAINS * channels * static_cast<int>(sizeof(float));
}

// Returns cudaErrorNotSupported where fewer blocks would leave half of the GPU idle, and where the
// channels' slots don't fit on the chip.
template <typename scalar_t, typename Kernel, typename Params>
cudaError_t launch_chunks(ResidentBlocks &resident, Kernel kernel, const Params &params,
                          cudaStream_t stream, float constant) {
    constexpr int LARGEST = 227 * 1024;
    const int rows = params.shape.images * params.shape.length;
    const int channels = params.shape.channels;
    const RowGrid grid = row_grid(rows, channels);
    const int quads = CHAINS * channels / QUAD;
    const int passes = static_cast<int>(divide_up(quads, CHUNK_THREADS));
    const int threads = static_cast<int>(divide_up(divide_up(quads, passes), 32) * 32);
    const int shared = chunk_shared_bytes<scalar_t>(threads, channels);
    if (grid.block_rows != CHAINS || grid.blocks < MAXIMUM_BLOCKS / 2 || shared > LARGEST) {
        return cudaErrorNotSupported;
    }
    int capacity = 0;
    const cudaError_t error = resident.ask(&capacity, kernel, CHUNK_THREADS, LARGEST);
    if (error != cudaSuccess) {
        return error;
    }
    if (capacity < grid.blocks) {
        return cudaErrorNotSupported;
    }
    const RowsWork work =
        rows_work(rows, channels, grid.blocks, 1, 1, workspace_of(params.shape, params.workspace));
    cudaLaunchAttribute cooperative = {};
    cooperative.id = cudaLaunchAttributeCooperative;
    cooperative.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(grid.blocks);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &cooperative;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, params, ChunkWork{work, quads}, constant);
}

} // namespace rp_kernels
