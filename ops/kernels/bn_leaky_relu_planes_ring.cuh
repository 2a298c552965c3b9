// The images of one channel, streamed through shared memory for the single-launch PLANES kernels.
//
// A cluster of thread blocks shares a channel: eager mode's 512 threads are cut into equal parts,
// and part r owns elements 512 k + [r * WIDTH, (r + 1) * WIDTH) of every plane. Some warps copy
// image after image into a ring of slots by bulk copies, which a single warp issues too slowly; the
// warps that own eager mode's threads take them in order. What the ring holds at the end needs no
// second read.
#pragma once

#include "bn_leaky_relu_channel.cuh"
#include "bn_leaky_relu_planes_merge.cuh"

#include <cooperative_groups.h>

namespace rp_kernels {

constexpr int PARTS = 2;                     // thread blocks of a cluster
constexpr int WIDTH = PLANE_THREADS / PARTS; // eager mode's threads of one part
constexpr int CHAIN_WARPS = WIDTH / 32;      // warps that own them
constexpr int COPY_WARPS = 4;                // the next ones, that copy
constexpr int RING_THREADS = 512;            // of a thread block, of which two fit
constexpr int MAXIMUM_SLOTS = 40;

// ---- mbarriers and bulk copies ------------------------------------------------------------------

__device__ __forceinline__ uint32_t shared_address(const void *pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void barrier_init(uint64_t *barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
                 : "memory");
}

__device__ __forceinline__ void barrier_expect(uint64_t *barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t *barrier) {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t *barrier, uint32_t parity) {
    uint32_t done = 0;
    while (!done) {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(shared_address(barrier)), "r"(parity)
                     : "memory");
    }
}

