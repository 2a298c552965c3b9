// Backward: see lstm_recurrence.cuh.
#include "lstm_recurrence.cuh"

namespace rp_recurrence {
namespace {

// Rows of a fragment: W_hh's columns of the 16 units of this warp and its neighbour. k: the gates
// of 4 units of this warp's half, lane by lane those of 2.
template <int H>
__device__ __forceinline__ void load_backward(Fragment (&w)[H / 16][2], const float *weight,
                                              const Place<H> &place) {
    const int column = place.warp / 2 * 16 + place.g;
#pragma unroll
    for (int j = 0; j < H / 16; ++j) {
#pragma unroll
        for (int s = 0; s < 2; ++s) {
            const int unit = (place.warp % 2 * (H / 16) + j) * 8 + 2 * place.q + s;
#pragma unroll
            for (int k = 0; k < 4; ++k) { // columns, then 8 on; gates i and f, then g and o
                const float *from = weight + (k / 2 * 2 * H + unit) * H + column + k % 2 * 8;
                w[j][s].set(k, Split(__ldg(from), __ldg(from + H * H)));
            }
        }
    }
}

// One time step's inputs of backward, as they arrive in shared memory.
template <int H> struct Arrival {
    SavedStep<H> saved;
    float grad_output[2][4 * H];
};

template <int H> struct BackwardShared {
    Arrival<H> ring[kAhead];
    uint16_t tiles[2][2][kRows][4 * H]; // d(gates), k = 4 * unit + gate: either turn, high and low
    float2 exchange[4 * H];             // sums for the neighbouring warp
};

// Of one cell's gate gradients in dh and dc: with d = dc + dh c, di = d i, df = d f, dg = d g,
// do = dh o, dc(t-1) = d forget.
struct Coefficients {
    float i, f, g, o, c, forget;
    Coefficients() = default;
    __device__ __forceinline__ Coefficients(float4 gates, float tanh_c, float before)
        : i(gates.z * fmaf(-gates.x, gates.x, gates.x)),
          f(before * fmaf(-gates.y, gates.y, gates.y)), g(gates.x * fmaf(-gates.z, gates.z, 1.0f)),
          o(tanh_c * fmaf(-gates.w, gates.w, gates.w)), c(gates.w * fmaf(-tanh_c, tanh_c, 1.0f)),
          forget(gates.y) {}
};

// W_hh^T d(gates) of this thread's unit, for its two rows. `meanwhile` fills the time of the mma.
template <int H, class Meanwhile>
__device__ __forceinline__ float2 multiply(const Fragment (&w)[H / 16][2],
                                           const uint16_t (&tile)[2][kRows][4 * H],
                                           float2 *exchange, const Place<H> &place,
                                           const Meanwhile &meanwhile) {
    Sum sum;
    const int half = place.warp % 2;
#pragma unroll
    for (int j = 0; j < H / 16; ++j) {
        const int chunk = (half * (H / 16) + j) * 4 + place.q ^ swizzle(place.g);
        sum.add(w[j], *reinterpret_cast<const uint4 *>(&tile[0][place.g][chunk * 8]),
                *reinterpret_cast<const uint4 *>(&tile[1][place.g][chunk * 8]));
    }
    meanwhile();
    const float2 low = make_float2(sum[0], sum[1]), high = make_float2(sum[2], sum[3]);
    exchange[threadIdx.x ^ 32] = half ? low : high;
    // The two warps have handed over their sums.
    asm volatile("bar.sync %0,64;" ::"r"(1 + place.warp / 2) : "memory");
    const float2 own = half ? high : low, other = exchange[threadIdx.x];
    return make_float2(own.x + other.x, own.y + other.y);
}

template <int H, int kBlocksPerSm>
__global__ void __launch_bounds__(4 * H, kBlocksPerSm)
    lstm_recurrence_backward_kernel(const __grid_constant__ rp_lstm_recurrence_backward p) {
    extern __shared__ __align__(16) unsigned char memory[];
    auto &shared = *reinterpret_cast<BackwardShared<H> *>(memory);
    const Place<H> place(p.shape.batch);
    const int last = p.shape.time_steps - 1, id = threadIdx.x;
    Fragment w[H / 16][2];
    load_backward<H>(w, p.weight, place);

    // Each fetch is a group of copies, empty ones included; the first is of the last time step. A
    // slot is read only by the thread that fills it.
    bool given[2]; // grad_output
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        given[e] = p.grad_output && place.has(e);
        for (int k = 0; k < kAhead; ++k) {
            shared.ring[k].grad_output[e][id] = 0.0f;
        }
    }
    const auto *saved =
        reinterpret_cast<const SavedStep<H> *>(p.saved) + (int64_t)last * gridDim.x + blockIdx.x;
    const float *grad_output =
        p.grad_output + last * p.time_stride + place.row * p.row_stride + place.unit;
    auto fetch = [&](int t) {
        if (t >= 0) {
            Arrival<H> &to = shared.ring[slot(t)];
            __pipeline_memcpy_async(&to.saved.gates[0][id], &saved->gates[0][id], 16);
            __pipeline_memcpy_async(&to.saved.gates[1][id], &saved->gates[1][id], 16);
            __pipeline_memcpy_async(&to.saved.before[id], &saved->before[id], 8);
            if (given[0]) {
                __pipeline_memcpy_async(&to.grad_output[0][id], grad_output, 4);
            }
            if (given[1]) {
                __pipeline_memcpy_async(&to.grad_output[1][id], grad_output + p.row_stride, 4);
            }
            saved -= gridDim.x;
            grad_output -= p.time_stride;
        }
        __pipeline_commit();
    };
    Coefficients coefficients[2];
    float cell[2], outside[2], dh[2], dc[2], bias[4] = {}; // outside: grad_output
    auto arrive = [&](int t) {
        __pipeline_wait_prior(kAhead - 1);
        const Arrival<H> &arrival = shared.ring[slot(t)];
        const float4 gates[2] = {arrival.saved.gates[0][id], arrival.saved.gates[1][id]};
        const float2 before = arrival.saved.before[id];
        if (t == last) {
            cell[0] = fmaf(gates[0].y, before.x, gates[0].x * gates[0].z); // forward's own bits
            cell[1] = fmaf(gates[1].y, before.y, gates[1].x * gates[1].z);
        }
        const float2 tanh_c = tanh_of_cells(cell);
        coefficients[0] = Coefficients(gates[0], tanh_c.x, before.x);
        coefficients[1] = Coefficients(gates[1], tanh_c.y, before.y);
        cell[0] = before.x;
        cell[1] = before.y;
        outside[0] = arrival.grad_output[0][id];
        outside[1] = arrival.grad_output[1][id];
        fetch(t - kAhead);
    };
    for (int t = last; t > last - kAhead; --t) {
        fetch(t);
    }
    arrive(last);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        dh[e] = place.read(p.grad_h_n, e) + outside[e];
        dc[e] = place.read(p.grad_c_n, e);
    }
#pragma unroll 1
    for (int t = last; t >= 0; --t) {
        uint16_t(&tile)[2][kRows][4 * H] = shared.tiles[t % 2];
        float *grad = p.grad_projected + (int64_t)t * p.shape.batch * 4 * H + place.at(0, 4 * H);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const Coefficients &to = coefficients[e];
            const float d = fmaf(dh[e], to.c, dc[e]);
            const float gates[4] = {d * to.i, d * to.f, d * to.g, dh[e] * to.o};
            dc[e] = d * to.forget;
            const int n = 2 * place.q + e;
            const int k = (place.unit / 2 ^ swizzle(n)) * 8 | place.unit % 2 * 4;
            const Split first(gates[0], gates[1]), second(gates[2], gates[3]);
            *reinterpret_cast<uint2 *>(&tile[0][n][k]) = make_uint2(first.high, second.high);
            *reinterpret_cast<uint2 *>(&tile[1][n][k]) = make_uint2(first.low, second.low);
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) {
                bias[gate] += gates[gate];
                if (place.has(e)) {
                    grad[(e * 4 + gate) * H] = gates[gate];
                }
            }
        }
        __syncthreads(); // d(gates) of all units are in the tile, and the exchange has been read
        // After step 0, what arrives from slot(-1) is of no use.
        const float2 sum = multiply<H>(w, tile, shared.exchange, place, [&] { arrive(t - 1); });
        dh[0] = sum.x + (t > 0 ? outside[0] : 0.0f);
        dh[1] = sum.y + (t > 0 ? outside[1] : 0.0f);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        if (place.has(e)) {
            p.grad_h_0[place.at(e, H)] = dh[e];
            p.grad_c_0[place.at(e, H)] = dc[e];
        }
    }
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) {
        float sum = bias[gate]; // over the rows: lanes of the same g
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (place.q == 0) {
            p.grad_bias[blockIdx.x * 4 * H + gate * H + place.unit] = sum;
        }
    }
}

template <int H>
cudaError_t launch_backward(const rp_lstm_recurrence_backward &params, cudaStream_t stream) {
    return launch<H>(params, lstm_recurrence_backward_kernel<H, 1>,
                     lstm_recurrence_backward_kernel<H, 128 / H>, sizeof(BackwardShared<H>),
                     stream);
}

} // namespace
} // namespace rp_recurrence

cudaError_t rp_launch_lstm_recurrence_backward(const rp_lstm_recurrence_backward *params,
                                               cudaStream_t stream) {
    switch (params->shape.hidden) {
    case 32:
        return rp_recurrence::launch_backward<32>(*params, stream);
    case 64:
        return rp_recurrence::launch_backward<64>(*params, stream);
    default:
        return cudaErrorInvalidValue;
    }
}
