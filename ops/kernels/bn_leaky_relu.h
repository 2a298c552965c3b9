// BatchNorm + LeakyReLU on CUDA: the parameters of the kernels and the functions that launch them.
//
// Policy: the result has the bits of PyTorch's own two operators. Every rounding and every order of
// summation is eager mode's (aten/src/ATen/native/cuda/Normalization.cuh); only the traffic is not.
// No torch header here: pointers to device memory come in, a cudaError_t goes out.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace rp_kernels {

enum class DataType { FLOAT32, FLOAT16, BFLOAT16 };

// How one channel lies in memory, which also decides eager mode's order of summation.
enum class Order {
    ROWS,  // [images * length][channels]: 2-D, and channels_last
    PLANES // [images][channels][length]: contiguous 3-D and more
};

struct BnLeakyReluShape {
    DataType data_type;      // of input, output and their gradients
    DataType parameter_type; // of weight, bias, running statistics and the gradients of parameters
    Order order;             // of the data in memory, and of the sums
    int images;              // N
    int channels;            // C
    int length;              // L, elements of a channel in one image; N * C * L < 2^31
};

// Every pointer is device memory of the current device, and the caller's.
struct BnLeakyReluForward {
    BnLeakyReluShape shape;
    const void *input;  // [N * C * L]
    void *output;       // [N * C * L]
    const void *weight; // [C], or null for ones
    const void *bias;   // [C], or null for zeros
    void *running_mean; // [C], updated in training; null there: not tracked
    void *running_var;  // [C]
    float *mean;        // [C], written in training
    float *invstd;      // [C], written in training
    void *kept_bias;    // [C], written in training: a copy of the bias; or null
    void *workspace;    // bn_leaky_relu_workspace bytes
    bool training;
    float momentum, eps, negative_slope;
};

struct BnLeakyReluBackward {
    BnLeakyReluShape shape;
    Order sum_order;          // PLANES data of one channel are summed as ROWS of [N * L][1]
    const void *grad_output;  // [N * C * L], laid out as the input
    const void *input;        // [N * C * L]
    const void *weight;       // [C], or null for ones
    const void *bias;         // [C], or null for zeros
    const void *running_mean; // [C], read in evaluation
    const void *running_var;  // [C], read in evaluation
    const float *mean;        // [C], read in training
    const float *invstd;      // [C], read in training
    void *grad_input;         // [N * C * L], or null
    void *grad_weight;        // [C], or null
    void *grad_bias;          // [C], or null
    void *workspace;          // bn_leaky_relu_workspace bytes
    bool training;
    float eps, negative_slope;
};

// Bytes of scratch memory that either direction needs; contents need not be initialised.
size_t bn_leaky_relu_workspace(const BnLeakyReluShape &shape);

cudaError_t launch_bn_leaky_relu_forward(const BnLeakyReluForward &params, cudaStream_t stream);
cudaError_t launch_bn_leaky_relu_backward(const BnLeakyReluBackward &params, cudaStream_t stream);

} // namespace rp_kernels
