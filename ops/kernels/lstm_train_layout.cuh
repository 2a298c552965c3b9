// Where everything lies: shared memory of a block, fragments in registers, workspace of a model.
// The mapping is explained at the head of lstm_train_kernel.cuh.
#pragma once

#include <algorithm>

#include "lstm_train.h"
#include "lstm_train_operand.cuh"
#include "random.h"

namespace rp_lstm {

constexpr int kRows = 8;         // batch rows of a tile: N of the mma
constexpr int kMaxSegment = 32;  // time steps in shared memory
constexpr int kChunk = 4;        // time steps that go to device memory and come back at once
constexpr int kMaxClusters = 64; // of a model; a GPU of 132 multiprocessors has room

constexpr size_t kBlockSharedBytes = 15 * 1024; // of BlockShared, at most; whole KB

// Byte offsets in the workspace of one model; counters of all models come before.
struct Workspace {
    size_t forward_weights;  // [layer][part][plane][fragments], i, f and o rows halved
    size_t backward_weights; // [layer][plane][fragments]: the same transposed, W_h beside W_x
    // Of a cluster's tiles together, and [clusters] of the batch:
    size_t statistics; // [clusters + 1][H] float2: mean and M2 of the last h
    size_t sums;       // [clusters + 1][H] float2: sum of dz and of dz * xhat
    // Of a cluster's tiles together:
    size_t head;    // [clusters][H + 2]: d(head weight), d(head bias), squared error
    size_t bias;    // [clusters][L][H][4 gates]: d(bias), scaled
    size_t partial; // [clusters][pairs] float2: d(weights) in fragment order, scaled
    // Of a tile, or of a piece that waits for backward:
    size_t cells; // [tiles][L][kCellScratch][threads] float2: numbers of a thread's cells
    size_t slots; // [clusters][pieces of a block but the last][L][slot bytes of a segment]
    size_t bytes;
};
constexpr size_t kCounterBytes = 128; // of a model: [0] arrivals, [16] step that overflowed
// What a thread leaves for itself: of a tile that waits for backward, and between segments.
enum CellScratch {
    kHiddenCells,
    kHeadCells,
    kTargetCells,
    kKeepCells, // and the next: KeepBits.row; then the same of the step after
    kGradientCells = kKeepCells + 4,
    kCarryCells,
    kStateCells,
    kCellScratch
};

struct AdamConstants {
    float beta1, one_minus_beta1, beta2, one_minus_beta2, eps;
    double log_beta1, log_beta2;
};

struct Launch {
    rp_lstm_train_params p;
    rp_lstm_train_plan plan;
    Workspace workspace;
    int share;             // pairs of weights that a block updates at once
    int offloads;          // pieces of a block that do not stay in shared memory, at most
    size_t places, models; // bytes of the workspace before places [pairs], before the first model's
    AdamConstants adam;
    int model; // first of this launch
};

// Tiles have 8 batch rows of 64 or 128 bytes. Row n lies at row_place(n), and its 16-byte chunks
// are XORed as the tensor cores' swizzle of that width has it, so that a warpgroup's product reads
// tiles as they are; two neighbouring rows lie 4 apart, so that fragment reads and stores touch
// each bank once.
__device__ __forceinline__ int row_place(int n) {
    return n ^ (n & 1) << 2;
}
// Byte of a chunk of row n; a tile begins on a multiple of its size.
template <int kRowBytes> __device__ __forceinline__ uint32_t chunk_place(int n, int chunk) {
    const int place = row_place(n);
    return place * kRowBytes + ((chunk ^ (kRowBytes == 64 ? place >> 1 & 3 : place)) << 4);
}
// XOR it to the address of a chunk of row 2q: the same of row 2q + 1.
template <int kRowBytes>
constexpr uint32_t kOddRow = kRowBytes == 64 ? 5 << 6 | 2 << 4 : 5 << 7 | 5 << 4;

template <int kHidden_, class Operand_> struct Layout {
    using Operand = Operand_;
    static constexpr int kBytes = Operand::kBytes;
    static constexpr int kPlanes = Operand::kPlanes;
    static constexpr int kHidden = kHidden_;
    static constexpr int kThreads = 4 * kHidden; // a warp has 8 units, all 8 rows, all 4 gates
    static constexpr int kWarps = kHidden / 8;
    // A group is the k of one 16-byte load by each lane q: 64 bytes; two mma, or kHiddenMmas of h,
    // whose numbers take 2 bytes whatever the others do.
    static constexpr int kHiddenMmas = kBytes;
    static constexpr int kForwardGroups = kHidden / 32;           // in a tile of h
    static constexpr int kInputGroups = kBytes / 2;               // in x
    static constexpr int kBackwardGroups = kHidden * kBytes / 16; // in a tile of gate gradients
    static constexpr int kRowGroups = kHidden / 16;               // of 64 gate rows, in d(weights)
    // Of one plane:
    static constexpr int kTileRow = 2 * kHidden; // of h: [8 rows][H]
    static constexpr int kTileBytes = kRows * kTileRow;
    // x: a tile like h's with 16-bit operands, else [groups][8 rows][64 bytes].
    static constexpr int kInputBytes = kBytes == 2 ? kTileBytes : 512 * kInputGroups;
    static constexpr int kPartWords = kHidden * kHidden * kBytes; // one [4H][H] matrix, packed
    static constexpr int kInputPartWords = 32 * kHidden * kBytes; // one [4H][32] matrix, packed
    static constexpr int kBlockPairs = 16 * kHidden;              // d(weights) of 8 columns

    // x's features in the order of the mma that take them, so that few features need few mma:
    // [2 groups + s][q][b0, b1][word].
    static constexpr int kDepth = 32 / kBytes; // k of one mma
    // Byte of feature f in row 0 of x.
    static __device__ __forceinline__ int feature_place(uint32_t f) {
        const int step = f / kDepth, r = f % kDepth;
        return (step >> 1) * 512 + r / (kDepth / 4) * 16 + (step & 1) * 8 +
               r % (kDepth / 4) * kBytes;
    }
    // Feature of element e of a row of x.
    static __device__ __forceinline__ int feature_at(int e) {
        const int word = e * kBytes / 4, step = (word >> 4) * 2 + (word >> 1 & 1);
        return step * kDepth + (word >> 2 & 3) * (kDepth / 4) + (word & 1) * (kDepth / 8) +
               e % (4 / kBytes);
    }
    // Byte of feature f in a row of x.
    static __device__ __forceinline__ uint32_t input_place(int row, int f) {
        const int at = feature_place(f);
        return kBytes == 2 ? chunk_place<kTileRow>(row, at >> 4) + at % 16 : row * 64 + at;
    }
    // Up to 10 features leave room in the depth of their mma for what their operands, and those of
    // their weights, leave off: x W = high W_high + high W_low + low W_high, three runs of k. The
    // rounding of a weight errs the same way in all rows of a batch, and does not average out.
    static __host__ __device__ constexpr int input_run(int features) {
        return (features + 1) / 2 * 2;
    }
    static __host__ __device__ constexpr bool has_low_parts(int features) {
        return kPlanes == 1 && 3 * input_run(features) <= 32;
    }
    static __host__ __device__ constexpr int input_depth(int features) {
        return has_low_parts(features) ? 3 * input_run(features) : features;
    }
    // Blocks of 8 elements of x that have a feature.
    static __host__ __device__ constexpr int input_blocks(int features) {
        return features > 16 ? 4 : kBytes == 2 ? (features + 3) / 4 : features > 4 ? 2 : 1;
    }
    // d(weights) of a tile, in pairs of neighbouring columns.
    static __host__ __device__ constexpr int partial_pairs(int features, int layers) {
        return (input_blocks(features) + kHidden / 8 * (2 * layers - 1)) * kBlockPairs;
    }
};
// Gate gradients lie in tiles too: parts of 8 chunks a row, of a unit's four gates each, or of two
// units' with 16-bit operands.
constexpr int kGateRow = 128, kGatePart = kRows * kGateRow;

// What a block does. A slot is one time step in shared memory:
//   gates     [4H threads] Operand::Gates (i, f, g, o of the thread's 2 cells), thread-private; the
//             backward pass overwrites them in place by d(gates): [parts][8 rows][units][4 gates]
//   cell      [4H threads] Operand::Cells: c(t-1), thread-private
//   previous  tile of h(t-1), plane after plane
//   input     x(t), or the tile of h(t), dropped, of the layer below; plane after plane
// Where d(gates) are so much larger than the gates, they cover the cell as well, which is read as
// early, and the gradient that the layer above sends for the time step after: one __syncthreads
// lies between its reading and theirs.
template <class Layout_, bool kFirst_, bool kLast_> struct Role : Layout_ {
    using L = Layout_;
    static constexpr bool kFirst = kFirst_; // reads x
    static constexpr bool kLast = kLast_;   // has the head
    static constexpr int kLayer = kFirst ? 0 : 1;
    static constexpr int kLayers = kFirst && kLast ? 1 : 2;
    static constexpr int kInputGroups = kFirst ? L::kInputGroups : L::kForwardGroups;
    static constexpr int kInputMmas = kFirst ? 2 : L::kHiddenMmas; // of a group
    static constexpr int kCellBytes = sizeof(typename L::Operand::Cells) * L::kThreads;
    static constexpr int kInputGradientBytes = sizeof(float2) * L::kThreads;
    static constexpr int kGateGradientBytes = 4 * kRows * L::kHidden * L::kBytes; // of one plane
    static constexpr int kCell = sizeof(typename L::Operand::Gates) * L::kThreads;
    static constexpr bool kCovers = kCell + kCellBytes + kInputGradientBytes == kGateGradientBytes;
    static constexpr int kPrevious = kCovers ? kGateGradientBytes : kCell + kCellBytes;
    static_assert(kCovers || L::kPlanes * kGateGradientBytes <= kCell);
    static constexpr int kInput = kPrevious + L::kPlanes * L::kTileBytes;
    static constexpr int kInputPlane = kFirst ? L::kInputBytes : L::kTileBytes;
    static constexpr int kSlotBytes = (kInput + L::kPlanes * kInputPlane + 1023) / 1024 * 1024;
    // Sums of the first half of d(weights) that a block carries from piece to piece: those of the
    // columns of h, and of an upper layer's input. float4s of a thread; bytes.
    static constexpr int kCarriedSums = L::kBytes == 2 ? (kFirst ? 1 : 2) * L::kHidden / 8 : 0;
    static constexpr int kCarriedBytes = kCarriedSums * L::kThreads * 16;
    static constexpr bool kReceivesGradient = kFirst && !kLast;
    static constexpr bool kSendsGradient = !kFirst;
    // Backward's weights have registers beside forward's, and beside the head's numbers.
    static constexpr bool kWeightsInAdvance = L::kBytes * L::kPlanes == 2;
};

// Shared memory of the blocks of a cluster: the same in both, as each writes to the other's.
// [head][slots][gradients from the layer above, unless slots have them]; then, where there is room,
// the carried sums, which are a block's own and follow what its role has of these.
template <class L> struct SharedPlan {
    using Lower = Role<L, true, false>;
    using Upper = Role<L, false, true>;
    // The gradient of slot t lies in slot t - 1, and that of slot 0 in the head.
    static constexpr int kHead =
        Lower::kCovers ? Lower::kSlotBytes - Lower::kCell - Lower::kCellBytes : 0;
    static constexpr int kGradientStride =
        Lower::kCovers ? Lower::kSlotBytes : Lower::kInputGradientBytes;
    // Of a segment: an even number, as two are multiplied at once.
    static __host__ __device__ constexpr int slots(int steps) { return (steps + 1) / 2 * 2; }
    // Of slot 0's gradient, from slot 0.
    static __device__ __forceinline__ int gradients(int steps) {
        return Lower::kCovers ? -kHead : slots(steps) * Lower::kSlotBytes;
    }
    static constexpr int kSlotBytes =
        Lower::kSlotBytes > Upper::kSlotBytes ? Lower::kSlotBytes : Upper::kSlotBytes;
    // Where the carried sums begin, from slot 0.
    template <class R> static __host__ __device__ constexpr int carried_sums(int steps) {
        const int gradient = R::kReceivesGradient && !R::kCovers ? R::kInputGradientBytes : 0;
        return slots(steps) * (R::kSlotBytes + gradient);
    }
    static constexpr size_t bytes(int steps, int layers, bool carries_sums = false) {
        const auto of = [&](auto role) {
            using R = decltype(role);
            return kHead + carried_sums<R>(steps) + (carries_sums ? R::kCarriedBytes : 0);
        };
        return layers == 1 ? of(Role<L, true, true>()) : std::max(of(Lower()), of(Upper()));
    }
};

// A thread's place and its view of shared memory.
struct Thread {
    int id;
    uint32_t slots;          // shared address of slot 0
    uint32_t input_gradient; // shared address, in the lower layer's block, of dx from above
    uint32_t full;           // barriers [kMaxSegment]: the other layer's data of a slot has arrived
    uint32_t full_parity;    // of their phase in this segment
    uint32_t fetched;        // barriers [kMaxSegment / kChunk]: slots are back from device memory

