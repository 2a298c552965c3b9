// The persistent training kernel. For a CUDA engineer, top down:
//
// Mapping. grid = (clusters * layers, models). A cluster has one block a layer, both working on the
// same tile of 8 batch rows (N of mma m16n8k16, or m16n8k8 for operands of 32 bits); a warp owns 8
// hidden units, a lane one unit and two rows, with all four gates in its own accumulators. Weights
// live in registers as A fragments. Operands: lstm_train_operand.cuh.
//
//     block of layer 0:  x ->[t=0]->[1]->[2]-> ...            backward: ... <-[2]<-[1]<-[0]
//                              | h(t), dropped, by st.async              ^ dx(t), by st.async
//     block of layer 1:       [t=0]->[1]-> ... -> head                 <-[2]<-[1]<-[0]
//
// The layers form a wavefront: h(t) and dx(t) go to the other block's shared memory and complete
// the mbarrier of slot t there. Slots are not reused inside a segment, so there is no back-pressure
// and one __syncthreads a time step.
//
// Memory. All that backward needs of a segment (gates, cells, tiles of h: 8 to 15 KB a time step at
// H = 64) stays in shared memory; gate gradients overwrite the gates in place, and the weight
// gradients are one product over the whole segment at its end. A cluster with several pieces
// (tiles, or segments when T does not fit) keeps the last one only: backward, last first, runs the
// others forward again, which is cheaper than 300 KB a piece to device memory and back.
//
// Across the grid, per step: (1) every tile's batch statistics and (2) its head's sums, numbers
// that tell by themselves that they are written (lstm_train_head.cuh); then two barriers: (3) every
// tile's weight gradients are written, (4) the new weights are written. Blocks without a tile join
// (3) and (4) to share Adam's work. Layer 0 finds its next tile and draws the dropout mask while
// the layer above is at its head, and gathers x between arrival and wait at (4).
//
// Order of sums. Tiles are numbered by the batch alone, and the block that has a tile adds up its
// segments, last first; the order of a sum over tiles depends on their numbers alone, so the
// number of clusters changes no bit. No float atomics.
//
// Co-residency. Barriers need all blocks of a model on the device: the plan asks the device how
// many clusters fit, and the launch is cooperative, so it fails rather than hangs.
#pragma once

#include "lstm_train_backward.cuh"
#include "lstm_train_block.cuh"

