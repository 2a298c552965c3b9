#include "kernels/lstm_cpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/lstm_cpu_weights.h"

namespace rp {
namespace {

bool machine_has(LstmCpuIsa isa) {
#if defined(__x86_64__)
    switch (isa) {
    case LstmCpuIsa::avx512:
        return lstm_cpu_kernels_avx512() && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    case LstmCpuIsa::avx2:
        return lstm_cpu_kernels_avx2() && __builtin_cpu_supports("avx2") &&
               __builtin_cpu_supports("fma");
    default:
        return true;
    }
#else
    return isa == LstmCpuIsa::portable;
#endif
}

} // namespace

LstmCpuIsa lstm_cpu_best_isa() {
    const char *allowed = std::getenv("RP_ISA");
    const bool portable_only = allowed && std::strcmp(allowed, "portable") == 0;
    const bool avx2_at_most = allowed && std::strcmp(allowed, "avx2") == 0;
    if (!portable_only && !avx2_at_most && machine_has(LstmCpuIsa::avx512)) {
        return LstmCpuIsa::avx512;
    }
    if (!portable_only && machine_has(LstmCpuIsa::avx2)) {
        return LstmCpuIsa::avx2;
    }
    return LstmCpuIsa::portable;
}

const LstmCpuKernels &lstm_cpu_kernels(LstmCpuIsa isa) {
    if (isa == LstmCpuIsa::avx512 && machine_has(isa)) {
        return *lstm_cpu_kernels_avx512();
    }
    if (isa != LstmCpuIsa::portable && machine_has(LstmCpuIsa::avx2)) {
        return *lstm_cpu_kernels_avx2();
    }
    return *lstm_cpu_kernels_portable();
}

struct LstmCpu::Packed {
    const LstmCpuKernels &kernels;
    LstmCpuWeights weights;
};

struct LstmCpu::Scratch::Buffers {
    LstmCpuBuffers buffers;
};

LstmCpu::LstmCpu(const LstmCpuShape &shape, const float *parameters, const float *running_mean,
                 const float *running_var, float eps, float negative_slope, LstmCpuIsa isa) {
    const LstmCpuKernels &kernels = lstm_cpu_kernels(isa);
    packed_.reset(new Packed{kernels, LstmCpuWeights(shape, kernels, LstmCpuUse::inference)});
    packed_->weights.pack(parameters, 0, 1);
    packed_->weights.set_norm(running_mean, running_var, eps);
    packed_->weights.model.negative_slope = negative_slope;
}

LstmCpu::~LstmCpu() = default;
LstmCpu::LstmCpu(LstmCpu &&) noexcept = default;
LstmCpu &LstmCpu::operator=(LstmCpu &&) noexcept = default;

LstmCpu::Scratch::Scratch(const LstmCpu &model)
    : buffers_(new Buffers{LstmCpuBuffers(model.packed_->weights.model, model.packed_->kernels,
                                          LstmCpuUse::inference)}) {}

LstmCpu::Scratch::~Scratch() = default;
LstmCpu::Scratch::Scratch(Scratch &&) noexcept = default;
LstmCpu::Scratch &LstmCpu::Scratch::operator=(Scratch &&) noexcept = default;

const LstmCpuShape &LstmCpu::shape() const {
    return packed_->weights.model.shape;
}

void LstmCpu::run(float *out, Scratch &scratch, const float *features, const int32_t *window_ends,
                  int64_t windows) const {
    const LstmCpuKernels &kernels = packed_->kernels;
    const LstmCpuModel &model = packed_->weights.model;
    const LstmCpuWork &work = scratch.buffers_->buffers.work;
    for (int64_t first = 0; first < windows; first += kernels.slice) {
        const int64_t count = std::min(kernels.slice, windows - first);
        if (count == 1) {
            kernels.predict_single(out + first, model, work, features, window_ends[first]);
        } else {
            kernels.predict_rows(out + first, model, work,
                                 {features, window_ends + first, count, first});
        }
    }
}

void LstmCpu::run_sequences(const Sequences &out, Scratch &scratch, const float *features,
                            int64_t first, int64_t last) const {
    const LstmCpuKernels &kernels = packed_->kernels;
    const LstmCpuModel &model = packed_->weights.model;
    const LstmCpuWork &work = scratch.buffers_->buffers.work;
    const int64_t T = shape().time_steps, H = shape().hidden, L = shape().layers, U = model.units;
    AlignedFloats sequence(static_cast<size_t>(T * kernels.slice * U)); // [T][count][U]
    std::vector<int32_t> ends(static_cast<size_t>(kernels.slice));
    for (; first < last; first += kernels.slice) {
        const int64_t count = std::min(kernels.slice, last - first), size = count * U;
        for (int64_t w = 0; w < count; ++w) {
            ends[static_cast<size_t>(w)] = static_cast<int32_t>((first + w + 1) * T - 1);
        }
        kernels.predict_rows(nullptr, model, work,
                             {features, ends.data(), count, first, sequence.data()});
        for (int64_t w = 0; w < count; ++w) {
            for (int64_t t = 0; t < T; ++t) {
                std::copy_n(sequence.data() + t * size + w * U, H,
                            out.output + (first + w) * out.window_stride + t * out.step_stride);
            }
            for (int64_t l = 0; l < L; ++l) {
                const float *h =
                    l + 1 < L ? work.h[l] + (T - 1) % 2 * size : sequence.data() + (T - 1) * size;
                const int64_t to = (l * out.windows + first + w) * H;
                std::copy_n(h + w * U, H, out.hy + to);
                std::copy_n(work.c[l] + w * U, H, out.cy + to);
            }
        }
    }
}

} // namespace rp
