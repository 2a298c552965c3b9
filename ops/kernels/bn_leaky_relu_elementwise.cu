// Output and grad_input element by element, from finished statistics and sums: all of evaluation,
// and the second pass of training where no single launch covers the shape.
//
// Policy: a thread keeps one channel (or one pack of channels), so the parameters stay in registers
// and the loop does nothing but stream.
#include "bn_leaky_relu_channel.cuh"
#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_parts.h"
#include "bn_leaky_relu_stream.cuh"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <type_traits>

namespace rp_kernels {
namespace {

// PACK elements as one access: 16 bytes, or a single element.
template <typename scalar_t, int PACK> struct Access {
    using Word = std::conditional_t<PACK == 1, scalar_t, uint4>;
    static __device__ __forceinline__ Word load(const void *array, int offset) {
        return __ldcg(
            reinterpret_cast<const Word *>(static_cast<const scalar_t *>(array) + offset));
    }
    static __device__ __forceinline__ void store(void *array, int offset, Word word) {
        *reinterpret_cast<Word *>(static_cast<scalar_t *>(array) + offset) = word;
    }
    static __device__ __forceinline__ void unpack(const Word &word, float (&value)[PACK]) {
        if constexpr (PACK == 1) {
            value[0] = Scalar<scalar_t>::widen(word);
        } else {
            Scalar<scalar_t>::unpack(word, value);
        }
    }
    static __device__ __forceinline__ Word pack(const float (&value)[PACK]) {
        if constexpr (PACK == 1) {
            return Scalar<scalar_t>::narrow(value[0]);
        } else {
            return Scalar<scalar_t>::pack(value);
        }
    }
};

// The element past the packs that this thread computes by itself, or -1.
template <int PACK, typename Tiling>
__device__ __forceinline__ int element_past_the_packs(const Tiling &tiling) {
    if constexpr (std::is_same_v<Tiling, FlatTiling>) {
        const int element = tiling.packs * PACK + blockIdx.x * THREADS + threadIdx.x;
        return blockIdx.x == 0 && element < tiling.elements ? element : -1;
    } else {
        return -1;
    }
}

// The channels of a thread's pack of a row, by all threads of the block: by way of shared memory,
// because a thread has too many to ask for each on its own.
template <int PACK, typename Params>
__device__ __forceinline__ void channels_of_tile(const Params &p, int channels,
                                                 Channel (&channel)[PACK]) {
    extern __shared__ float shared[]; // [4][channels of the tile]
    const int width = blockDim.x * PACK;
    const int first = blockIdx.y * width;
#pragma unroll 1
    for (int c = threadIdx.y * blockDim.x + threadIdx.x; c < min(width, channels - first);
         c += blockDim.x * blockDim.y) {
        const Channel one = channel_of(p, first + c);
        shared[c] = one.mean;
        shared[width + c] = one.invstd;
        shared[2 * width + c] = one.weight;
        shared[3 * width + c] = one.bias;
    }
    __syncthreads(); // the tile's channels are there
#pragma unroll
    for (int e = 0; e < PACK; e += 4) {
        const auto four = [&](int k) { // parameter k of channels e ... e + 3
            return *reinterpret_cast<const float4 *>(shared + k * width + threadIdx.x * PACK + e);
        };
        const float4 mean = four(0), invstd = four(1), weight = four(2), bias = four(3);
        channel[e] = {mean.x, invstd.x, weight.x, bias.x};
        channel[e + 1] = {mean.y, invstd.y, weight.y, bias.y};
        channel[e + 2] = {mean.z, invstd.z, weight.z, bias.z};
        channel[e + 3] = {mean.w, invstd.w, weight.w, bias.w};
    }
}

// The same where all parameters are floats, and aligned: by the thread itself.
template <int PACK>
__device__ __forceinline__ void channels_of_pack(const BnLeakyReluForward &p, int first,
                                                 Channel (&channel)[PACK]) {
    const auto four = [&](float missing, const void *array, int e) {
        return array ? *reinterpret_cast<const float4 *>(static_cast<const float *>(array) + first +
                                                         e)
                     : make_float4(missing, missing, missing, missing);
    };
#pragma unroll
    for (int e = 0; e < PACK; e += 4) {
        const float4 weight = four(1.0f, p.weight, e), bias = four(0.0f, p.bias, e);
        const float4 mean = four(0.0f, p.training ? p.mean : p.running_mean, e);
        float4 invstd = four(0.0f, p.training ? p.invstd : p.running_var, e);
        if (!p.training) {
            invstd = {inverse_deviation(invstd.x, p.eps), inverse_deviation(invstd.y, p.eps),
                      inverse_deviation(invstd.z, p.eps), inverse_deviation(invstd.w, p.eps)};
        }
        channel[e] = {mean.x, invstd.x, weight.x, bias.x};
        channel[e + 1] = {mean.y, invstd.y, weight.y, bias.y};
        channel[e + 2] = {mean.z, invstd.z, weight.z, bias.z};
        channel[e + 3] = {mean.w, invstd.w, weight.w, bias.w};
    }
}

// Packs that a thread has in flight.
template <typename Tiling> constexpr int IN_FLIGHT = UNROLL;
template <int TURNS> constexpr int IN_FLIGHT<RowsTiling<TURNS>> = TURNS;

// Whether the kernel of a tiling calls channels_of_tile, and needs its shared memory.
template <typename Tiling, int PACK> constexpr bool SHARES_CHANNELS = false;
template <int PACK> constexpr bool SHARES_CHANNELS<RowsTiling<UNROLL>, PACK> = (PACK > 1);

template <typename scalar_t, int PACK, typename Tiling>
__global__ void __launch_bounds__(THREADS, 4)
    elementwise_forward_kernel(const BnLeakyReluForward p, const Tiling tiling) {
    using Memory = Access<scalar_t, PACK>;
    assume_parameter_type<scalar_t>(p);
    if (const int last = element_past_the_packs<PACK>(tiling); last >= 0) {
        const float x = Scalar<scalar_t>::widen(static_cast<const scalar_t *>(p.input)[last]);
        static_cast<scalar_t *>(p.output)[last] = Scalar<scalar_t>::narrow(
            forward_value<scalar_t>(x, channel_of(p, last % tiling.channels), p.negative_slope));
    }
    constexpr int CHANNELS_HERE = CHANNELS<Tiling, PACK>;
    const Stream s = stream_of<PACK>(tiling);
    constexpr int AT_ONCE = IN_FLIGHT<Tiling>;
    typename Memory::Word word[AT_ONCE];
    const auto load = [&](int k) {
#pragma unroll
        for (int u = 0; u < AT_ONCE; ++u) {
            if (k + u < s.count) {
                word[u] = Memory::load(p.input, s.offset + (k + u) * s.stride);
            }
        }
    };
    load(0); // before the channels, so that both are waited for at once
    Channel channel[CHANNELS_HERE];
    if constexpr (SHARES_CHANNELS<Tiling, PACK>) {
        channels_of_tile<PACK>(p, tiling.channels, channel);
    } else if constexpr (AT_ONCE == 1) {
        channels_of_pack<PACK>(p, s.channel, channel);
    } else {
#pragma unroll
        for (int e = 0; e < CHANNELS_HERE; ++e) {
            channel[e] = channel_of(p, channel_at(tiling, s.channel, e));
        }
    }
    constexpr bool ONCE = AT_ONCE == 1 || std::is_same_v<Tiling, RowsTiling<UNROLL>>;
    for (int k = 0; k < (ONCE ? 1 : s.count); k += AT_ONCE) {
        if (k > 0) {
            load(k);
        }
#pragma unroll
        for (int u = 0; u < AT_ONCE; ++u) {
            if (k + u < s.count) {
                float value[PACK];
                Memory::unpack(word[u], value);
#pragma unroll
                for (int e = 0; e < PACK; ++e) {
                    value[e] = forward_value<scalar_t>(value[e], channel[e % CHANNELS_HERE],
                                                       p.negative_slope);
                }
                Memory::store(p.output, s.offset + (k + u) * s.stride, Memory::pack(value));
            }
        }
    }
}

// dx of each of eager mode's three formulas, with the coefficients of one channel.
struct RowsTraining {
    RowsGradient gradient;
    __device__ RowsTraining(const BnLeakyReluBackward &p, const Workspace &w, int channel,
                            const Channel &c, float reciprocal) {
        gradient = rows_gradient(w.sum[channel], w.dot[channel], c.weight, c.invstd, reciprocal);
    }
    __device__ float operator()(float centered, float dy) const {
        return grad_input_rows(centered, dy, gradient);
    }
};

struct PlanesTraining {
    PlanesGradient gradient;
    __device__ PlanesTraining(const BnLeakyReluBackward &p, const Workspace &w, int channel,
                              const Channel &c, float reciprocal) {
        gradient = planes_gradient(w.sum[channel], w.dot[channel], c.weight, c.invstd, reciprocal);
    }
    __device__ float operator()(float centered, float dy) const {
        return grad_input_planes(centered, dy, gradient);
    }
};

struct Evaluation {
    float weight, invstd;
    __device__ Evaluation(const BnLeakyReluBackward &, const Workspace &, int, const Channel &c,
                          float)
        : weight(c.weight), invstd(c.invstd) {}
    __device__ float operator()(float, float dy) const {
        return __fmul_rn(__fmul_rn(dy, weight), invstd);
    }
};

// Of the PLANES reduction in evaluation, which multiplies weight and 1 / sqrt first.
struct PlanesEvaluation {
    float scale;
    __device__ PlanesEvaluation(const BnLeakyReluBackward &p, const Workspace &, int channel,
                                const Channel &c, float) {
        scale = __fmul_rn(planes_invstd(p, channel), c.weight);
    }
    __device__ float operator()(float, float dy) const { return __fmul_rn(scale, dy); }
};

template <typename scalar_t, int PACK, typename Formula, typename Tiling>
__global__ void __launch_bounds__(THREADS)
    elementwise_backward_kernel(const BnLeakyReluBackward p, const Workspace workspace,
                                const Tiling tiling, float reciprocal) {
    using Memory = Access<scalar_t, PACK>;
    assume_parameter_type<scalar_t>(p);
    const auto grad_input = [&](int index, float x, float grad) {
        const Channel channel = channel_of(p, index);
        const Formula formula(p, workspace, index, channel, reciprocal);
        const float centered = center(x, channel);
        return formula(centered,
                       gradient_of_y<scalar_t>(centered, grad, channel, p.negative_slope));
    };
    if (const int last = element_past_the_packs<PACK>(tiling); last >= 0) {
        const float x = Scalar<scalar_t>::widen(static_cast<const scalar_t *>(p.input)[last]);
        const float grad =
            Scalar<scalar_t>::widen(static_cast<const scalar_t *>(p.grad_output)[last]);
        static_cast<scalar_t *>(p.grad_input)[last] =
            Scalar<scalar_t>::narrow(grad_input(last % tiling.channels, x, grad));
    }
    constexpr int CHANNELS_HERE = CHANNELS<Tiling, PACK>;
    const Stream s = stream_of<PACK>(tiling);
    if (s.count == 0) {
        return;
    }
    for (int k = 0; k < s.count; k += UNROLL) {
        typename Memory::Word word[UNROLL], grad_word[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            if (k + u < s.count) {
                word[u] = Memory::load(p.input, s.offset + (k + u) * s.stride);
                grad_word[u] = Memory::load(p.grad_output, s.offset + (k + u) * s.stride);
            }
        }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            if (k + u < s.count) {
                float value[PACK], grad[PACK];
                Memory::unpack(word[u], value);
                Memory::unpack(grad_word[u], grad);
#pragma unroll
                for (int e = 0; e < PACK; ++e) {
                    // Parameters are read again for each pack: from L1, and too many for registers.
                    const int index = channel_at(tiling, s.channel, e % CHANNELS_HERE);
                    value[e] = grad_input(index, value[e], grad[e]);
                }
                Memory::store(p.grad_input, s.offset + (k + u) * s.stride, Memory::pack(value));
            }
        }
    }
}

// Enough blocks to fill any GPU several times, few enough that each thread streams.
constexpr int64_t BLOCKS = 132 * 8 * 2;

template <int TURNS> struct RowsLaunch {
    RowsTiling<TURNS> tiling;
    dim3 grid, block;
};

template <int TURNS>
RowsLaunch<TURNS> rows_launch(const BnLeakyReluShape &shape, int pack, int threads) {
    const int rows = shape.images * shape.length;
    const int packs = shape.channels / pack;
    const int tiles = static_cast<int>(divide_up(packs, threads));
    const int columns = static_cast<int>(divide_up(packs, tiles));
    const int rows_at_once = threads / columns;
    const int64_t x = divide_up(rows, rows_at_once * TURNS);
    return {
        {rows, shape.channels}, dim3(static_cast<unsigned>(x), tiles), dim3(columns, rows_at_once)};
}

// Whether a thread takes one pack of ROWS, and loads its channels' parameters by itself: always
// where a pack has few channels, and while the data is so small that all of it is in flight at
// once.
bool takes_one_turn(const BnLeakyReluForward &p, int pack) {
    const int64_t most = pack <= 4 ? INT64_MAX : 132 * 1024; // packs
    const BnLeakyReluShape &shape = p.shape;
    const void *const parameters[] = {p.weight, p.bias, p.training ? p.mean : p.running_mean,
                                      p.training ? p.invstd : p.running_var};
    return shape.order == Order::ROWS && shape.channels % pack == 0 &&
           shape.parameter_type == DataType::FLOAT32 &&
           static_cast<int64_t>(shape.images) * shape.length * (shape.channels / pack) <= most &&
           std::all_of(std::begin(parameters), std::end(parameters), is_aligned);
}

struct PlanesLaunch {
    PlanesTiling tiling;
    dim3 grid, block;
};

PlanesLaunch planes_launch(const BnLeakyReluShape &shape, int pack) {
    const int planes = shape.images * shape.channels;
    const int packs = shape.length / pack;
    const int turns = static_cast<int>(divide_up(packs, THREADS));
    const int along = static_cast<int>(divide_up(packs, turns)); // none idle in the last turn
    const int at_once = THREADS / along;
    const int64_t x = divide_up(planes, at_once);
    const int64_t y = std::min<int64_t>(divide_up(turns, UNROLL), std::max<int64_t>(1, BLOCKS / x));
    return {{planes, shape.channels, shape.length, along},
            dim3(static_cast<unsigned>(x), static_cast<unsigned>(y)),
            dim3(static_cast<unsigned>(at_once * along))};
}

// Blocks whose threads are a multiple of the period of rows of `channels`; 0 when that is too many.
int flat_blocks(int channels, int pack) {
    const int period = channels / std::gcd(channels, pack);
    const int unit = period / std::gcd(period, THREADS);
    return unit > BLOCKS ? 0 : static_cast<int>(BLOCKS / unit * unit);
}

// Whether the data can be moved in packs of 16 bytes.
template <typename scalar_t> bool packs(const BnLeakyReluShape &shape, bool aligned) {
    constexpr int PACK = Scalar<scalar_t>::PACK;
    if (shape.order == Order::PLANES) {
        return aligned && shape.length % PACK == 0;
    }
    return aligned && (shape.channels % PACK == 0 || flat_blocks(shape.channels, PACK) > 0);
}

// launch(grid, block, tiling) with the tiling of the shape.
template <int PACK, typename Launch>
void with_tiling(const BnLeakyReluShape &shape, const Launch &launch) {
    if (shape.order == Order::PLANES) {
        const PlanesLaunch l = planes_launch(shape, PACK);
        launch(l.grid, l.block, l.tiling);
    } else if (shape.channels % PACK == 0) {
        const RowsLaunch l = rows_launch<UNROLL>(shape, PACK, THREADS);
        launch(l.grid, l.block, l.tiling);
    } else {
        const int elements = shape.images * shape.length * shape.channels;
        launch(dim3(flat_blocks(shape.channels, PACK)), dim3(THREADS),
               FlatTiling{elements / PACK, shape.channels, elements});
    }
}

template <typename scalar_t, int PACK>
void forward(const BnLeakyReluForward &p, cudaStream_t stream) {
    if constexpr (PACK > 1) {
        if (takes_one_turn(p, PACK)) {
            const RowsLaunch l =
                rows_launch<1>(p.shape, PACK, THREADS / 2); // for more multiprocessors
            elementwise_forward_kernel<scalar_t, PACK><<<l.grid, l.block, 0, stream>>>(p, l.tiling);
            return;
        }
    }
    with_tiling<PACK>(p.shape, [&](dim3 grid, dim3 block, auto tiling) {
        const size_t shared =
            SHARES_CHANNELS<decltype(tiling), PACK> ? block.x * PACK * sizeof(Channel) : 0;
        elementwise_forward_kernel<scalar_t, PACK><<<grid, block, shared, stream>>>(p, tiling);
    });
}

template <typename scalar_t, int PACK, typename Formula>
void backward_formula(const BnLeakyReluBackward &p, float reciprocal, cudaStream_t stream) {
    const Workspace w = workspace_of(p.shape, p.workspace);
    with_tiling<PACK>(p.shape, [&](dim3 grid, dim3 block, auto tiling) {
        elementwise_backward_kernel<scalar_t, PACK, Formula>
            <<<grid, block, 0, stream>>>(p, w, tiling, reciprocal);
    });
}

template <typename scalar_t, int PACK>
void backward(const BnLeakyReluBackward &p, cudaStream_t stream) {
    const int64_t values = static_cast<int64_t>(p.shape.images) * p.shape.length;
    const bool sums = p.grad_weight || p.grad_bias;
    if (p.training && p.sum_order == Order::ROWS) {
        backward_formula<scalar_t, PACK, RowsTraining>(p, rows_reciprocal(values), stream);
    } else if (p.training) {
        // The PLANES formula divides in float32.
        backward_formula<scalar_t, PACK, PlanesTraining>(p, 1.0f / static_cast<float>(values),
                                                         stream);
    } else if (sums && p.sum_order == Order::PLANES) {
        backward_formula<scalar_t, PACK, PlanesEvaluation>(p, 0.0f, stream);
    } else {
        backward_formula<scalar_t, PACK, Evaluation>(p, 0.0f, stream);
    }
}

} // namespace

cudaError_t launch_elementwise_forward(const BnLeakyReluForward &params, cudaStream_t stream) {
    const bool aligned = is_aligned(params.input) && is_aligned(params.output);
    return for_type(params.shape.data_type, [&](auto type) {
        using scalar_t = decltype(type);
        if (packs<scalar_t>(params.shape, aligned)) {
            forward<scalar_t, Scalar<scalar_t>::PACK>(params, stream);
        } else {
            forward<scalar_t, 1>(params, stream);
        }
    });
}

cudaError_t launch_elementwise_backward(const BnLeakyReluBackward &params, cudaStream_t stream) {
    const bool aligned =
        is_aligned(params.input) && is_aligned(params.grad_output) && is_aligned(params.grad_input);
    return for_type(params.shape.data_type, [&](auto type) {
        using scalar_t = decltype(type);
        if (packs<scalar_t>(params.shape, aligned)) {
            backward<scalar_t, Scalar<scalar_t>::PACK>(params, stream);
        } else {
            backward<scalar_t, 1>(params, stream);
        }
    });
}

} // namespace rp_kernels