// Orders this thread's ordinary accesses to shared memory before later bulk copies: without it a
// copy into a slot can overtake the loads that emptied it.
__device__ __forceinline__ void fence_bulk_copies() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void bulk_copy(void *shared, const void *global, uint32_t bytes,
                                          uint64_t *barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

// ---- The ring -----------------------------------------------------------------------------------

struct RingShape {
    int slots;      // images in the ring, 2 ... MAXIMUM_SLOTS, or all
    int slot_packs; // packs of 16 bytes that one part has of a plane, at most
};

// Packs of a plane that part 0 owns, which no other part exceeds.
__host__ __device__ inline int packs_of_part(int length, int pack) {
    const int last = length % PLANE_THREADS;
    return (length / PLANE_THREADS * WIDTH + (last < WIDTH ? last : WIDTH)) / pack;
}

// A walk around the ring, a slot an image; the parity of the slot's barrier turns at each lap.
struct RingPosition {
    int slot = 0;
    uint32_t parity = 0;
    __device__ void advance(int slots) {
        if (++slot == slots) {
            slot = 0;
            parity ^= 1;
        }
    }
};

template <typename scalar_t, int TENSORS> class PlanesRing {
  public:
    static constexpr int PACK = Scalar<scalar_t>::PACK;
    static constexpr int SEGMENT_PACKS = WIDTH / PACK;

    // memory: dynamic shared memory, [slots][TENSORS][slot_packs]; barriers: [2][MAXIMUM_SLOTS]
    __device__ PlanesRing(const BnLeakyReluShape &shape, const RingShape &ring, uint4 *memory,
                          uint64_t *barriers, int part)
        : shape_(shape), ring_(ring), memory_(memory), full_(barriers),
          empty_(barriers + MAXIMUM_SLOTS), part_(part),
          image_stride_(shape.channels * shape.length) {}

    __device__ void init() {
        const int slot = threadIdx.x;
        if (slot < ring_.slots) {
            barrier_init(full_ + slot, 1);
            barrier_init(empty_ + slot, CHAIN_WARPS * 32);
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            fence_bulk_copies();
        }
        __syncthreads(); // the barriers exist before anybody waits on one
    }

    __device__ int segments() const {
        return (shape_.length - part_ * WIDTH + PLANE_THREADS - 1) / PLANE_THREADS;
    }

    // By the copying warps: all images, each as soon as its slot is free.
    __device__ void produce(const scalar_t *const (&channel)[TENSORS]) {
        if (first_segment() >= segments()) {
            return; // has nothing to copy, and could fall two laps behind, which parity can't tell
        }
        RingPosition at;
        for (int image = 0; image < shape_.images; ++image) {
            if (image >= ring_.slots) {
                // The parity of the lap before this one, in which the slot was given back.
                barrier_wait(empty_ + at.slot, at.parity ^ 1);
            }
            copy_image(channel, image, at.slot);
            at.advance(ring_.slots);
        }
    }

    // By the chain warps: take(slots' elements of this thread, count) for every image in order.
    template <typename Take> __device__ void consume(const Take &take) {
        const int first = part_ * WIDTH + static_cast<int>(threadIdx.x);
        const int count =
            first < shape_.length ? 1 + (shape_.length - 1 - first) / PLANE_THREADS : 0;
        RingPosition at;
        for (int image = 0; image < shape_.images; ++image) {
            barrier_wait(full_ + at.slot, at.parity);
            take(reinterpret_cast<const scalar_t *>(slot_memory(at.slot, 0)) + threadIdx.x, count);
            if (image + ring_.slots < shape_.images) {
                // Each thread gives back what it has read: racecheck can't follow one that does so
                // for its warp.
                fence_bulk_copies();
                barrier_arrive(empty_ + at.slot);
            }
            at.advance(ring_.slots);
        }
    }

    // Elements from one tensor of a slot to the next.
    __device__ int tensor_stride() const { return ring_.slot_packs * PACK; }

    // By all threads: apply(words of the tensors, offset in the channel) for every pack of the
    // part: images that left the ring newest first, then those in it.
    template <int UNROLL, typename Apply>
    __device__ void transform(const scalar_t *const (&channel)[TENSORS], const Apply &apply) {
        const int held = min(ring_.slots, shape_.images);
        const int first_held = shape_.images - held;
        for (int q = threadIdx.x; q < ring_.slot_packs; q += RING_THREADS) {
            const int start =
                q / SEGMENT_PACKS * PLANE_THREADS + part_ * WIDTH + q % SEGMENT_PACKS * PACK;
            if (start >= shape_.length) {
                continue;
            }
            reread<UNROLL>(channel, start, first_held, apply);
            int slot = first_held % ring_.slots;
#pragma unroll 4
            for (int image = first_held; image < shape_.images; ++image) {
                uint4 word[TENSORS];
#pragma unroll
                for (int t = 0; t < TENSORS; ++t) {
                    word[t] = slot_memory(slot, t)[q];
                }
                apply(word, image * image_stride_ + start);
                slot = slot + 1 == ring_.slots ? 0 : slot + 1;
            }
        }
    }

  private:
    __device__ uint4 *slot_memory(int slot, int tensor) const {
        return memory_ + (slot * TENSORS + tensor) * ring_.slot_packs;
    }

    // Of a copying thread: neighbours go to different warps.
    __device__ static int first_segment() {
        const int thread = static_cast<int>(threadIdx.x) - CHAIN_WARPS * 32;
        return thread / 32 + thread % 32 * COPY_WARPS;
    }

    __device__ void copy_image(const scalar_t *const (&channel)[TENSORS], int image, int slot) {
        // Bytes may arrive before they are expected: this arrival is what the barrier waits for.
        if (first_segment() == 0) {
            barrier_expect(full_ + slot, TENSORS * bytes_of_part());
        }
        for (int segment = first_segment(); segment < segments(); segment += COPY_WARPS * 32) {
            const int start = PLANE_THREADS * segment + part_ * WIDTH;
            const uint32_t bytes = min(WIDTH, shape_.length - start) * sizeof(scalar_t);
#pragma unroll
            for (int t = 0; t < TENSORS; ++t) {
                bulk_copy(slot_memory(slot, t) + segment * SEGMENT_PACKS,
                          channel[t] + image * image_stride_ + start, bytes, full_ + slot);
            }
        }
    }

    __device__ uint32_t bytes_of_part() const {
        const int last = shape_.length % PLANE_THREADS - part_ * WIDTH;
        const int elements = shape_.length / PLANE_THREADS * WIDTH + min(max(last, 0), WIDTH);
        return elements * sizeof(scalar_t);
    }

    template <int UNROLL, typename Apply>
    __device__ void reread(const scalar_t *const (&channel)[TENSORS], int start, int images,
                           const Apply &apply) {
        for (int newest = images - 1; newest >= 0; newest -= UNROLL) {
            uint4 word[UNROLL][TENSORS];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
#pragma unroll
                for (int t = 0; t < TENSORS && newest >= u; ++t) {
                    word[u][t] = __ldcg(reinterpret_cast<const uint4 *>(
                        channel[t] + (newest - u) * image_stride_ + start));
                }
            }
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                if (newest >= u) {
                    apply(word[u], (newest - u) * image_stride_ + start);
                }
            }
        }
    }

    BnLeakyReluShape shape_;
    RingShape ring_;
    uint4 *memory_;
    uint64_t *full_, *empty_;
    int part_;
    int image_stride_;
};

