// The persistent training kernel. For a CUDA engineer, top down:
//
// Mapping. grid = (clusters * layers, models). A cluster has one block a layer, both working on the
// same tile of 8 batch rows (N of mma m16n8k16); a warp owns 8 hidden units, a lane one unit and
// two rows, with all four gates in its own accumulators. Weights live in registers as A fragments.
//
//     block of layer 0:  x ->[t=0]->[1]->[2]-> ...            backward: ... <-[2]<-[1]<-[0]
//                              | h(t), dropped, by st.async              ^ dx(t), by st.async
//     block of layer 1:       [t=0]->[1]-> ... -> head                 <-[2]<-[1]<-[0]
//
// The layers form a wavefront: h(t) and dx(t) go to the other block's shared memory and complete
// the mbarrier of slot t there. Slots are not reused inside a segment, so there is no back-pressure
// and one __syncthreads a time step.
//
// Memory. All that backward needs of a segment (gates, cells, tiles of h: 8 KB a time step at
// H = 64) stays in shared memory; gate gradients overwrite the gates in place, and the weight
// gradients are one product over the whole segment at its end. A cluster with several pieces
// (tiles, or segments when T does not fit) copies all but the last to device memory step by step
// during forward, and loads them again, last first, during backward.
//
// Grid barriers, per step: (1) every tile's batch statistics are written, (2) every tile's head
// sums are written, (3) every piece's weight gradients are written, (4) the new weights are
// written. (1) and (2) join the blocks with a head only; blocks without a tile join (3) and (4) to
// share Adam's work. Between arrival and wait at (4) a block gathers its next tile and draws its
// dropout mask.
//
// Order of sums. Tiles and pieces are numbered by the batch alone; every sum over them is taken in
// that order whoever computed them, so the number of clusters changes no bit. No float atomics.
//
// Co-residency. Barriers need all blocks of a model on the device: the plan asks the device how
// many clusters fit, and the launch is cooperative, so it fails rather than hangs.
#pragma once

#include "lstm_train_backward.cuh"
#include "lstm_train_block.cuh"

