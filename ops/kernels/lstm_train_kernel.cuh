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
// Memory. All that backward needs of a segment (gates, cells, tiles of h: 7 to 14 KB a time step at
// H = 64) stays in shared memory; gate gradients overwrite the gates in place, and the weight
// gradients are one product over the whole segment at its end, which a warpgroup's tensor
// instructions read where it lies (wgmma; 32-bit operands: mma). A cluster with several pieces
// (tiles, or segments when T does not fit) keeps the last one only. What backward needs of the
// others goes to device memory from registers while forward runs on, and comes back by bulk copies,
// a few time steps at once, in the order in which backward, last piece first, reads it; as it is
// read once, it yields its place in L2 to the partial sums. The next piece and backward's weights
// are asked for before the piece's weight gradients leave, behind which they would wait. But of 16
// bits half stay on chip until the last piece, and may leave while the others are multiplied.
//
// Across the grid, per step: (1) every cluster's batch statistics and (2) its head's sums, numbers
// that tell by themselves that they are written (lstm_train_head.cuh); then two barriers: (3) every
// cluster's weight gradients are written, (4) the new weights are written. Blocks without a tile
// join (3) and (4) to share Adam's work. Layer 0 finds the next step's windows and draws its
// dropout masks while the layer above is at its head, and gathers x between arrival and wait at
// (4).
//
// Order of sums. Tile t belongs to cluster t mod the number of clusters, which adds up its pieces,
// last first; sums over clusters are in their order. There are 64 clusters where a GPU has room for
// them, or as many as a batch has tiles where several models share it, so bits depend neither on
// the GPU nor on other models. No two threads add to one number.
//
// Co-residency. Barriers need all blocks of a model on the device: the plan asks the device how
// many clusters fit, and the launch is cooperative, so it fails rather than hangs.
#pragma once

#include "lstm_train_backward.cuh"
#include "lstm_train_block.cuh"
#include "lstm_train_weight_gradient.cuh"