// The warps' partial results, brought to every part of the cluster; merge(...) is warp-wide and its
// result is lane 0's. Every thread returns the channel's total.
template <typename Merge>
__device__ Partial merge_cluster(Partial partial, float2 *results, int part, int count_of_lane,
                                 const Merge &merge) {
    namespace cg = cooperative_groups;
    cg::cluster_group cluster = cg::this_cluster();
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    if (warp < CHAIN_WARPS) {
        partial = merge(partial);
        // Lane 0's alone has eager mode's order.
        const float first = __shfl_sync(~0u, partial.first, 0);
        const float second = __shfl_sync(~0u, partial.second, 0);
        if (lane < PARTS) {
            *cluster.map_shared_rank(results + part * CHAIN_WARPS + warp, lane) =
                make_float2(first, second);
        }
    }
    cluster.sync(); // every part's results have arrived in every part
    Partial total = {};
    if (lane < PLANE_WARPS) {
        total = {count_of_lane, results[lane].x, results[lane].y};
    }
    total = merge(total);
    return {0, __shfl_sync(~0u, total.first, 0), __shfl_sync(~0u, total.second, 0)};
}

// ---- Launching ----------------------------------------------------------------------------------

// Dynamic shared memory of a thread block that has a multiprocessor, or half of one.
constexpr size_t RING_SHARED_BYTES = 225 * 1024, HALF_RING_SHARED_BYTES = 111 * 1024;

// Slots that fit into `bytes`, or 0.
inline int slots_within(const BnLeakyReluShape &shape, size_t slot_bytes, size_t bytes) {
    const size_t fit = bytes / slot_bytes;
    const size_t wanted = shape.images < MAXIMUM_SLOTS ? shape.images : MAXIMUM_SLOTS;
    const int slots = static_cast<int>(fit < wanted ? fit : wanted);
    return slots < 2 && slots < shape.images ? 0 : slots;
}

// Slots that fit beside `other_bytes`; 0 when the ring isn't for this shape. Where there are more
// channels than fit at once, two thread blocks share a multiprocessor: one reads while the other
// writes, which is worth more than the images that half a ring reads twice.
template <typename scalar_t>
RingShape ring_shape(const BnLeakyReluShape &shape, int tensors, size_t other_bytes) {
    constexpr int PACK = Scalar<scalar_t>::PACK;
    constexpr int MULTIPROCESSORS = 132; // of an H100 or H200
    if (shape.length <= PLANE_THREADS / 2 || shape.length % PACK != 0) {
        return {0, 0};
    }
    const int packs = packs_of_part(shape.length, PACK);
    const size_t slot_bytes = packs * tensors * sizeof(uint4);
    int slots = 0;
    if (shape.channels * PARTS > MULTIPROCESSORS && other_bytes < HALF_RING_SHARED_BYTES / 4) {
        slots = slots_within(shape, slot_bytes, HALF_RING_SHARED_BYTES - other_bytes);
    }
    if (slots == 0 && other_bytes < RING_SHARED_BYTES / 4) {
        slots = slots_within(shape, slot_bytes, RING_SHARED_BYTES - other_bytes);
    }
    return {slots, packs};
}

template <typename Kernel, typename... Arguments>
cudaError_t launch_clusters(Kernel kernel, int channels, size_t shared_bytes, cudaStream_t stream,
                            const Arguments &...arguments) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(RING_SHARED_BYTES));
    if (error != cudaSuccess) {
        cudaGetLastError(); // a smaller GPU: not an error of the call that follows
        return cudaErrorNotSupported;
    }
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {PARTS, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(channels * PARTS);
    config.blockDim = dim3(RING_THREADS);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &cluster;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

} // namespace rp_kernels