    __device__ __forceinline__ int warp() const { return id >> 5; }
    __device__ __forceinline__ int lane() const { return id & 31; }
    // A lane, 4g + q, has hidden unit 8 warp + g and batch rows 2q and 2q + 1.
    __device__ __forceinline__ int g() const { return id >> 2 & 7; }
    __device__ __forceinline__ int q() const { return id & 3; }
    __device__ __forceinline__ int unit() const { return id >> 2; }

    // By the block, before it receives: the other layer sends `bytes` for each of `count` time
    // steps of `steps`. The barriers of the rest complete the phase as well, so that all have one
    // parity.
    __device__ __forceinline__ void expect(int steps, int count, uint32_t bytes) const {
        if (id < steps) {
            barrier_expect(full + 8 * id, id < count ? bytes : 0);
            if (id >= count) {
                receive(id); // as synccheck wants every phase to be waited for
            }
        }
    }
    // Whether what slot t receives is there.
    __device__ __forceinline__ bool has_arrived(int t) const {
        return barrier_test(full + 8 * t, full_parity);
    }
    __device__ __forceinline__ void receive(int t) const {
        barrier_wait(full + 8 * t, full_parity);
    }
    __device__ __forceinline__ void finish_receiving() { full_parity ^= 1; }
};

// A run of time steps of one tile.
struct Segment {
    int first, count;
};

// One optimiser step's batch. Its tiles are dealt to the model's clusters in turn.
struct Batch {
    int index; // of the step in this launch
    int epoch;
    uint32_t position; // of its first row in the epoch's order
    int rows;
    uint32_t stamp; // 0 to 3, of the numbers that its clusters exchange
    float two_over_rows;
    // Every cluster has `each` tiles, the first `more` of them one more; `last` has the last tile.
    int each, more, last;

