// Where everything lies: shared memory of a block, fragments in registers, workspace of a model.
// The mapping is explained at the head of lstm_train_kernel.cuh.
#pragma once

#include "lstm_train.h"
#include "lstm_train_ptx.cuh"
#include "random.h"

namespace rp_lstm {

constexpr int kRows = 8;                     // batch rows of a tile: N of the mma
constexpr int kMaxSegment = 32;              // time steps in shared memory: one phase bit each
constexpr int kInputBlockBytes = 64 * kRows; // x of one time step: [8 rows][32 features], 16 bits

// Byte offsets in the workspace of one model; counters of all models come before.
struct Workspace {
    size_t forward_weights;  // [layer][part][fragments], 16-bit operands, i, f and o rows halved
    size_t backward_weights; // the same weights transposed
    size_t statistics;       // [tiles][H] float2: mean and M2 of the tile's last h
    size_t sums;             // [tiles][H] float2: sum of dz and of dz * xhat
    size_t head;             // [tiles][H + 2]: d(head weight), d(head bias), squared error
    size_t cells;   // [tiles][L][kCellScratch][threads] float2: numbers of a thread's cells
    size_t starts;  // [pieces][L][threads] float4: c and h before the segment
    size_t bias;    // [pieces][L][4H]: d(bias), scaled
    size_t partial; // [pieces][words] 2 x 16 bits: d(weights) in fragment order, scaled
    size_t bytes;
};
constexpr size_t kCounterBytes = 128; // of a model: [0] arrivals, [16] step that overflowed
// What a thread leaves for itself: of a tile that waits for backward, and between segments.
enum CellScratch {
    kHiddenCells,
    kHeadCells,
    kTargetCells,
    kGradientCells,
    kCarryCells,
    kStateCells,
    kCellScratch
};

struct Launch {
    rp_lstm_train_params p;
    rp_lstm_train_plan plan;
    Workspace workspace;
    double log_beta1, log_beta2;
    int model; // first of this launch
};

template <int kHidden_> struct Layout {
    static constexpr int kHidden = kHidden_;
    static constexpr int kThreads = 4 * kHidden; // a warp has 8 units, all 8 rows, all 4 gates
    static constexpr int kWarps = kHidden / 8;
    static constexpr int kForwardGroups = kHidden / 32; // of 32 k, in a tile of h
    static constexpr int kBackwardGroups = kHidden / 8; // of 32 k, in a tile of gate gradients
    static constexpr int kRowGroups = kHidden / 16;     // of 64 gate rows, in d(weights)
    static constexpr int kTileBytes = 16 * kHidden;     // h of one time step: [8 rows][H], 16 bits
    static constexpr int kTileRow = 2 * kHidden;
    static constexpr int kPartWords = 2 * kHidden * kHidden; // one [4H][H] matrix, packed
    static constexpr int kInputPartWords = 64 * kHidden;     // one [4H][32] matrix, packed
    static constexpr int kBlockWords = 16 * kHidden; // d(weights) of 8 columns: [4H][8], packed

    // 16-byte chunks of a tile's row n are XORed with this, so that fragment reads, stores and
    // transposed reads all touch each bank once.
    static __device__ __forceinline__ int swizzle(int n) {
        return kHidden == 32 ? n >> 1 & 3 : n ^ (n & 1) << 2;
    }
    // Address of the same chunk one row on, from an even row.
    static __device__ __forceinline__ uint32_t odd_row(uint32_t address) {
        return (kHidden == 32 ? address : address ^ kOddRow) + kTileRow;
    }
    static constexpr uint32_t kOddRow = 5 << 4; // swizzle(n) ^ swizzle(n + 1), in bytes
};
// Rows of a gate-gradient tile have 16 chunks (of two units' four gates) whatever H is.
__device__ __forceinline__ int gate_swizzle(int n) {
    return n ^ (n & 1) << 2;
}

// What a block does. A slot is one time step in shared memory:
//   gates   [4H threads] uint4 of fp16 (i, f, g, o of the thread's 2 cells), thread-private; the
//           backward pass overwrites them in place by d(gates): [H/32][8 rows][32 units * 4 gates]
//   cell    [4H threads] float2: c(t-1), thread-private
//   previous  tile of h(t-1)
//   input   x(t), or the tile of h(t), dropped, of the layer below
template <class Layout_, class Operand_, bool kFirst_, bool kLast_> struct Role : Layout_ {
    using L = Layout_;
    using Operand = Operand_;
    static constexpr bool kFirst = kFirst_; // reads x
    static constexpr bool kLast = kLast_;   // has the head
    static constexpr int kLayer = kFirst ? 0 : 1;
    static constexpr int kLayers = kFirst && kLast ? 1 : 2;
    static constexpr int kGateBytes = 64 * L::kHidden;
    static constexpr int kCell = kGateBytes;
    static constexpr int kPrevious = kCell + 32 * L::kHidden;
    static constexpr int kInput = kPrevious + L::kTileBytes;
    static constexpr int kSlotBytes = kInput + (kFirst ? kInputBlockBytes : L::kTileBytes);
    static constexpr int kInputGradientBytes = 32 * L::kHidden; // float2 a thread, one time step
    static constexpr bool kReceivesGradient = kFirst && !kLast;
    static constexpr bool kSendsGradient = !kFirst;
    // Slots, and gradients from the layer above.
    static constexpr size_t shared_bytes(int slots) {
        return (size_t)slots * (kSlotBytes + (kReceivesGradient ? kInputGradientBytes : 0));
    }
};

// A thread's place and its view of shared memory.
struct Thread {
    int id;
    uint32_t slots;          // shared address of slot 0
    uint32_t input_gradient; // shared address, in the lower layer's block, of dx from above
    uint32_t full;           // barriers [kMaxSegment]: the other layer's data of a slot has arrived
    uint32_t full_phase;     // bit t: parity of the next wait on slot t