namespace rp_lstm {

// Turns from a piece of the block's tile number `from` to one of its tile number k. Layer 0, which
// is ahead, gathers x and draws the mask before it waits for the layer above.
template <class R>
__device__ __forceinline__ void enter_piece(const Trainer<R> &trainer, const Thread &th, int from,
                                            int k, int index, KeepBits &keep) {
    const Batch batch = trainer.shared.batch;
    __syncthreads(); // the block has read x and the windows of the piece before
    if (from / kTilesAhead != k / kTilesAhead) {
        trainer.find_windows(th, batch, k / kTilesAhead * kTilesAhead, R::kLayer);
        __syncthreads(); // the windows, for the whole block
    }
    if (R::kFirst) {
        trainer.load_input(th, batch.index, k, trainer.segment(index));
        if (from != k) {
            keep = trainer.keep_bits(th, batch.index, trainer.tile(k));
        }
    }
    if (R::kLayers == 2) {
        // Neither block writes to the other before that has finished its piece.
        cluster_barrier_after_reads();
    }
}

// The block's part of a piece; cell and hidden as in forward_segment.
template <class R, bool kKeeps>
__device__ __forceinline__ void
forward_piece(const Trainer<R> &trainer, Thread &th, const ForwardWeights<R> &weights, int index,
              const KeepBits &keep, float (&cell)[2], float (&hidden)[2]) {
    const Segment segment = trainer.segment(index);
    if (!R::kFirst && th.id < segment.count) {
        barrier_expect(th.full + 8 * th.id, R::kTileBytes);
    }
    __syncthreads(); // x
    forward_segment<R, kKeeps>(th, weights, segment, keep, trainer.p().shape.features, cell,
                               hidden);
}

template <class R>
__device__ __forceinline__ void load_weights(ForwardWeights<R> &weights, const Trainer<R> &trainer,
                                             const Thread &th) {
    load_forward_weights<R>(
        weights, th, trainer.template memory<uint32_t>(trainer.launch.workspace.forward_weights),
        trainer.parameters(), trainer.p().shape.features);
}
template <class R>
__device__ __forceinline__ void load_weights(BackwardWeights<R> &weights, const Trainer<R> &trainer,
                                             const Thread &th) {
    load_backward_weights<R>(
        weights, th, trainer.template memory<uint32_t>(trainer.launch.workspace.backward_weights));
}

// Forward over all pieces of this block; what their heads need is in scratch. The last piece stays
// in shared memory, and `keep` is its tile's.
template <class R>
__device__ __forceinline__ void forward_pass(const Trainer<R> &trainer, Thread &th, int tiles,
                                             KeepBits &keep) {
    const Batch batch = trainer.shared.batch;
    const int segments = trainer.launch.plan.segments;
    ForwardWeights<R> weights;
    load_weights(weights, trainer, th);
#pragma unroll 1
    for (int k = 0; k < tiles; ++k) {
        const int tile = trainer.tile(k);
        float cell[2] = {0.0f, 0.0f}, hidden[2] = {0.0f, 0.0f};
#pragma unroll 1
        for (int index = 0; index < segments; ++index) {
            if (k > 0 || index > 0) {
                enter_piece<R>(trainer, th, index > 0 ? k : k - 1, k, index, keep);
            }
            if (index > 0) {
                trainer.start(th, trainer.piece(tile, index)) =
                    make_float4(cell[0], cell[1], hidden[0], hidden[1]);
            }
            if (k + 1 == tiles && index + 1 == segments) {
                forward_piece<R, true>(trainer, th, weights, index, keep, cell, hidden);
            } else {
                forward_piece<R, false>(trainer, th, weights, index, keep, cell, hidden);
            }
        }
        th.id = computed_here(th.id); // not held beside the weights
        if (R::kLast) {
            const bool last = k + 1 == tiles;
            store_tile_statistics(
                th, hidden, rows_in_tile(tile, batch), batch.stamp,
                trainer.template memory<float2>(trainer.launch.workspace.statistics) +
                    tile * R::kHidden);
            const float *targets =
                trainer.shared.targets[batch.index & 1][k % kTilesAhead] + 2 * th.q();
            trainer.head_scratch(th, tile, last, kHiddenCells) = make_float2(hidden[0], hidden[1]);
            trainer.head_scratch(th, tile, last, kTargetCells) =
                make_float2(targets[0], targets[1]);
        }
    }
}

// The head of all tiles of this block.
template <class R>
__device__ __forceinline__ void head_pass(const Trainer<R> &trainer, const Thread &th, int tiles) {
    using L = typename R::L;
    const auto &p = trainer.p();
    const auto &workspace = trainer.launch.workspace;
    const Batch batch = trainer.shared.batch;
    HeadShared<L> &shared = trainer.shared.head;
    auto *statistics = trainer.template memory<float2>(workspace.statistics);
    auto *sums = trainer.template memory<float2>(workspace.sums);
    auto *head = trainer.template memory<float>(workspace.head);
    const float *weights =
        trainer.parameters() + head_offset(p.shape.features, R::kHidden, R::kLayers);
    const float weight = __ldcg(weights + th.unit()), bias = __ldcg(weights + R::kHidden);

    combine_statistics<L>(th, shared, batch, trainer.cluster(), trainer.heads(), statistics,
                          p.norm_eps);
#pragma unroll 1
    for (int k = 0; k < tiles; ++k) {
        const int tile = trainer.tile(k);
        const bool last = k + 1 == tiles;
        if (k > 0) {
            __syncthreads(); // the tile before has read shared.output
        }
        const float2 h = trainer.head_scratch(th, tile, last, kHiddenCells);
        const float hidden[2] = {h.x, h.y};
        float dz[2];
        head_tile<L>(th, shared, batch, tile, hidden,
                     trainer.head_scratch(th, tile, last, kTargetCells), weight, bias,
                     p.negative_slope, dz, sums, head);
        trainer.head_scratch(th, tile, last, kHeadCells) = make_float2(dz[0], dz[1]);
    }
    if (trainer.cluster() == 0) {
        move_running_statistics<L>(th, shared, batch, p.momentum,
                                   p.running_mean + trainer.model() * R::kHidden,
                                   p.running_var + trainer.model() * R::kHidden);
    }
}

// Brings a piece that was not kept back into shared memory, and its tile's mask into `keep`.
template <class R>
__device__ __forceinline__ void run_again(const Trainer<R> &trainer, Thread &th, int from, int k,
                                          int index, KeepBits &keep, BackwardWeights<R> &backward) {
    ForwardWeights<R> weights;
    load_weights(weights, trainer, th); // they arrive while the blocks meet
    enter_piece<R>(trainer, th, from, k, index, keep);
    if (R::kWeightsInAdvance) {
        load_weights(backward, trainer, th); // these during the time steps
    }
    float cell[2] = {0.0f, 0.0f}, hidden[2] = {0.0f, 0.0f};
    if (index > 0) {
        const float4 start = trainer.start(th, trainer.piece(trainer.tile(k), index));
        cell[0] = start.x, cell[1] = start.y, hidden[0] = start.z, hidden[1] = start.w;
    }
    forward_piece<R, true>(trainer, th, weights, index, keep, cell, hidden);
}

// Backward over all pieces, last first: that one is still in shared memory.
template <class R>
__device__ __forceinline__ void backward_pass(const Trainer<R> &trainer, Thread &th, int tiles,
                                              KeepBits keep, BackwardWeights<R> &weights,
                                              unsigned *overflow) {
    using L = typename R::L;
    const auto &workspace = trainer.launch.workspace;
    const int segments = trainer.launch.plan.segments, pieces = tiles * segments;
    const int features = trainer.p().shape.features;
#pragma unroll 1
    for (int n = pieces - 1; n >= 0; --n) {
        const int k = n / segments, index = n % segments;
        if (n + 1 < pieces) {
            run_again<R>(trainer, th, (n + 1) / segments, k, index, keep, weights);
        }
        const int tile = computed_here(trainer.tile(k));
        const bool top = index + 1 == segments; // backward enters the tile here
        BackwardState state = {};
        if (!top) {
            const float2 dh = trainer.scratch(th, tile, kGradientCells);
            const float2 dc = trainer.scratch(th, tile, kCarryCells);
            const float2 cell = trainer.scratch(th, tile, kStateCells);
            state = {{dh.x, dh.y}, {dc.x, dc.y}, {cell.x, cell.y}, {}};
        } else if (R::kLast) {
            const bool last = k + 1 == tiles;
            const float2 h = trainer.head_scratch(th, tile, last, kHiddenCells);
            const float2 z = trainer.head_scratch(th, tile, last, kHeadCells);
            const float hidden[2] = {h.x, h.y}, dz[2] = {z.x, z.y};
            head_gradient<L>(th, trainer.shared.head, trainer.shared.batch, tile, hidden, dz,
                             trainer.shared.scale.scale, state.dh);
        }
        if (!R::kWeightsInAdvance) {
            load_weights(weights, trainer, th);
        }
        const Segment segment = trainer.segment(index);
        if (R::kReceivesGradient && th.id < segment.count) {
            barrier_expect(th.full + 8 * th.id, R::kInputGradientBytes);
        }
        backward_segment<R>(th, weights, segment, keep, top, state);
        if (index > 0) { // for the segment before: not held beside the weight gradients
            trainer.scratch(th, tile, kGradientCells) = make_float2(state.dh[0], state.dh[1]);
            trainer.scratch(th, tile, kCarryCells) = make_float2(state.dc[0], state.dc[1]);
            trainer.scratch(th, tile, kStateCells) = make_float2(state.cell[0], state.cell[1]);
        }
        store_bias_gradient<R>(th, state,
                               trainer.template memory<float>(workspace.bias) +
                                   (tile * R::kLayers + R::kLayer) * R::kThreads,
                               !top);
        __syncthreads(); // d(gates) of the last time step are in its slot
        weight_gradient<R>(th, segment.count, features, !top,
                           trainer.template memory<typename L::Operand::Sum>(workspace.partial) +
                               (size_t)tile * L::partial_pairs(features, R::kLayers),
                           overflow, trainer.shared.batch.index + 1);
    }
}

// This block's share of the update. wait() ends when all gradients are written, and tells whether
// the step overflowed; what does not depend on them comes before. Returns what wait() told.
template <class R, class Wait>
__device__ __forceinline__ bool update(const Trainer<R> &trainer, const Thread &th,
                                       const Wait &wait) {
    using L = typename R::L;
    const Batch batch = trainer.shared.batch;
    const Adam adam = trainer.shared.adam;
    const int features = trainer.p().shape.features;
    const ModelState state = trainer.state();
    const bool skip =
        update_weights<L>(state, adam, trainer.launch.share, L::partial_pairs(features, R::kLayers),
                          features, batch.tiles(), th.id, wait);
    // The blocks' last warps first: they have the fewest pairs.
    const int threads = (int)gridDim.x * 32, warps_after = R::kWarps - 1 - th.warp();
    update_vectors<L>(state, adam, skip, R::kLayers, features, batch,
                      warps_after * threads + (int)blockIdx.x * 32 + th.lane(),
                      R::kWarps * threads);
    return skip;
}

// A block's whole life: p.steps optimiser steps of its part of its model.
template <class R>
__device__ __forceinline__ void run_block(const Launch &launch, Thread &th,
                                          BlockShared<typename R::L> &shared) {
    using L = typename R::L;
    using Op = typename R::Operand;
    const Trainer<R> trainer = {launch, shared};
    const auto &p = launch.p;
    auto *counter = (unsigned *)((uint8_t *)p.workspace + blockIdx.y * kCounterBytes);
    unsigned *overflow_step = counter + 16; // number of the launch's step, from 1
    const GridBarrier barrier = {counter};

    if (th.id == 0) {
        trainer.load_model();
        trainer.begin_step(0);
        shared.arrivals = gridDim.x;
    }
    __syncthreads(); // the model, for the whole block
    if (R::kFirst) {
        trainer.look_ahead(th, 0);
    }
    pack_weights<L>(trainer.state(), L::partial_pairs(p.shape.features, R::kLayers),
                    p.shape.features, (int)blockIdx.x * R::kThreads + th.id,
                    (int)gridDim.x * R::kThreads);
    barrier.arrive(th.id); // also: the block's threads see the windows
    if (R::kFirst) {
        trainer.load_input(th, 0, 0, trainer.segment(0));
    }
    barrier.wait(th.id, gridDim.x); // all weights are packed; all blocks have read the scale

#pragma unroll 1
    for (int step = 0; step < p.steps; ++step) {
        th.id = computed_here(th.id);
        const int tiles = shared.batch.tiles_of(trainer.cluster(), trainer.clusters());
        if (tiles > 0) {
            KeepBits keep = trainer.kept_bits(th);
            forward_pass<R>(trainer, th, tiles, keep);
            if (R::kFirst) {
                trainer.look_ahead(th, step + 1); // while statistics are under way
            }
            if (R::kLast) {
                head_pass<R>(trainer, th, tiles);
            }
            BackwardWeights<R> weights;
            if (R::kWeightsInAdvance) {
                load_weights(weights, trainer, th); // they arrive while the sums do
            }
            if (R::kLast) {
                combine_sums<L>(th, shared.head, shared.batch, trainer.cluster(), trainer.heads(),
                                trainer.template memory<float2>(launch.workspace.sums));
            }
            th.id = computed_here(th.id);
            backward_pass<R>(trainer, th, tiles, keep, weights, overflow_step);
            barrier.arrive(th.id);
        } else if (R::kFirst) {
            trainer.look_ahead(th, step + 1);
        }
        const unsigned gradients = // of every block with a tile
            shared.arrivals + R::kLayers * trainer.heads();
        th.id = computed_here(th.id);
        const bool overflow = update<R>(trainer, th, [&] {
            barrier.wait(th.id, gradients);
            return Op::kScaled && __ldcg(overflow_step) == (unsigned)(step + 1);
        });
        barrier.arrive(th.id); // also: no thread of the block reads this step's batch any more
        if (th.id == 0) {
            shared.scale.step_done(overflow, trainer.first_scale());
            shared.arrivals = gradients + gridDim.x;
            trainer.begin_step(step + 1);
        }
        if (R::kFirst && step + 1 < p.steps) {
            trainer.load_input(th, step + 1, 0, trainer.segment(0));
        }
        barrier.wait(th.id, gradients + gridDim.x);
    }
    if (Op::kScaled && blockIdx.x == 0 && th.id == 0) {
        float *scale_state = p.scale_state + 3 * trainer.model();
        scale_state[0] = shared.scale.scale;
        scale_state[1] = (float)shared.scale.good;
        scale_state[2] = (float)shared.scale.skipped;
    }
}

template <int kHidden, class Op, int kLayers>
__global__ void __launch_bounds__(4 * kHidden, 1)
    lstm_train_kernel(const __grid_constant__ Launch launch) {
    using L = Layout<kHidden, Op>;
    extern __shared__ __align__(1024) uint8_t slots[];
    __shared__ BlockShared<L> shared;

    using Plan = SharedPlan<L>;
    const bool first = kLayers == 1 || blockIdx.x % 2 == 0;
    const int slot_bytes = first ? Plan::Lower::kSlotBytes : Plan::Upper::kSlotBytes;
    Thread th;
    th.id = (int)threadIdx.x;
    th.full = shared_address(shared.full);
    th.full_phase = 0;
    th.slots = shared_address(slots) + Plan::kHead;
    th.input_gradient = th.slots + Plan::gradients(launch.plan.segment_steps);

    // x beyond its features stays zero.
    for (int i = th.id * 16; i < launch.plan.segment_steps * slot_bytes; i += L::kThreads * 16) {
        store_shared16(th.slots + i, make_uint4(0, 0, 0, 0));
    }
    if (th.id < kMaxSegment) {
        barrier_init(th.full + 8 * th.id);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads(); // zeros and barriers, for the whole block
    if constexpr (kLayers == 2) {
        cluster_barrier(); // the other block may send only when the barriers are there
        if (first) {
            run_block<Role<L, true, false>>(launch, th, shared);
        } else {
            run_block<Role<L, false, true>>(launch, th, shared);
        }
        cluster_barrier(); // neither block leaves while the other may still send to it
    } else {
        run_block<Role<L, true, true>>(launch, th, shared);
    }
}

// The instance for H = hidden, or NULL.
template <class Op> const void *kernel_of(int hidden, int layers) {
    if (hidden == 64) {
        return layers == 1 ? (const void *)lstm_train_kernel<64, Op, 1>
                           : (const void *)lstm_train_kernel<64, Op, 2>;
    }
    if (hidden == 32) {
        return layers == 1 ? (const void *)lstm_train_kernel<32, Op, 1>
                           : (const void *)lstm_train_kernel<32, Op, 2>;
    }
    return nullptr;
}

} // namespace rp_lstm
