// The images of one channel after another, streamed through shared memory for the single-launch
// PLANES kernels.
//
// A cluster of thread blocks shares a channel: eager mode's 512 threads are cut into equal parts,
// and part r owns elements 512 k + [r * WIDTH, (r + 1) * WIDTH) of every plane. The clusters stay,
// and take channel after channel. In each block some warps copy image after image into a ring of
// slots by bulk copies; some own eager mode's threads and reduce the images in order; some write
// the output of a reduced channel, and so make room for the next one: its reading and the writing
// of this one overlap. What the ring holds when a channel is reduced needs no second read.
#pragma once

#include "bn_leaky_relu_channel.cuh"
#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_planes_merge.cuh"

#include <algorithm>

namespace rp_kernels {

constexpr int PARTS = 2;                     // thread blocks of a cluster
constexpr int WIDTH = PLANE_THREADS / PARTS; // eager mode's threads of one part
constexpr int CHAIN_WARPS = WIDTH / 32;      // the first warps of a block: they own these threads
constexpr int APPLY_WARPS = 8;               // the next ones: they write the output
constexpr int COPY_WARPS = 4;                // the last: one alone issues bulk copies too slowly
constexpr int RING_THREADS = 32 * (CHAIN_WARPS + APPLY_WARPS + COPY_WARPS);
constexpr int MAXIMUM_SLOTS = 40;
static_assert(CHAIN_WARPS == APPLY_WARPS, "either gives a slot back, by one arrival a warp");

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

// Until the phase of `parity` has ended. CLUSTER: what arrived may come from other thread blocks.
template <bool CLUSTER = false>
__device__ __forceinline__ void barrier_wait(uint64_t *barrier, uint32_t parity) {
    uint32_t done = 0;
    while (!done) {
        if constexpr (CLUSTER) {
            asm volatile("{\n.reg .pred p;\n"
                         "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
                         "selp.u32 %0, 1, 0, p;\n}"
                         : "=r"(done)
                         : "r"(shared_address(barrier)), "r"(parity)
                         : "memory");
        } else {
            asm volatile("{\n.reg .pred p;\n"
                         "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                         "selp.u32 %0, 1, 0, p;\n}"
                         : "=r"(done)
                         : "r"(shared_address(barrier)), "r"(parity)
                         : "memory");
        }
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

// Stores `value` at `shared` in the memory of thread block `rank` of the cluster, and counts its
// bytes at that block's `barrier`.
__device__ __forceinline__ void send(float2 *shared, float2 value, uint64_t *barrier, int rank) {
    asm volatile("{\n.reg .b32 to, at;\n"
                 "mapa.shared::cluster.u32 to, %0, %4;\n"
                 "mapa.shared::cluster.u32 at, %3, %4;\n"
                 "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [to], {%1, %2}, [at];\n}"
                 ::"r"(shared_address(shared)), "f"(value.x), "f"(value.y),
                 "r"(shared_address(barrier)), "r"(rank)
                 : "memory");
}

// ---- The ring -----------------------------------------------------------------------------------

struct RingShape {
    int slots;      // 1 ... MAXIMUM_SLOTS
    int slot_packs; // packs of 16 bytes that one part has of a plane, at most
};

// Packs of a plane that part 0 owns, which no other part exceeds.
__host__ __device__ inline int packs_of_part(int length, int pack) {
    const int last = length % PLANE_THREADS;
    return (length / PLANE_THREADS * WIDTH + (last < WIDTH ? last : WIDTH)) / pack;
}

// A walk around the ring, a slot an image; the parity of the slot's barriers turns at each lap.
struct RingPosition {
    int slot = 0;
    uint32_t parity = 0;
    __device__ void advance(int images, int slots) {
        slot += images;
        while (slot >= slots) {
            slot -= slots;
            parity ^= 1;
        }
    }
};

// What the warps of a block share beside the images. A channel's results go to one of two places in
// turn: because less than two channels are in the ring, a result is read before it is replaced.
struct RingMemory {
    uint64_t full[MAXIMUM_SLOTS], empty[MAXIMUM_SLOTS]; // barriers of the slots
    uint64_t reduced[2];                                // barriers of the results
    float2 results[2][PLANE_WARPS];
};

// One warp's view of the ring. Each of its three roles calls its own function for every channel.
template <typename scalar_t, int TENSORS> class PlanesRing {
  public:
    static constexpr int PACK = Scalar<scalar_t>::PACK;
    static constexpr int SEGMENT_PACKS = WIDTH / PACK;

    // images: dynamic shared memory, [slots][TENSORS][slot_packs]
    __device__ PlanesRing(const BnLeakyReluShape &shape, const RingShape &ring, uint4 *images,
                          RingMemory *memory, int part)
        : shape_(shape), ring_(ring), images_(images), memory_(memory), part_(part),
          image_stride_(shape.channels * shape.length) {}

    __device__ void init() {
        const int slot = threadIdx.x;
        if (slot < ring_.slots) {
            barrier_init(memory_->full + slot, 1);
            barrier_init(memory_->empty + slot, CHAIN_WARPS);
        }
        if (slot < 2) {
            barrier_init(memory_->reduced + slot, 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_bulk_copies();
        __syncthreads(); // the barriers exist before anybody waits on one
    }

    // By the copying warps: all images, each as soon as its slot is free.
    __device__ void produce(const scalar_t *const (&channel)[TENSORS]) {
        for (int image = 0; image < shape_.images; ++image) {
            barrier_wait(memory_->empty + at_.slot, at_.parity ^ 1); // at once in the first lap
            copy_image(channel, image, at_.slot);
            at_.advance(1, ring_.slots);
        }
    }

    // By the chain warps: take(slots' elements of this thread, count) for every image in order.
    template <typename Take> __device__ void consume(const Take &take) {
        const int first = part_ * WIDTH + static_cast<int>(threadIdx.x);
        const int count =
            first < shape_.length ? 1 + (shape_.length - 1 - first) / PLANE_THREADS : 0;
        for (int image = 0; image < shape_.images; ++image) {
            barrier_wait(memory_->full + at_.slot, at_.parity);
            take(reinterpret_cast<const scalar_t *>(slot_memory(at_.slot, 0)) + threadIdx.x, count);
            if (image + ring_.slots < shape_.images) {
                give_back(at_.slot, 1);
            }
            at_.advance(1, ring_.slots);
        }
    }

    // By the chain warps: one warp's part of the result, to every part of the cluster.
    __device__ void send_result(float2 result) {
        const int lane = threadIdx.x % 32;
        const int warp = threadIdx.x / 32;
        uint64_t *const reduced = memory_->reduced + channels_ % 2;
        if (threadIdx.x == 0) {
            barrier_expect(reduced, sizeof(memory_->results[0]));
        }
        if (lane < PARTS) {
            send(&memory_->results[channels_ % 2][part_ * CHAIN_WARPS + warp], result, reduced,
                 lane);
        }
        ++channels_;
    }

    // By the warps that apply: the result of warp `lane` of all 16, or zeros.
    __device__ float2 receive_result() {
        const int lane = threadIdx.x % 32;
        barrier_wait<true>(memory_->reduced + channels_ % 2, channels_ / 2 % 2);
        const float2 result = lane < PLANE_WARPS ? memory_->results[channels_ % 2][lane]
                                                 : make_float2(0.0f, 0.0f);
        ++channels_;
        return result;
    }

    // Elements from one tensor of a slot to the next.
    __device__ int tensor_stride() const { return ring_.slot_packs * PACK; }

    // By the warps that apply: apply(words of the tensors, offset in the channel) for every pack of
    // the part: images that left the ring newest first, then those in it.
    template <int UNROLL, typename Apply>
    __device__ void transform(const scalar_t *const (&channel)[TENSORS], const Apply &apply) {
        const int first_held = max(shape_.images - ring_.slots, 0);
        for (int q = threadIdx.x - CHAIN_WARPS * 32; q < ring_.slot_packs; q += APPLY_WARPS * 32) {
            if (const int start = start_of_pack(q); start < shape_.length) {
                reread<UNROLL>(channel, start, first_held, apply);
            }
        }
        at_.advance(first_held, ring_.slots);
        constexpr int AT_ONCE = 4 / TENSORS;
        for (int image = first_held; image < shape_.images; image += AT_ONCE) {
            transform_held<AT_ONCE>(image, min(AT_ONCE, shape_.images - image), apply);
        }
    }

  private:
    __device__ uint4 *slot_memory(int slot, int tensor) const {
        return images_ + (slot * TENSORS + tensor) * ring_.slot_packs;
    }

    // Where pack q of the part begins in a plane.
    __device__ int start_of_pack(int q) const {
        return q / SEGMENT_PACKS * PLANE_THREADS + part_ * WIDTH + q % SEGMENT_PACKS * PACK;
    }

    // By a whole warp, which has read `count` slots from `slot` on.
    __device__ void give_back(int slot, int count) {
        fence_bulk_copies();
        __syncwarp(); // all lanes have read the slots
        const int lane = threadIdx.x % 32;
        if (lane < count) {
            slot += lane;
            barrier_arrive(memory_->empty + (slot < ring_.slots ? slot : slot - ring_.slots));
        }
    }

    __device__ void copy_image(const scalar_t *const (&channel)[TENSORS], int image, int slot) {
        const int thread = threadIdx.x - (CHAIN_WARPS + APPLY_WARPS) * 32;
        // Bytes may arrive before they are expected: this arrival is what the barrier waits for.
        if (thread == 0) {
            barrier_expect(memory_->full + slot, TENSORS * bytes_of_part());
        }
        const int segments = (shape_.length - part_ * WIDTH + PLANE_THREADS - 1) / PLANE_THREADS;
        const int first = thread / 32 + thread % 32 * COPY_WARPS; // neighbours to different warps
        for (int segment = first; segment < segments; segment += COPY_WARPS * 32) {
            const int start = PLANE_THREADS * segment + part_ * WIDTH;
            const uint32_t bytes = min(WIDTH, shape_.length - start) * sizeof(scalar_t);
#pragma unroll
            for (int t = 0; t < TENSORS; ++t) {
                bulk_copy(slot_memory(slot, t) + segment * SEGMENT_PACKS,
                          channel[t] + image * image_stride_ + start, bytes, memory_->full + slot);
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

    // `count` images from `image` on, which the next slots hold. A warp gives them back as soon as
    // its last packs are in registers.
    template <int AT_ONCE, typename Apply>
    __device__ void transform_held(int image, int count, const Apply &apply) {
        const int first_slot = at_.slot;
        const uint4 *held[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            if (k < count) {
                barrier_wait(memory_->full + at_.slot, at_.parity);
                held[k] = slot_memory(at_.slot, 0);
                at_.advance(1, ring_.slots);
            }
        }
        const int lane = threadIdx.x % 32;
        bool last = false;
        for (int q = threadIdx.x - CHAIN_WARPS * 32; !last; q += APPLY_WARPS * 32) {
            last = q - lane + APPLY_WARPS * 32 >= ring_.slot_packs;
            const int start = start_of_pack(q);
            const bool inside = q < ring_.slot_packs && start < shape_.length;
            uint4 word[AT_ONCE][TENSORS];
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
#pragma unroll
                for (int t = 0; t < TENSORS; ++t) {
                    if (inside && k < count) {
                        word[k][t] = held[k][t * ring_.slot_packs + q];
                    }
                }
            }
            if (last) {
                give_back(first_slot, count);
            }
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                if (inside && k < count) {
                    apply(word[k], (image + k) * image_stride_ + start);
                }
            }
        }
    }

    BnLeakyReluShape shape_;
    RingShape ring_;
    uint4 *images_;
    RingMemory *memory_;
    int part_;
    int image_stride_;
    RingPosition at_;  // of the next image
    int channels_ = 0; // whose results this warp sent or received
};

// ---- Launching ----------------------------------------------------------------------------------

constexpr size_t RING_SHARED_BYTES = 225 * 1024; // dynamic; of 227 KB a thread block may have

// Slots that fit beside `other_bytes`; 0 when the ring isn't for this shape.
template <typename scalar_t>
RingShape ring_shape(const BnLeakyReluShape &shape, int tensors, size_t other_bytes) {
    constexpr int PACK = Scalar<scalar_t>::PACK;
    if (shape.length <= PLANE_THREADS / 2 || shape.length % PACK != 0 ||
        other_bytes >= RING_SHARED_BYTES / 4) {
        return {0, 0};
    }
    const int packs = packs_of_part(shape.length, PACK);
    const int fit = static_cast<int>((RING_SHARED_BYTES - other_bytes) /
                                     (packs * tensors * sizeof(uint4)));
    // Less than two channels, as RingMemory wants it.
    const int slots = std::min({fit, 2 * shape.images - 1, MAXIMUM_SLOTS});
    return {slots < 2 && slots < shape.images ? 0 : slots, packs};
}

template <typename Kernel, typename... Arguments>
cudaError_t launch_clusters(ResidentBlocks &resident, Kernel kernel, int channels,
                            size_t shared_bytes, cudaStream_t stream,
                            const Arguments &...arguments) {
    int blocks = 0;
    const cudaError_t error = resident.ask(&blocks, kernel, RING_THREADS, RING_SHARED_BYTES);
    if (error != cudaSuccess) {
        return error;
    }
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {PARTS, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(PARTS * std::min(channels, std::max(1, blocks / PARTS)));
    config.blockDim = dim3(RING_THREADS);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &cluster;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

} // namespace rp_kernels
