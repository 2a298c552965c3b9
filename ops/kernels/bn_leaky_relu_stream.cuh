// How the tensor is dealt to the threads of a kernel that goes over it element by element: by rows,
// by planes, or as one run. A pack is what one access moves: 16 bytes, or a single element.
#pragma once

#include <type_traits>

namespace rp_kernels {

constexpr int THREADS = 256;
constexpr int UNROLL = 4;

// Where a thread works: `count` packs, the first at `offset`, `stride` elements apart, all of
// channels channel ... channel + CHANNELS - 1.
struct Stream {
    int offset, stride;
    int count, channel;
};

// ROWS: a block of (packs of a row, rows at once) takes TURNS times its rows. Many short-lived
// blocks, each on a run of rows, stream faster than few that walk far apart.
template <int TURNS> struct RowsTiling { int rows, channels; };

template <int PACK, int TURNS>
__device__ __forceinline__ Stream rows_stream(const RowsTiling<TURNS> &tiling) {
    const int rows_at_once = blockDim.y;
    const int channel = (blockIdx.y * blockDim.x + threadIdx.x) * PACK;
    const int row = blockIdx.x * rows_at_once * TURNS + threadIdx.y;
    if (channel >= tiling.channels || row >= tiling.rows) {
        return {0, 0, 0, 0};
    }
    return {row * tiling.channels + channel, rows_at_once * tiling.channels,
            TURNS == 1 ? 1 : min(TURNS, 1 + (tiling.rows - 1 - row) / rows_at_once), channel};
}

// PLANES: `along` threads share a plane; the block's other threads take the next planes.
struct PlanesTiling {
    int planes, channels, length, along;
};

template <int PACK> __device__ __forceinline__ Stream planes_stream(const PlanesTiling &tiling) {
    const int plane = blockIdx.x * (THREADS / tiling.along) + threadIdx.x / tiling.along;
    const int chunks = gridDim.y; // blocks that share a plane
    const int start = (blockIdx.y * tiling.along + threadIdx.x % tiling.along) * PACK;
    const int step = chunks * tiling.along * PACK;
    if (plane >= tiling.planes || start >= tiling.length) {
        return {0, 0, 0, 0};
    }
    return {plane * tiling.length + start, step, 1 + (tiling.length - 1 - start) / step,
            plane % tiling.channels};
}

// ROWS whose length is no multiple of a pack: the tensor as one run of packs. The number of threads
// is a multiple of the rows' period, so that a thread meets the same channels in every pack.
struct FlatTiling {
    int packs, channels;
    int elements; // what is past the packs is computed one by one
};

template <int PACK> __device__ __forceinline__ Stream flat_stream(const FlatTiling &tiling) {
    const int first = blockIdx.x * THREADS + threadIdx.x;
    const int step = gridDim.x * THREADS;
    if (first >= tiling.packs) {
        return {0, 0, 0, 0};
    }
    return {first * PACK, step * PACK, 1 + (tiling.packs - 1 - first) / step,
            first * PACK % tiling.channels};
}

template <int PACK> __device__ __forceinline__ Stream stream_of(const FlatTiling &tiling) {
    return flat_stream<PACK>(tiling);
}
template <int PACK, int TURNS>
__device__ __forceinline__ Stream stream_of(const RowsTiling<TURNS> &tiling) {
    return rows_stream<PACK>(tiling);
}
template <int PACK> __device__ __forceinline__ Stream stream_of(const PlanesTiling &tiling) {
    return planes_stream<PACK>(tiling);
}

// Channels that a pack touches: all different in ROWS, one in PLANES.
template <typename Tiling, int PACK> constexpr int CHANNELS = 1;
template <int PACK, int TURNS> constexpr int CHANNELS<RowsTiling<TURNS>, PACK> = PACK;
template <int PACK> constexpr int CHANNELS<FlatTiling, PACK> = PACK;

// Channel of element e of a pack whose first one is `first`.
template <typename Tiling>
__device__ __forceinline__ int channel_at(const Tiling &tiling, int first, int e) {
    if constexpr (std::is_same_v<Tiling, FlatTiling>) {
        return (first + e) % tiling.channels;
    } else {
        return first + e;
    }
}

} // namespace rp_kernels
