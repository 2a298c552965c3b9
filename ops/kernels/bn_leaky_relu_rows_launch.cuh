// Launching the single-launch ROWS kernels: the tile for a shape, and a grid that is resident.
#pragma once

#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_parts.h"
#include "bn_leaky_relu_rows_tile.cuh"

#include <algorithm>

namespace rp_kernels {

// Compile-time choices of one variant. The queue of each slot holds DEPTH rows; STREAMS: a slot may
// have more. GRID: the blocks exchange partial results through a grid-wide barrier.
template <int TILE_, int DEPTH_, bool STREAMS_, int MINIMUM_RESIDENT_, bool GRID_>
struct RowsVariant {
    static constexpr int TILE = TILE_;
    static constexpr bool STREAMS = STREAMS_;
    static constexpr int DEPTH = DEPTH_;
    static constexpr int MINIMUM_RESIDENT = MINIMUM_RESIDENT_; // thread blocks a multiprocessor
    static constexpr bool GRID = GRID_;
};

// Rows that a slot of the longest chain takes.
inline int longest_slot(int rows, int blocks) {
    return static_cast<int>(divide_up(rows, CHAINS * SLOTS * blocks));
}

// The single-launch kernels move 16 bytes at a time and know blocks of 16 chains.
template <typename scalar_t>
bool rows_tile_fits(const BnLeakyReluShape &shape, const RowGrid &grid, bool aligned) {
    return aligned && grid.block_rows == CHAINS && shape.channels % Scalar<scalar_t>::PACK == 0;
}

// A cooperative launch when the blocks wait for each other: the driver then guarantees that all of
// them run at once, or refuses.
template <typename scalar_t, typename Variant, typename Kernel, typename Params>
cudaError_t launch_rows_variant(ResidentBlocks &resident, Kernel kernel, const Params &params,
                                int tensors, cudaStream_t stream, float constant) {
    constexpr int THREADS = RowTile<scalar_t, Variant::TILE>::THREADS;
    const int rows = params.shape.images * params.shape.length;
    const RowGrid grid = row_grid(rows, params.shape.channels);
    const size_t shared = static_cast<size_t>(Variant::DEPTH) * THREADS * sizeof(uint4) * tensors +
                          sizeof(TileScratch<Variant::TILE>);
    int capacity = 0;
    const cudaError_t error = resident.ask(&capacity, kernel, THREADS, shared);
    if (error != cudaSuccess) {
        return error;
    }
    const int tiles = static_cast<int>(divide_up(params.shape.channels, Variant::TILE));
    const int sets = Variant::GRID ? std::min(tiles, capacity / grid.blocks) : tiles;
    if (sets == 0) {
        return cudaErrorNotSupported;
    }
    const Workspace workspace = workspace_of(params.shape, params.workspace);
    const RowsWork work =
        rows_work(rows, params.shape.channels, grid.blocks, tiles, sets, workspace);
    cudaLaunchAttribute cooperative = {};
    cooperative.id = cudaLaunchAttributeCooperative;
    cooperative.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(grid.blocks, sets);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &cooperative;
    config.numAttrs = Variant::GRID ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, params, work, constant);
}

} // namespace rp_kernels
