// Packs a model's weights into the tiles that the kernels read, and lays out a thread's buffers.
#pragma once

#include <cstdlib>
#include <new>
#include <vector>

#include "kernels/lstm_cpu_kernels.h"

namespace rp {

// Whole cache lines; large buffers on whole huge pages, so that the kernel may use those.
template <typename T> struct AlignedAllocator {
    using value_type = T;
    AlignedAllocator() = default;
    template <typename U> AlignedAllocator(const AlignedAllocator<U> &) {}
    T *allocate(size_t count) {
        const size_t huge_page = size_t{2} << 20;
        const size_t bytes = count * sizeof(T), alignment = bytes < huge_page ? 64 : huge_page;
        void *memory =
            std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
        if (!memory) {
            throw std::bad_alloc();
        }
        return static_cast<T *>(memory);
    }
    void deallocate(T *memory, size_t) { std::free(memory); }
    bool operator==(const AlignedAllocator &) const { return true; }
};
using AlignedFloats = std::vector<float, AlignedAllocator<float>>;

// What the packed weights are for: each use reads other tiles.
enum class LstmCpuUse { inference, training };

class LstmCpuWeights {
  public:
    LstmCpuWeights(const LstmCpuShape &shape, const LstmCpuKernels &kernels, LstmCpuUse use);
    LstmCpuWeights(LstmCpuWeights &&) = default; // a copy would point into the original

    // Packs part `part` of `parts` equal parts of the units; all parts together are the whole.
    void pack(const float *parameters, int64_t part, int64_t parts);
    // Inference: by the running statistics.
    void set_norm(const float *running_mean, const float *running_var, float eps);

    LstmCpuModel model; // points into this object's own memory

  private:
    void pack_unit(const float *layer_parameters, int64_t layer, int64_t unit);
    void pack_lane(const float *layer_parameters, int64_t layer, int64_t unit);
    void pack_columns(const float *layer_parameters, int64_t layer, int64_t unit);

    const LstmCpuKernels &kernels_;
    LstmCpuUse use_;
    AlignedFloats memory_;
};

int64_t lstm_cpu_layer_inputs(const LstmCpuShape &shape, int64_t layer);

// Offset of a layer's parameters in PyTorch's order; of the head for layer = L.
int64_t lstm_cpu_layer_offset(const LstmCpuShape &shape, int64_t layer);
int64_t lstm_cpu_parameter_count(const LstmCpuShape &shape);

// Columns of a layer's dW rows: U of h, then K of the input, rounded up to whole vectors.
int64_t lstm_cpu_gradient_columns(const LstmCpuModel &model, const LstmCpuKernels &kernels,
                                  int64_t layer);

// Buffers of one thread, all zero.
class LstmCpuBuffers {
  public:
    LstmCpuBuffers(const LstmCpuModel &model, const LstmCpuKernels &kernels, LstmCpuUse use);
    LstmCpuBuffers(LstmCpuBuffers &&) = default;
    LstmCpuWork work;

  private:
    AlignedFloats memory_;
};

} // namespace rp
