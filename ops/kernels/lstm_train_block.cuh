// What a block of the training kernel knows and shares: the grid barrier, its shared memory, its
// model, and the samples and dropout masks of its tiles.
#pragma once

#include "lstm_train_forward.cuh"
#include "lstm_train_head.cuh"
#include "lstm_train_update.cuh"

namespace rp_lstm {

// One counter a model that only grows; every block of the model knows what it must reach.
struct GridBarrier {
    unsigned *counter;

    __device__ __forceinline__ void arrive(int thread) const {
        __syncthreads(); // the block's writes happen before thread 0's release
        if (thread == 0) {
            release_add(counter);
        }
    }
    __device__ __forceinline__ void wait(int thread, unsigned target) const {
        if (thread == 0) {
            while ((int)(load_acquire(counter) - target) < 0) {
            }
        }
        __syncthreads(); // thread 0's acquire happens before the block's reads
    }
};

// fp16 and fp32: after kGrowthSteps good steps the scale doubles, up to its first value.
struct LossScale {
    static constexpr int kGrowthSteps = 2000;
    float scale;
    int good, skipped;
    __device__ __forceinline__ void step_done(bool overflow, float first) {
        if (overflow) {
            scale = fmaxf(scale * 0.5f, 1.0f);
            good = 0;
            ++skipped;
        } else if (++good == kGrowthSteps) {
            scale = fminf(scale * 2.0f, first);
            good = 0;
        }
    }
};

constexpr int kTilesAhead = 8;

// What a block keeps in shared memory besides the slots.
template <class L> struct BlockShared {
    HeadShared<L> head;
    uint64_t full[kMaxSegment], fetched[kMaxSegment / kChunk]; // mbarriers
    unsigned fetches;                                          // pieces that came back
    // By parity of the step, so that the next one's can be found early, and for several tiles of
    // the block at once: last row of each window, or -1, and its target.
    int ends[2][kTilesAhead][kRows];
    float targets[2][kTilesAhead][kRows];
    uint64_t next_keep[2][L::kThreads]; // KeepBits.row of the next step's first tile
    // Of the tile at hand: in the head the first three of CellScratch, then the first two, or its
    // mask.
    alignas(16) float2 tile_cells[3][L::kThreads];
    LossScale scale;
    float first_scale;
    Adam adam;
    Batch batch;
    unsigned arrivals; // the grid barrier's count when the step began
    // of this block's model
    uint64_t seed;
    int64_t windows;
    const int32_t *window_ends;
    float learning_rate;
};

// A block's view of its model; everything is computed from kernel parameters when asked for, so
// that it takes no registers in between.
template <class R> struct Trainer {
    using L = typename R::L;
    const Launch &launch;
    BlockShared<L> &shared;

    __device__ __forceinline__ const rp_lstm_train_params &p() const { return launch.p; }
    static __device__ __forceinline__ int cluster() { return (int)blockIdx.x / R::kLayers; }
    static __device__ __forceinline__ int clusters() { return (int)gridDim.x / R::kLayers; }
    // Clusters that have a tile of this step, and so numbers of their own.
    __device__ __forceinline__ int heads() const { return min(clusters(), shared.batch.tiles()); }
    __device__ __forceinline__ int model() const { return launch.model + (int)blockIdx.y; }
    template <class T> __device__ __forceinline__ T *memory(size_t offset) const {
        return (T *)((uint8_t *)p().workspace + launch.models +
                     blockIdx.y * launch.plan.model_bytes + offset);
    }
    __device__ __forceinline__ int64_t parameter_start() const {
        return (int64_t)model() * parameter_count(p().shape.features, R::kHidden, R::kLayers);
    }
    __device__ __forceinline__ float *parameters() const {
        return p().parameters + parameter_start();
    }
    __device__ __forceinline__ ModelState state() const {
        const Workspace &w = launch.workspace;
        return {parameters(),
                p().exp_avg + parameter_start(),
                p().exp_avg_sq + parameter_start(),
                memory<uint32_t>(w.forward_weights),
                memory<uint32_t>(w.backward_weights),
                (PairPlace *)((uint8_t *)p().workspace + launch.places),
                memory<float2>(w.partial),
                memory<float>(w.bias),
                memory<float>(w.head),
                p().losses + (int64_t)model() * p().steps + shared.batch.index};
    }
    // Thread 0 fills the block's shared copy of what is the model's own.
    __device__ __forceinline__ void load_model() const {
        const int m = model();
        const float *scale = p().scale_state + 3 * m;
        const bool scaled = R::Operand::kScaled && scale[0] > 0.0f;
        shared.first_scale = first_loss_scale<typename R::Operand>(p().shape.batch);
        shared.scale = {scaled ? scale[0] : shared.first_scale, (int)scale[1], (int)scale[2]};
        shared.seed = (uint64_t)p().seeds[m];
        shared.windows = p().window_ranges[2 * m + 1];
        shared.window_ends = p().window_ends + p().window_ranges[2 * m];
        shared.learning_rate = p().learning_rates[m];
    }

    // By one thread of the model.
    __device__ __forceinline__ void store_scale() const {
        float *scale = p().scale_state + 3 * model();
        scale[0] = shared.scale.scale;
        scale[1] = (float)shared.scale.good;
        scale[2] = (float)shared.scale.skipped;
    }

    __device__ __forceinline__ Batch first_batch() const {
        const int64_t step = p().first_step, size = p().shape.batch;
        const int64_t windows = shared.windows, steps_per_epoch = rp_steps_per_epoch(windows, size);
        const int64_t position = step % steps_per_epoch * size;
        Batch batch = {};
        batch.epoch = (int)(step / steps_per_epoch);
        batch.position = (uint32_t)position;
        batch.rows = (int)min(size, windows - position);
        batch.stamp = (uint32_t)step & 3;
        batch.deal(clusters());
        return batch;
    }
    __device__ __forceinline__ Batch batch_after(Batch batch) const {
        const uint32_t windows = (uint32_t)shared.windows, size = (uint32_t)p().shape.batch;
        batch.position += batch.rows;
        if (windows - batch.position < min(size, 2u)) { // see rp_steps_per_epoch
            batch.position = 0;
            ++batch.epoch;
        }
        batch.rows = (int)min(size, windows - batch.position);
        ++batch.index;
        batch.stamp = (batch.stamp + 1) & 3;
        batch.deal(clusters());
        return batch;
    }
    __device__ __forceinline__ Segment segment(int index) const {
        // All are of full length but the first.
        const int steps = launch.plan.segment_steps;
        const int end = p().shape.time_steps - (launch.plan.segments - 1 - index) * steps;
        const int first = max(0, end - steps);
        return {first, end - first};
    }
    // The block's k-th tile.
    static __device__ __forceinline__ int tile(int k) { return cluster() + k * clusters(); }
    __device__ __forceinline__ int chunks() const { // of the longest segment
        return (launch.plan.segment_steps + kChunk - 1) / kChunk;
    }
    // Shared address of the sums that are carried from piece to piece, or 0.
    __device__ __forceinline__ uint32_t carried_sums(const Thread &th) const {
        const int steps = computed_here(launch.plan.segment_steps);
        return launch.plan.carries_sums ? th.slots + SharedPlan<L>::template carried_sums<R>(steps)
                                        : 0;
    }
    // Where a piece of the block's k-th tile waits for backward.
    __device__ __forceinline__ uint8_t *offloaded(int k, int index) const {
        const int n = k * launch.plan.segments + index;
        const size_t bytes = (size_t)launch.plan.segment_steps * SharedPlan<L>::kSlotBytes;
        return memory<uint8_t>(launch.workspace.slots) +
               (((size_t)cluster() * launch.offloads + n) * R::kLayers + R::kLayer) * bytes;
    }
    __device__ __forceinline__ float2 &scratch(const Thread &th, int tile, CellScratch what) const {
        return memory<float2>(
            launch.workspace
                .cells)[((tile * R::kLayers + R::kLayer) * kCellScratch + what) * R::kThreads +
                        th.id];
    }
    // Rows of the mask of the launch's step `index`, drawn in the step before.
    static __device__ __forceinline__ CellScratch keep_cells(int index) {
        return CellScratch(kKeepCells + 2 * (index & 1));
    }
    __device__ __forceinline__ uint64_t &keep_scratch(const Thread &th, int tile, int index,
                                                      int e) const {
        return reinterpret_cast<uint64_t &>(scratch(th, tile, CellScratch(keep_cells(index) + e)));
    }
    // What the head reads and writes; of the last tile of the step in shared memory.
    __device__ __forceinline__ float2 &head_scratch(const Thread &th, int tile, bool last,
                                                    CellScratch what) const {
        return last ? shared.tile_cells[what][th.id] : scratch(th, tile, what);
    }

    __device__ __forceinline__ bool drops() const {
        return !R::kLast && rp_dropout_threshold(p().dropout) > 0;
    }
    __device__ __forceinline__ uint64_t keep_row(const Thread &th, int index, int tile,
                                                 int e) const {
        const uint32_t threshold = rp_dropout_threshold(p().dropout);
        uint64_t keep = 0;
#pragma unroll 1
        for (int block = 0; block * 8 < p().shape.time_steps; ++block) {
            const rp_philox_block draw = rp_dropout_block(shared.seed, p().first_step + index,
                                                          (uint32_t)(tile * kRows + 2 * th.q() + e),
                                                          0, (uint32_t)th.unit(), (uint32_t)block);
            keep |= (uint64_t)rp_dropout_keep_bits(draw, threshold) << 8 * block;
        }
        return keep;
    }
    // The mask of which row(e) has been drawn.
    template <class Row> __device__ __forceinline__ KeepBits keep_bits(const Row &row) const {
        KeepBits keep = {{~0ull, ~0ull}, 1.0f};
        if (drops()) {
            keep = {{row(0), row(1)}, rp_dropout_scale(rp_dropout_threshold(p().dropout))};
        }
        return keep;
    }

    // x of the block's k-th tile.
    __device__ __forceinline__ void load_input(const Thread &th, int index, int k,
                                               const Segment &segment) const {
        load_segment_input<R>(th, shared.ends[index & 1][k % kTilesAhead], segment, p().features,
                              p().shape.features, p().shape.time_steps);
    }

    // Window ends and targets of the block's tiles k, k + 1, ...; the targets go to the cluster's
    // block of layer `head`. A barrier must follow before they are read.
    __device__ __forceinline__ void find_windows(const Thread &th, const Batch &b, int k,
                                                 int head) const {
        const int slot = computed_here(th.id); // not held for this
        if (slot >= kTilesAhead * kRows) {
            return;
        }
        const int row = tile(k + slot / kRows) * kRows + slot % kRows; // in the batch
        int end = -1;
        if (row < b.rows) {
            const rp_order_key key =
                rp_order_key_make((uint32_t)shared.windows, shared.seed, (uint32_t)b.epoch);
            end = __ldg(shared.window_ends + rp_order(b.position + row, &key));
        }
        shared.ends[b.index & 1][slot / kRows][slot % kRows] = end;
        const float target = end < 0 ? 0.0f : __ldg(p().targets + end);
        float *place = &shared.targets[b.index & 1][slot / kRows][slot % kRows];
        store_in_block(address_in_block(shared_address(place), head), target);
    }
    // By a warp: what all updates of the step have in common. t = their number, from 1.
    __device__ __forceinline__ void begin_step(int lane) const {
        const int64_t t = p().first_step + shared.batch.index + 1 - shared.scale.skipped;
        const float correction = // one code for both: it is fetched anew each step
            bias_correction(lane == 0 ? launch.adam.log_beta1 : launch.adam.log_beta2, t);
        if (lane == 0) {
            shared.adam.step_size = shared.learning_rate / correction;
            shared.adam.inv_scale = 1.0f / shared.scale.scale; // a power of two: exact
        } else if (lane == 1) {
            shared.adam.inv_sqrt_correction2 = rsqrtf(correction);
        }
    }
    // By a warp, when nobody else reads this step's batch any more.
    __device__ __forceinline__ void begin_next_step(int lane, bool overflow) const {
        const Batch next = batch_after(shared.batch);
        __syncwarp(); // all lanes have read it
        if (lane == 0) {
            shared.batch = next;
            shared.scale.step_done(overflow, shared.first_scale);
        }
        __syncwarp();
        begin_step(lane);
    }
    // What the next step needs and this one does not hold, by layer 0, which would wait meanwhile.
    __device__ __forceinline__ void look_ahead(const Thread &th, const Batch &batch) const {
        if (batch.index >= p().steps) {
            return;
        }
        find_windows(th, batch, 0, R::kLayers - 1);
        const int tiles = drops() ? batch.tiles_of(cluster()) : 0;
#pragma unroll 1
        for (int k = 0; k < tiles; ++k) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const uint64_t row = keep_row(th, batch.index, tile(k), e);
                if (k == 0) {
                    shared.next_keep[e][th.id] = row;
                }
                if (tiles > 1) {
                    keep_scratch(th, tile(k), batch.index, e) = row;
                }
            }
        }
    }
};

// Neither block of a cluster sends what belongs to a piece before the other has read what it sent
// of the piece before. Who receives arrives as soon as it has (kEarly), all others when they wait.
template <class R, bool kEarly> __device__ __forceinline__ void finish_reading() {
    if (R::kLayers == 2 && kEarly) {
        cluster_arrive_after_reads();
    }
}
template <class R, bool kEarly> __device__ __forceinline__ void wait_for_readers() {
    if (R::kLayers == 2) {
        if (!kEarly) {
            cluster_arrive_after_reads();
        }
        cluster_wait();
    }
}
// In backward: unless gradients from above go to slots, which must have been fetched before.
template <class R> constexpr bool kReadsEarly = R::kReceivesGradient && !R::kCovers;

} // namespace rp_lstm