namespace rp_lstm {

// Turns to the forward pass of the next piece, of the block's tile number k. Layer 0, which is
// ahead, gathers x before it waits for the layer above.
template <class R>
__device__ __forceinline__ void enter_piece(const Trainer<R> &trainer, Thread th, int k, int index,
                                            KeepBits &keep) {
    th.id = computed_here(th.id); // nothing of this before the first piece
    const Batch batch = trainer.shared.batch;
    __syncthreads(); // the block has read x, the windows and the tiles of the piece before
    if (index == 0 && k % kTilesAhead == 0) {
        trainer.find_windows(th, batch, k, R::kLayer);
        __syncthreads(); // the windows, for the whole block
    }
    if (R::kFirst) {
        if (index == 0) { // first: both arrive together
            keep = trainer.keep_bits(
                [&](int e) { return trainer.keep_scratch(th, trainer.tile(k), batch.index, e); });
        }
        trainer.load_input(th, batch.index, k, trainer.segment(index));
    }
    wait_for_readers<R, !R::kFirst>();
}

// The block's part of a piece; cell and hidden as in forward_segment.
template <class R, bool kOffloads>
__device__ __forceinline__ void
forward_piece(const Trainer<R> &trainer, Thread &th, const ForwardWeights<R> &weights, int k,
              int index, const KeepBits &keep, float (&cell)[2], float (&hidden)[2]) {
    const Segment segment = trainer.segment(index);
    if (!R::kFirst) {
        th.expect(trainer.launch.plan.segment_steps, segment.count, R::kPlanes * R::kTileBytes);
    }
    __syncthreads(); // x
    forward_segment<R, kOffloads>(th, weights, segment, keep,
                                  R::input_depth(trainer.p().shape.features), cell, hidden,
                                  kOffloads ? trainer.offloaded(k, index) : nullptr);
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

// What the head needs of a tile whose forward pass is done.
template <class R>
__device__ __forceinline__ void finish_tile(const Trainer<R> &trainer, const Thread &th, int k,
                                            bool last, const float (&hidden)[2]) {
    const Batch batch = trainer.shared.batch;
    const int tile = trainer.tile(k);
    if (R::kLast) {
        const float *targets =
            trainer.shared.targets[batch.index & 1][k % kTilesAhead] + 2 * th.q();
        join_statistics(th, trainer.shared.head, hidden, batch.rows_in_tile(tile), k * kRows);
        trainer.head_scratch(th, tile, last, kHiddenCells) = make_float2(hidden[0], hidden[1]);
        trainer.head_scratch(th, tile, last, kTargetCells) = make_float2(targets[0], targets[1]);
    }
}

// Forward over all pieces of this block. The last piece stays in shared memory, and `keep` is its
// tile's.
template <class R>
__device__ __forceinline__ void forward_pass(const Trainer<R> &trainer, Thread &th, int tiles,
                                             KeepBits &keep) {
    const int segments = trainer.launch.plan.segments;
    ForwardWeights<R> weights;
    load_weights(weights, trainer, th);
#pragma unroll 1
    for (int k = 0; k < tiles; ++k) {
        const bool last = k + 1 == tiles;
        float cell[2] = {0.0f, 0.0f}, hidden[2] = {0.0f, 0.0f};
#pragma unroll 1
        for (int index = 0; index < segments; ++index) {
            if (k > 0 || index > 0) {
                enter_piece<R>(trainer, th, k, index, keep);
            }
            if (last && index + 1 == segments) {
                forward_piece<R, false>(trainer, th, weights, k, index, keep, cell, hidden);
            } else {
                forward_piece<R, true>(trainer, th, weights, k, index, keep, cell, hidden);
                finish_reading<R, !R::kFirst>();
            }
        }
        th.id = computed_here(th.id); // not held beside the weights
        finish_tile<R>(trainer, th, k, last, hidden);
    }
    if (R::kLast) {
        publish_statistics(th, trainer.shared.head, trainer.shared.batch.stamp,
                           trainer.template memory<float2>(trainer.launch.workspace.statistics) +
                               trainer.cluster() * R::kHidden);
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
    const int cluster = trainer.cluster();
    const float *weights =
        trainer.parameters() + head_offset(p.shape.features, R::kHidden, R::kLayers);
    const float weight = __ldcg(weights + th.unit()), bias = __ldcg(weights + R::kHidden);

    struct Cells {
        float2 hidden, target;
    };
    const auto load = [&](int k) -> Cells {
        const bool last = k + 1 == tiles;
        return {trainer.head_scratch(th, trainer.tile(k), last, kHiddenCells),
                trainer.head_scratch(th, trainer.tile(k), last, kTargetCells)};
    };
    Cells next = load(0);
    combine_statistics<L>(th, shared, batch, cluster, trainer.heads(),
                          trainer.template memory<float2>(workspace.statistics), p.norm_eps);
    HeadSums sums = {};
#pragma unroll 1
    for (int k = 0; k < tiles; ++k) {
        const int tile = trainer.tile(k);
        const bool last = k + 1 == tiles;
        if (k > 0) {
            __syncthreads(); // the tile before has read shared.output
        }
        const Cells cells = next;
        if (!last) {
            next = load(k + 1); // arrives while this one is at work
        }
        const float hidden[2] = {cells.hidden.x, cells.hidden.y};
        float dz[2];
        head_tile<L>(th, shared, batch, tile, hidden, cells.target, weight, bias, p.negative_slope,
                     dz, sums);
        trainer.head_scratch(th, tile, last, kHeadCells) = make_float2(dz[0], dz[1]);
    }
    store_head_sums<L>(th, sums, batch.stamp,
                       trainer.template memory<float2>(workspace.sums) + cluster * R::kHidden,
                       trainer.template memory<float>(workspace.head) + cluster * (R::kHidden + 2));
}

// Starts the way back of a piece, into the slots that the block has read.
template <class R>
__device__ __forceinline__ void fetch_piece(const Trainer<R> &trainer, const Thread &th, int k,
                                            int index) {
    fence_async_shared();
    __syncthreads(); // the block has read the slots
    if (th.id == 0) {
        ++trainer.shared.fetches;
        const float2 *cells = nullptr; // not between segments
        if (index + 1 == trainer.launch.plan.segments) {
            cells = &trainer.scratch({}, trainer.tile(k),
                                     R::kLast ? kHiddenCells
                                              : trainer.keep_cells(trainer.shared.batch.index));
        }
        fetch_slots<R>(th, trainer.chunks(), trainer.segment(index).count,
                       trainer.offloaded(k, index), trainer.shared.tile_cells, cells);
    }
}

// Turns to the backward pass of a piece that is on its way. Returns its phase's parity.
template <class R>
__device__ __forceinline__ uint32_t reenter_piece(const Trainer<R> &trainer, Thread th, int k,
                                                  int index, KeepBits &keep) {
    th.id = computed_here(th.id); // nothing of this before the first piece

    __syncthreads(); // thread 0 has counted
    const uint32_t parity = (trainer.shared.fetches - 1) & 1;
    // Backward waits for the others of the segment, unless gradients from above lie in the slots.
    const bool now = R::kCovers && R::kReceivesGradient;
    const int of_segment = (trainer.segment(index).count + kChunk - 1) / kChunk;
    wait_fetched(th, now ? 0 : of_segment - 1, trainer.chunks(), parity);
    if (R::kFirst && !R::kLast && index + 1 == trainer.launch.plan.segments) {
        keep = trainer.keep_bits([&](int e) {
            return reinterpret_cast<const uint64_t &>(trainer.shared.tile_cells[e][th.id]);
        });
    }
    wait_for_readers<R, kReadsEarly<R>>();
    return parity;
}

// Where backward enters a piece: from the head, or from the segment after it.
template <class R>
__device__ __forceinline__ BackwardState enter_backward(const Trainer<R> &trainer, const Thread &th,
                                                        int tile, bool top) {
    BackwardState state = {};
    if (!top) {
        const float2 dh = trainer.scratch(th, tile, kGradientCells);
        const float2 dc = trainer.scratch(th, tile, kCarryCells);
        const float2 cell = trainer.scratch(th, tile, kStateCells);
        state = {{dh.x, dh.y}, {dc.x, dc.y}, {cell.x, cell.y}, {}};
    } else if (R::kLast) {
        const float2 h = trainer.shared.tile_cells[kHiddenCells][th.id];
        const float2 z = trainer.shared.tile_cells[kHeadCells][th.id];
        const float hidden[2] = {h.x, h.y}, dz[2] = {z.x, z.y};
        head_gradient(th, trainer.shared.head, trainer.shared.batch, tile, hidden, dz,
                      trainer.shared.scale.scale, state.dh);
    }
    return state;
}

// Backward over all pieces, last first: that one is still in shared memory.
template <class R>
__device__ __forceinline__ void backward_pass(const Trainer<R> &trainer, Thread &th, int tiles,
                                              KeepBits keep, BackwardWeights<R> &weights,
                                              unsigned *overflow) {
    using L = typename R::L;
    const auto &workspace = trainer.launch.workspace;
    const int segments = trainer.launch.plan.segments, features = trainer.p().shape.features;
    bool fetched = false; // and adds to what the pieces before have left
    int k = tiles - 1, index = segments - 1;
#pragma unroll 1
    while (true) {
        const int tile = computed_here(trainer.tile(k));
        const Segment segment = trainer.segment(index);
        const bool top = index + 1 == segments;
        uint32_t parity = 0;
        if (fetched) {
            parity = reenter_piece<R>(trainer, th, k, index, keep);
        }
        BackwardState state = enter_backward<R>(trainer, th, tile, top);
        if (!R::kWeightsInAdvance) {
            load_weights(weights, trainer, th);
        }
        if (R::kReceivesGradient) {
            th.expect(trainer.launch.plan.segment_steps, segment.count, R::kInputGradientBytes);
        }
        if (fetched) {
            backward_segment<R, true>(th, weights, segment, keep, top, parity, state);
        } else {
            backward_segment<R, false>(th, weights, segment, keep, top, parity, state);
        }
        const bool more = k > 0 || index > 0;
        if (more) {
            finish_reading<R, kReadsEarly<R>>();
        }
        if (index > 0) { // for the segment before: not held beside the weight gradients
            trainer.scratch(th, tile, kGradientCells) = make_float2(state.dh[0], state.dh[1]);
            trainer.scratch(th, tile, kCarryCells) = make_float2(state.dc[0], state.dc[1]);
            trainer.scratch(th, tile, kStateCells) = make_float2(state.cell[0], state.cell[1]);
        }
        store_bias_gradient<R>(th, state,
                               trainer.template memory<float>(workspace.bias) +
                                   (trainer.cluster() * R::kLayers + R::kLayer) * R::kThreads,
                               fetched);
        clear_slot_after<R>(th, segment.count);
        fence_async_shared();
        __syncthreads(); // d(gates) of the last time step are in its slot
        if (--index < 0) {
            index = segments - 1, --k;
        }
        weight_gradient<R>(th, segment.count, features, fetched, more, trainer.carried_sums(th),
                           trainer.template memory<float2>(workspace.partial) +
                               (size_t)trainer.cluster() * L::partial_pairs(features, R::kLayers),
                           overflow, trainer.shared.batch.index + 1, [&] {
                               if (more) {
                                   fetch_piece<R>(trainer, th, k, index);
                                   if (R::kWeightsInAdvance) { // they overtake the stores
                                       load_weights(weights, trainer, th);
                                   }
                               }
                           });
        if (!more) {
            return;
        }
        fetched = true;
    }
}

// This block's share of the update. wait() ends when all gradients are written, and skips() then
// tells whether the step overflowed; what does not depend on them comes before, and nothing shared
// of this step is read after it.
template <class R, class Wait, class Skips>
__device__ __forceinline__ void update(const Trainer<R> &trainer, const Thread &th,
                                       const Wait &wait, const Skips &skips) {
    using L = typename R::L;
    const Batch batch = trainer.shared.batch;
    const Adam adam = trainer.shared.adam;
    const int features = trainer.p().shape.features;
    const ModelState state = trainer.state();
    const AdamConstants &constants = trainer.launch.adam;
    const int heads = trainer.heads();
    update_weights<L>(state, constants, adam, trainer.launch.share,
                      L::partial_pairs(features, R::kLayers), heads, th.id, wait, skips);
    // The blocks' last warps first: they have the fewest pairs.
    const int threads = (int)gridDim.x * 32, warps_after = R::kWarps - 1 - th.warp();
    update_vectors<L>(state, constants, adam, skips(), R::kLayers, features, batch.rows, heads,
                      warps_after * threads + (int)blockIdx.x * 32 + th.lane(),
                      R::kWarps * threads);
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
        shared.batch = trainer.first_batch();
        shared.arrivals = gridDim.x;
        shared.fetches = 0;
    }
    __syncthreads(); // the model, for the whole block
    if (th.warp() == 0) {
        trainer.begin_step(th.lane());
    }
    if (R::kFirst) {
        trainer.look_ahead(th, shared.batch);
    }
    place_weights<L>(trainer.state(), L::partial_pairs(p.shape.features, R::kLayers),
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
        const int tiles = shared.batch.tiles_of(trainer.cluster());
        if (tiles > 0) {
            KeepBits keep = trainer.keep_bits([&](int e) { return shared.next_keep[e][th.id]; });
            forward_pass<R>(trainer, th, tiles, keep);
            if (R::kFirst && !R::kLast) {
                // While the layer above is at its head.
                trainer.look_ahead(th, trainer.batch_after(shared.batch));
            }
            if (R::kLast) {
                head_pass<R>(trainer, th, tiles);
            }
            if (tiles * launch.plan.segments > 1) {
                fence_async_device(); // bulk copies read nothing that is written later
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
            if (R::kLast && trainer.cluster() == 0) { // while the grid meets
                move_running_statistics<L>(th, shared.head, shared.batch, p.momentum,
                                           p.running_mean + trainer.model() * R::kHidden,
                                           p.running_var + trainer.model() * R::kHidden);
            }
        }
        if (R::kFirst && (R::kLast || tiles == 0)) {
            trainer.look_ahead(th, trainer.batch_after(shared.batch));
        }
        const unsigned gradients = // of every block with a tile
            shared.arrivals + R::kLayers * trainer.heads();
        th.id = computed_here(th.id);
        int overflowed = 0; // the last step to do so
        const auto skips = [&] { return Op::kScaled && computed_here(overflowed) == step + 1; };
        const auto wait = [&] {
            barrier.wait(th.id, gradients);
            overflowed = Op::kScaled ? (int)__ldcg(overflow_step) : 0;
            if (th.warp() == R::kWarps - 1) { // it has the fewest weights
                trainer.begin_next_step(th.lane(), skips());
            }
        };
        update<R>(trainer, th, wait, skips);
        barrier.arrive(th.id);
        if (th.id == 0) {
            shared.arrivals = gradients + gridDim.x;
        }
        if (R::kFirst && step + 1 < p.steps) {
            trainer.load_input(th, step + 1, 0, trainer.segment(0));
        }
        barrier.wait(th.id, gradients + gridDim.x);
    }
    if (Op::kScaled && blockIdx.x == 0 && th.id == 0) {
        trainer.store_scale();
    }
}

template <int kHidden, class Op, int kLayers>
__global__ void __launch_bounds__(4 * kHidden, 1)
    lstm_train_kernel(const __grid_constant__ Launch launch) {
    using L = Layout<kHidden, Op>;
    BlockShared<L> &shared = shared_object<BlockShared<L>>();
    static_assert(sizeof shared <= kBlockSharedBytes);
    using Plan = SharedPlan<L>;
    const bool first = kLayers == 1 || blockIdx.x % 2 == 0;
    const int slot_bytes = first ? Plan::Lower::kSlotBytes : Plan::Upper::kSlotBytes;
    Thread th;
    th.id = (int)threadIdx.x;
    th.full = shared_address(shared.full);
    th.full_parity = 0;
    th.fetched = shared_address(shared.fetched);
    th.slots = shared_address(dynamic_shared()) + Plan::kHead;
    th.input_gradient = th.slots + Plan::gradients(launch.plan.segment_steps);

    // x beyond its features stays zero.
    for (int i = th.id * 16; i < Plan::slots(launch.plan.segment_steps) * slot_bytes;
         i += L::kThreads * 16) {
        store_shared16(th.slots + i, make_uint4(0, 0, 0, 0));
    }
    if (th.id < kMaxSegment) {
        barrier_init(th.full + 8 * th.id);
        if (th.id < kMaxSegment / kChunk) {
            barrier_init(th.fetched + 8 * th.id);
        }
        fence_barrier_init();
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
