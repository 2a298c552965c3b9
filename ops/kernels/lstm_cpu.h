// The model's forward pass on the CPU: LSTM -> BatchNorm by running statistics -> LeakyReLU ->
// Linear. Needs no torch.
//
// Policy: weights are packed once and never change afterwards, so one LstmCpu may be used by many
// threads at a time, each with a Scratch of its own. Kernels are compiled for several instruction
// sets and chosen at run time; the environment variable RP_ISA (portable, avx2, avx512) lowers the
// choice.
#pragma once

#include <cstdint>
#include <memory>

namespace rp {

struct LstmCpuShape {
    int32_t features, time_steps, hidden, layers; // F 1..32, T 1..64, H 1..512, L 1..4
};

enum class LstmCpuIsa { portable, avx2, avx512 };

// The best set that this machine has and RP_ISA allows.
LstmCpuIsa lstm_cpu_best_isa();

class LstmCpu {
  public:
    // parameters [P]: PyTorch's order (lstm.weight_ih_l0 [4H][F], weight_hh_l0 [4H][H], bias_ih_l0,
    // bias_hh_l0, layer 1 ..., head.weight [1][H], head.bias [1]), gates i, f, g, o.
    // running_mean, running_var [H].
    LstmCpu(const LstmCpuShape &shape, const float *parameters, const float *running_mean,
            const float *running_var, float eps, float negative_slope,
            LstmCpuIsa isa = lstm_cpu_best_isa());
    ~LstmCpu();
    LstmCpu(LstmCpu &&) noexcept;
    LstmCpu &operator=(LstmCpu &&) noexcept;

    // Buffers of one thread; made for one LstmCpu and reused.
    class Scratch {
      public:
        explicit Scratch(const LstmCpu &model);
        ~Scratch();
        Scratch(Scratch &&) noexcept;
        Scratch &operator=(Scratch &&) noexcept;

      private:
        friend class LstmCpu;
        struct Buffers;
        std::unique_ptr<Buffers> buffers_;
    };

    // out [W] from features [N][F] and window_ends [W], each in [T-1, N).
    void run(float *out, Scratch &scratch, const float *features, const int32_t *window_ends,
             int64_t windows) const;

    // Where run_sequences writes, for W windows: h of the last layer at every time step, and h, c
    // of every layer at the last one.
    struct Sequences {
        float *output; // h of (window w, time step t) begins at w * window_stride + t * step_stride
        float *hy, *cy; // [L][W][H]
        int64_t window_stride, step_stride, windows;
    };

    // Windows [first, last) of those that follow one another in features [W * T][F].
    void run_sequences(const Sequences &out, Scratch &scratch, const float *features, int64_t first,
                       int64_t last) const;

    const LstmCpuShape &shape() const;

  private:
    struct Packed;
    std::unique_ptr<Packed> packed_;
};

} // namespace rp