    __device__ __forceinline__ int warp() const { return id >> 5; }
    __device__ __forceinline__ int lane() const { return id & 31; }
    // A lane, 4g + q, has hidden unit 8 warp + g and batch rows 2q and 2q + 1.
    __device__ __forceinline__ int g() const { return id >> 2 & 7; }
    __device__ __forceinline__ int q() const { return id & 3; }
    __device__ __forceinline__ int unit() const { return id >> 2; }
};

// A run of time steps of one tile.
struct Segment {
    int first, count;
};

// One optimiser step's batch.
struct Batch {
    int index; // of the step in this launch
    int epoch;
    uint32_t position; // of its first row in the epoch's order
    int rows;
    __device__ __forceinline__ int tiles() const { return (rows + kRows - 1) / kRows; }
    // How many tiles the cluster has: cluster, cluster + clusters, ...
    __device__ __forceinline__ int tiles_of(int cluster, int clusters) const {
        return tiles() > cluster ? (tiles() - cluster + clusters - 1) / clusters : 0;
    }
};

template <class L> __host__ __device__ constexpr int partial_words(int features, int layers) {
    const int blocks = (features > 16 ? 4 : (features + 3) / 4) + L::kHidden / 8 * (2 * layers - 1);
    return blocks * L::kBlockWords;
}

__host__ __device__ inline int input_blocks(int features) {
    return features > 16 ? 4 : (features + 3) / 4;
}

// Place of feature f in x's 32-wide row: the first 16 features fill the k of the first mma.
__device__ __forceinline__ int feature_place(int f) {
    return f < 16 ? (f >> 2) * 8 + (f & 3) : (f - 16 >> 2) * 8 + 4 + (f & 3);
}

// fp16's loss scale before any overflow: d(loss)/dy is about 1 / B.
__host__ __device__ inline float first_loss_scale(int batch) {
    float scale = 8.0f;
    while (scale < 8.0f * (float)batch) {
        scale *= 2.0f;
    }
    return scale;
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
