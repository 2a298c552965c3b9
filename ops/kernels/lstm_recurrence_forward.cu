// Forward: see lstm_recurrence.cuh.
#include "lstm_recurrence.cuh"

namespace rp_recurrence {
namespace {

// W_hh with power_scale. Rows of a fragment: gates i and f of 8 units, or g and o.
template <int H>
__device__ __forceinline__ void load_forward(Fragment (&w)[H / 32][2][2], const float *weight,
                                             const Place<H> &place) {
#pragma unroll
    for (int j = 0; j < H / 32; ++j) {
#pragma unroll
        for (int gate = 0; gate < 4; ++gate) {
            const auto *row = reinterpret_cast<const float4 *>(
                weight + (gate * H + place.unit) * H + 32 * j + 8 * place.q);
            const float scale = power_scale(gate);
#pragma unroll
            for (int s = 0; s < 2; ++s) {
                const float4 k = __ldg(row + s);
                w[j][gate / 2][s].set(gate % 2, Split(scale * k.x, scale * k.y));
                w[j][gate / 2][s].set(gate % 2 + 2, Split(scale * k.z, scale * k.w));
            }
        }
    }
}

template <int H> struct ForwardShared {
    uint16_t tiles[2][2][kRows][H];            // h: of either turn, high and low
    float projected[kAhead][kRows][4 * H + 4]; // padded: a warp's reads touch each bank once
};

template <int H, int kBlocksPerSm>
__global__ void __launch_bounds__(4 * H, kBlocksPerSm)
    lstm_recurrence_forward_kernel(const __grid_constant__ rp_lstm_recurrence_forward p) {
    __shared__ __align__(16) ForwardShared<H> shared;
    const Place<H> place(p.shape.batch);
    Fragment w[H / 32][2][2];
    load_forward<H>(w, p.weight, place);
    float bias[4], c[2], h[2];
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) {
        bias[gate] = power_scale(gate) *
                     (p.bias_ih[gate * H + place.unit] + p.bias_hh[gate * H + place.unit]);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        c[e] = place.read(p.c_0, e);
        h[e] = place.read(p.h_0, e);
    }
    // Each fetch is a group of copies, empty ones included: a thread copies chunks of two rows.
    const int copied = threadIdx.x / H, column = threadIdx.x % H * 4;
    const int64_t step = (int64_t)p.shape.batch * 4 * H;
    const int first = min(blockIdx.x * kRows + copied, p.shape.batch - 1);
    const int second = min(first + kRows / 2, p.shape.batch - 1);
    const float *source = p.projected + (int64_t)first * 4 * H + column;
    auto fetch = [&](int t) {
        if (t < p.shape.time_steps) {
            float *to = &shared.projected[slot(t)][copied][column];
            __pipeline_memcpy_async(to, source, 16);
            __pipeline_memcpy_async(to + kRows / 2 * (4 * H + 4), source + (second - first) * 4 * H,
                                    16);
        }
        source += step;
        __pipeline_commit();
    };
    auto publish = [&](uint16_t(&tile)[2][kRows][H]) {
        const Split rows(h[0], h[1]);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int n = 2 * place.q + e;
            const int k = (place.unit / 8 ^ hidden_swizzle<H>(n)) * 8 | place.unit % 8;
            tile[0][n][k] = static_cast<uint16_t>(rows.high >> 16 * e);
            tile[1][n][k] = static_cast<uint16_t>(rows.low >> 16 * e);
        }
    };
    for (int t = 0; t < kAhead - 1; ++t) {
        fetch(t);
    }
    publish(shared.tiles[0]);
    float *output = p.output + place.at(0, H);
    auto *saved = reinterpret_cast<SavedStep<H> *>(p.saved) + blockIdx.x;
    auto advance = [&](int t, int turn) {
        __pipeline_wait_prior(kAhead - 2);
        __syncthreads(); // h(t-1) and projected(t) are there; nobody reads those before them
        fetch(t + kAhead - 1);
        Sum sum[2]; // gates i and f, g and o
        auto load = [&](int part, int j) {
            const int chunk = 4 * j + place.q ^ hidden_swizzle<H>(place.g);
            return *reinterpret_cast<const uint4 *>(&shared.tiles[turn][part][place.g][chunk * 8]);
        };
#pragma unroll
        for (int j = 0; j < H / 32; ++j) {
            const uint4 high = load(0, j), low = load(1, j);
            sum[0].add(w[j][0], high, low);
            sum[1].add(w[j][1], high, low);
        }
        float4 gates[2];
        const float2 before = make_float2(c[0], c[1]);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const float *projected = &shared.projected[slot(t)][2 * place.q + e][place.unit];
            float x[4];
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) {
                x[gate] = fmaf(power_scale(gate), projected[gate * H], bias[gate]) +
                          sum[gate / 2][gate % 2 * 2 + e];
            }
            const float2 i_f = sigmoids_of_powers(x[0], x[1]);
            const float2 g_o = sigmoids_of_powers(x[2], x[3]);
            gates[e] = make_float4(i_f.x, i_f.y, tanh_of_sigmoid(g_o.x), g_o.y);
            c[e] = fmaf(gates[e].y, c[e], gates[e].x * gates[e].z);
        }
        const float2 tanh_c = tanh_of_cells(c);
        h[0] = gates[0].w * tanh_c.x;
        h[1] = gates[1].w * tanh_c.y;
        publish(shared.tiles[turn ^ 1]);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            if (place.has(e)) {
                output[e * H] = h[e];
            }
        }
        output += step / 4;
        if (p.saved) {
            saved->gates[0][threadIdx.x] = gates[0];
            saved->gates[1][threadIdx.x] = gates[1];
            saved->before[threadIdx.x] = before;
            saved += gridDim.x;
        }
    };
#pragma unroll 1
    for (int t = 0; t < p.shape.time_steps; t += 2) {
        advance(t, 0);
        if (t + 1 < p.shape.time_steps) {
            advance(t + 1, 1);
        }
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        if (place.has(e)) {
            p.h_n[place.at(e, H)] = h[e];
            p.c_n[place.at(e, H)] = c[e];
        }
    }
}

template <int H>
cudaError_t launch_forward(const rp_lstm_recurrence_forward &params, cudaStream_t stream) {
    return launch<H>(params, lstm_recurrence_forward_kernel<H, 1>,
                     lstm_recurrence_forward_kernel<H, 128 / H>, 0, stream);
}

} // namespace
} // namespace rp_recurrence

cudaError_t rp_launch_lstm_recurrence_forward(const rp_lstm_recurrence_forward *params,
                                              cudaStream_t stream) {
    switch (params->shape.hidden) {
    case 32:
        return rp_recurrence::launch_forward<32>(*params, stream);
    case 64:
        return rp_recurrence::launch_forward<64>(*params, stream);
    default:
        return cudaErrorInvalidValue;
    }
}