namespace rp_lstm {

// Both blocks of the cluster have finished a piece: its slots may be written again.
template <class R> __device__ __forceinline__ void piece_boundary() {
    fence_async_proxy(); // ordinary accesses before bulk copies into the same slots
    if (R::kLayers == 2) {
        cluster_barrier();
    } else {
        __syncthreads();
    }
}

// Forward over all pieces of this block; what their heads need is in scratch. On return `keep` is
// the last tile's.
template <class R>
__device__ __forceinline__ void forward_pass(const Trainer<R> &trainer, Thread &th, int tiles,
                                             KeepBits &keep) {
    const Batch batch = trainer.shared.batch;
    const int segments = trainer.launch.plan.segments;
    const int features = trainer.p().shape.features;
    ForwardWeights<R> weights;
    load_forward_weights<R>(
        weights, th, trainer.template memory<uint32_t>(trainer.launch.workspace.forward_weights),
        trainer.parameters(), features);
#pragma unroll 1
    for (int k = 0; k < tiles; ++k) {
        const int tile = trainer.cluster() + k * trainer.clusters();
        if (k > 0) {
            if (k % kTilesAhead == 0) {
                trainer.find_windows(th, batch, k);
                __syncthreads(); // the windows, for the whole block
            }
            if (R::kFirst) {
                trainer.load_input(th, batch.index, k, trainer.segment(tile, 0, false));
            }
            keep = trainer.keep_bits(th, batch.index, tile);
        }
        float cell[2] = {0.0f, 0.0f}, hidden[2];
#pragma unroll 1
        for (int index = 0; index < segments; ++index) {
            const bool last = k + 1 == tiles && index + 1 == segments;
            const Segment segment = trainer.segment(tile, index, !last);
            if (segments > 1) {
                if (R::kFirst && index > 0) {
                    trainer.load_input(th, batch.index, k, segment);
                }
                // h before the segment: 0, or what the one before left behind its last slot.
                for (int i = th.id * 16; i < R::kTileBytes; i += R::kThreads * 16) {
                    store_shared16(th.slots + R::kPrevious + i,
                                   index > 0 ? load_shared16(th.tail + i) : make_uint4(0, 0, 0, 0));
                }
            }
            if (!R::kFirst && th.id < segment.count) {
                barrier_expect(th.full + 8 * th.id, R::kTileBytes);
            }
            __syncthreads(); // x and h of the first slot
            if (last) {
                forward_segment<R, false>(th, weights, segment, keep, features > 16, cell, hidden);
            } else {
                forward_segment<R, true>(th, weights, segment, keep, features > 16, cell, hidden);
                piece_boundary<R>();
            }
        }
        if (R::kLast) {
            const bool last = k + 1 == tiles;
            store_tile_statistics(
                th, hidden, rows_in_tile(tile, batch),
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

// The head of all tiles of this block: over the first grid barrier to the arrival at the second.
template <class R>
__device__ __forceinline__ void head_pass(const Trainer<R> &trainer, const Thread &th, int tiles,
                                          const GridBarrier &barrier) {
    using L = typename R::L;
    const auto &p = trainer.p();
    const auto &workspace = trainer.launch.workspace;
    const Batch batch = trainer.shared.batch;
    const unsigned arrivals = trainer.shared.arrivals;
    const unsigned heads = min(trainer.clusters(), batch.tiles());
    HeadShared<L> &shared = trainer.shared.head;
    const auto *statistics = trainer.template memory<const float2>(workspace.statistics);
    auto *sums = trainer.template memory<float2>(workspace.sums);
    auto *head = trainer.template memory<float>(workspace.head);
    const float *weights =
        trainer.parameters() + head_offset(p.shape.features, R::kHidden, R::kLayers);
    const float weight = __ldcg(weights + th.unit()), bias = __ldcg(weights + R::kHidden);

    barrier.arrive(th.id);
    trainer.look_ahead(th, batch.index + 1);
    barrier.wait(th.id, arrivals + heads);
    combine_statistics<L>(th, shared, batch, statistics, p, trainer.cluster() == 0,
                          p.running_mean + trainer.model() * R::kHidden,
                          p.running_var + trainer.model() * R::kHidden);
#pragma unroll 1
    for (int k = 0; k < tiles; ++k) {
        const int tile = trainer.cluster() + k * trainer.clusters();
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
    barrier.arrive(th.id);
}

// The sums over all tiles, once every head has written its own.
template <class R>
__device__ __forceinline__ void head_totals(const Trainer<R> &trainer, const Thread &th,
                                            const GridBarrier &barrier) {
    const Batch batch = trainer.shared.batch;
    barrier.wait(th.id, trainer.shared.arrivals + 2 * min(trainer.clusters(), batch.tiles()));
    combine_sums<typename R::L>(
        th, trainer.shared.head, batch,
        trainer.template memory<const float2>(trainer.launch.workspace.sums));
}

// Fetches a piece that waited in device memory; the slots are free.
template <class R>
__device__ __forceinline__ void load_piece(const Thread &th, const Segment &segment) {
    if (th.id == 0) {
        for (int t = segment.count - 1; t >= 0; --t) {
            barrier_expect(th.loaded + 8 * t, R::kSlotBytes);
            bulk_load(th.slots + t * R::kSlotBytes, segment.memory + t * R::kSlotBytes,
                      R::kSlotBytes, th.loaded + 8 * t);
        }
    }
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
    const auto tile_of = [&](int n) {
        return trainer.cluster() + n / segments * trainer.clusters();
    };
#pragma unroll 1
    for (int n = pieces - 1; n >= 0; --n) {
        const int tile = tile_of(n), index = n % segments, piece = trainer.piece(tile, index);
        const bool top = index + 1 == segments; // backward enters the tile here
        BackwardState state = {};
        if (top) {
            const Batch batch = trainer.shared.batch;
            if (n + 1 < pieces) {
                keep = trainer.keep_bits(th, batch.index, tile);
            }
            if (R::kLast) {
                const bool last = n + 1 == pieces;
                const float2 h = trainer.head_scratch(th, tile, last, kHiddenCells);
                const float2 z = trainer.head_scratch(th, tile, last, kHeadCells);
                const float hidden[2] = {h.x, h.y}, dz[2] = {z.x, z.y};
                head_gradient<L>(th, trainer.shared.head, batch, tile, hidden, dz,
                                 trainer.shared.scale.scale, state.dh);
            }
        } else {
            const float2 dh = trainer.scratch(th, tile, kGradientCells);
            const float2 dc = trainer.scratch(th, tile, kCarryCells);
            const float2 cell = trainer.scratch(th, tile, kStateCells);
            state = {{dh.x, dh.y}, {dc.x, dc.y}, {cell.x, cell.y}, {}};
        }
        const Segment segment = trainer.segment(tile, index, n + 1 < pieces);
        if (R::kReceivesGradient && th.id < segment.count) {
            barrier_expect(th.full + 8 * th.id, R::kInputGradientBytes);
        }
        if (n + 1 < pieces) {
            backward_segment<R, true>(th, weights, segment, keep, top, state);
        } else {
            backward_segment<R, false>(th, weights, segment, keep, top, state);
        }
        if (index > 0) { // for the segment before: not held beside the weight gradients
            trainer.scratch(th, tile, kGradientCells) = make_float2(state.dh[0], state.dh[1]);
            trainer.scratch(th, tile, kCarryCells) = make_float2(state.dc[0], state.dc[1]);
            trainer.scratch(th, tile, kStateCells) = make_float2(state.cell[0], state.cell[1]);
        }
        store_bias_gradient<R>(th, state,
                               trainer.template memory<float>(workspace.bias) +
                                   (piece * R::kLayers + R::kLayer) * R::kThreads);
        __syncthreads(); // d(gates) of the last time step are in its slot
        weight_gradient<R>(th, segment.count, features,
                           trainer.template memory<uint32_t>(workspace.partial) +
                               (size_t)piece * partial_words<L>(features, R::kLayers),
                           overflow, trainer.shared.batch.index + 1);
        if (n > 0) {
            piece_boundary<R>();
            load_piece<R>(th, trainer.segment(tile_of(n - 1), (n - 1) % segments, true));
            // Again, so that they need not stay in registers beside the weight gradients.
            load_backward_weights<R>(weights, th,
                                     trainer.template memory<uint32_t>(workspace.backward_weights));
        }
    }
}

// This block's share of the update after a step that did not overflow.
template <class R>
__device__ __forceinline__ void update(const Trainer<R> &trainer, const Thread &th) {
    using L = typename R::L;
    using Op = typename R::Operand;
    const Batch batch = trainer.shared.batch;
    const int features = trainer.p().shape.features;
    const int words = partial_words<L>(features, R::kLayers);
    const int thread = (int)blockIdx.x * R::kThreads + th.id;
    const int threads = (int)gridDim.x * R::kThreads;
    const int pieces = batch.tiles() * trainer.launch.plan.segments;
    const LossScale &scale = trainer.shared.scale;
    const Adam adam = adam_of_step(trainer.launch, trainer.shared.learning_rate, scale.scale,
                                   trainer.p().first_step + batch.index + 1 - scale.skipped);
    const ModelState state = trainer.state();
    if (threads >= words) {
        update_weights<L, Op, 1>(state, adam, words, features, pieces, thread, threads);
    } else {
        update_weights<L, Op, 4>(state, adam, words, features, pieces, thread, threads);
    }
    // The threads that had no pair begin with the vectors.
    update_vectors<L>(state, adam, R::kLayers, features, batch.tiles(), pieces,
                      (thread + threads - words % threads) % threads, threads);
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
        shared.batch = trainer.batch(0);
        shared.arrivals = gridDim.x;
    }
    pack_weights<L, Op>(trainer.state(), partial_words<L>(p.shape.features, R::kLayers),
                        p.shape.features, (int)blockIdx.x * R::kThreads + th.id,
                        (int)gridDim.x * R::kThreads);
    barrier.arrive(th.id); // also: the block's threads see the model
    trainer.look_ahead(th, 0);
    __syncthreads(); // the windows, for the whole block
    if (R::kFirst) {
        trainer.load_input(th, 0, 0, trainer.segment(0, 0, false));
    }
    barrier.wait(th.id, gridDim.x); // all weights are packed; all blocks have read the scale

#pragma unroll 1
    for (int step = 0; step < p.steps; ++step) {
        th.id = computed_here(th.id);
        const int tiles = shared.batch.tiles_of(trainer.cluster(), trainer.clusters());
        if (tiles > 0) {
            KeepBits keep = trainer.kept_bits(th);
            forward_pass<R>(trainer, th, tiles, keep);
            if (R::kLast) {
                head_pass<R>(trainer, th, tiles, barrier);
            } else {
                trainer.look_ahead(th, step + 1); // while the layer above is at its head
            }
            BackwardWeights<R> weights; // they arrive while the grid meets
            load_backward_weights<R>(
                weights, th, trainer.template memory<uint32_t>(launch.workspace.backward_weights));
            if (R::kLast) {
                head_totals<R>(trainer, th, barrier);
            }
            th.id = computed_here(th.id);
            backward_pass<R>(trainer, th, tiles, keep, weights, overflow_step);
            barrier.arrive(th.id);
        } else {
            trainer.look_ahead(th, step + 1);
        }
        if (R::kLast && trainer.cluster() == 0 && th.warp() == 1) { // warp 0 waits for the grid
            const float loss = mean_squared_error<L>(
                th, shared.batch, trainer.template memory<float>(launch.workspace.head));
            if (th.lane() == 0) {
                p.losses[(int64_t)trainer.model() * p.steps + step] = loss;
            }
        }
        // Every cluster with a tile: two barriers of its head and one of each of its blocks.
        const unsigned gradients =
            shared.arrivals + (2 + R::kLayers) * min(trainer.clusters(), shared.batch.tiles());
        barrier.wait(th.id, gradients);
        const bool overflow = Op::kScaled && __ldcg(overflow_step) == (unsigned)(step + 1);
        th.id = computed_here(th.id);
        if (!overflow) {
            update<R>(trainer, th);
        }
        barrier.arrive(th.id); // also: no thread of the block reads this step's batch any more
        if (th.id == 0) {
            shared.scale.step_done(overflow, trainer.first_scale());
            shared.arrivals = gradients + gridDim.x;
            shared.batch = trainer.batch(step + 1);
        }
        if (R::kFirst && step + 1 < p.steps) {
            trainer.load_input(th, step + 1, 0, trainer.segment(0, 0, false));
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
    using L = Layout<kHidden>;
    extern __shared__ __align__(1024) uint8_t slots[];
    __shared__ BlockShared<L> shared;

    const bool first = kLayers == 1 || blockIdx.x % 2 == 0;
    const int slot_bytes =
        first ? Role<L, Op, true, false>::kSlotBytes : Role<L, Op, false, true>::kSlotBytes;
    Thread th;
    th.id = (int)threadIdx.x;
    th.full = shared_address(shared.full);
    th.loaded = shared_address(shared.loaded);
    th.full_phase = th.loaded_phase = 0;
    th.slots = shared_address(slots);
    th.tail = th.slots + launch.plan.segment_steps * slot_bytes;
    th.input_gradient =
        th.slots + L::kTileBytes + launch.plan.segment_steps * Role<L, Op, true, false>::kSlotBytes;

    // x beyond its features and h before the first time step stay zero.
    for (int i = th.id * 16; i < launch.plan.segment_steps * slot_bytes; i += L::kThreads * 16) {
        store_shared16(th.slots + i, make_uint4(0, 0, 0, 0));
    }
    if (th.id < kMaxSegment) {
        barrier_init(th.full + 8 * th.id);
        barrier_init(th.loaded + 8 * th.id);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads(); // zeros and barriers, for the whole block
    if constexpr (kLayers == 2) {
        cluster_barrier(); // the other block may send only when the barriers are there
        if (first) {
            run_block<Role<L, Op, true, false>>(launch, th, shared);
        } else {
            run_block<Role<L, Op, false, true>>(launch, th, shared);
        }
        cluster_barrier(); // neither block leaves while the other may still send to it
    } else {
        run_block<Role<L, Op, true, true>>(launch, th, shared);
    }
}

} // namespace rp_lstm