    __device__ __forceinline__ void deal(int clusters) {
        two_over_rows = 2.0f / (float)rows;
        each = 0, more = tiles();
        while (more >= clusters) { // less code than a division, which is fetched anew each step
            more -= clusters;
            ++each;
        }
        last = (more > 0 ? more : clusters) - 1;
    }
    __device__ __forceinline__ int tiles() const { return (rows + kRows - 1) / kRows; }
    // The cluster's tiles: cluster, cluster + clusters, ...
    __device__ __forceinline__ int tiles_of(int cluster) const {
        return each + (cluster < more ? 1 : 0);
    }
    __device__ __forceinline__ int rows_in_tile(int tile) const {
        return min(kRows, rows - tile * kRows);
    }
    // Rows of the cluster's tiles; only the last tile may have fewer than 8.
    __device__ __forceinline__ int rows_of(int cluster) const {
        return tiles_of(cluster) * kRows - (cluster == last ? tiles() * kRows - rows : 0);
    }
};

// Two neighbouring columns of one weight matrix are one pair of a cluster's partial sums. Where
// they lie elsewhere is found once a launch: it takes longer than their update.
struct alignas(16) PairPlace {
    int parameter; // of the first, in the concatenated parameters; -1: x has no such feature
    int forward;   // word in the forward weights; a second one of the pair is 2 later
    int backward;  // element of the backward weights, the second one 64 bytes later; of x: below 0
    int flags;
    static constexpr int kHasSecond = 1, kHalved = 2;
    __device__ __forceinline__ bool has_first() const { return parameter >= 0; }
    __device__ __forceinline__ bool has_second() const { return (flags & kHasSecond) != 0; }
    // Of x: words from `forward` to the weights' low parts and to the weights again, where x's low
    // parts meet them; 0: it has none.
    __device__ __forceinline__ void set_input(int low_part, int high_again) {
        backward = -1 - (low_part << 10 | high_again);
    }
    __device__ __forceinline__ int low_part() const { return (-1 - backward) >> 10; }
    __device__ __forceinline__ int high_again() const { return (-1 - backward) & 1023; }
};

// The loss scale before any overflow: d(loss)/dy is about 1 / B.
template <class Op> __host__ __device__ float first_loss_scale(int batch) {
    float scale = Op::kFirstScale;
    while (Op::kScaled && scale < Op::kFirstScale * (float)batch) {
        scale *= 2.0f;
    }
    return scale;
}

// multiply(p, q) for the planes of two operands whose product counts: not of both low parts.
template <int kPlanes, class Multiply>
__device__ __forceinline__ void each_product(const Multiply &multiply) {
#pragma unroll
    for (int p = 0; p < kPlanes; ++p) {
#pragma unroll
        for (int q = 0; p + q < kPlanes; ++q) {
            multiply(p, q);
        }
    }
}

// First element of each tensor in the concatenated parameters.
struct ParameterOffsets {
    int input, recurrent, bias; // bias_ih; bias_hh follows 4H later
};
__device__ __forceinline__ ParameterOffsets layer_offsets(int layer, int features, int hidden) {
    const int first = 4 * hidden * (features + hidden + 2);
    const int start = layer == 0 ? 0 : first;
    const int inputs = layer == 0 ? features : hidden;
    return {start, start + 4 * hidden * inputs, start + 4 * hidden * (inputs + hidden)};
}
__host__ __device__ constexpr int head_offset(int features, int hidden, int layers) {
    return 4 * hidden * (features + hidden + 2) + (layers - 1) * 4 * hidden * (2 * hidden + 2);
}
__host__ __device__ constexpr int parameter_count(int features, int hidden, int layers) {
    return head_offset(features, hidden, layers) + hidden + 1;
}

} // namespace rp_lstm
