// The model's forward pass on the CPU: LSTM -> running BatchNorm -> LeakyReLU -> Linear.
//
// Policy: weights are packed once and never change afterwards, so one LstmCpu may be used by many
// threads at a time, each with a Scratch of its own. The arithmetic is written in GCC's vector
// extensions and compiled for AVX-512, AVX2 and the baseline; the machine picks at run time.
#pragma once

#include <cstdint>
#include <vector>

namespace rp {

struct LstmCpuShape {
    int32_t features, time_steps, hidden, layers; // F, T, H, L
};

class LstmCpu {
  public:
    // parameters [P]: PyTorch's order (lstm.weight_ih_l0 [4H][F], weight_hh_l0 [4H][H], bias_ih_l0,
    // bias_hh_l0, layer 1 ..., head.weight [1][H], head.bias [1]), gates i, f, g, o.
    // running_mean, running_var [H].
    LstmCpu(const LstmCpuShape &shape, const float *parameters, const float *running_mean,
            const float *running_var, float eps, float negative_slope);

    // Buffers of one thread; made for one LstmCpu and reused.
    class Scratch {
      public:
        explicit Scratch(const LstmCpuShape &shape);

      private:
        friend class LstmCpu;
        std::vector<float> input, hidden, cell, projected;
    };

    // out [W] from features [N][F] and window_ends [W], each in [T-1, N).
    void run(float *out, Scratch &scratch, const float *features, const int32_t *window_ends,
             int64_t windows) const;

    const LstmCpuShape &shape() const { return shape_; }

  private:
    struct Layer {
        int32_t inputs;           // F or H
        std::vector<float> block; // [H][inputs + H][4]: a unit's four gates side by side
        std::vector<float> rows;  // [inputs + H][4H padded]: all gates of one input side by side
        std::vector<float> bias;  // [4H padded], b_ih + b_hh
    };
    void run_slice(float *out, Scratch &scratch, const float *features,
                   const int32_t *window_ends, int64_t count) const;
    void run_single(float *out, Scratch &scratch, const float *features, int32_t end) const;

    LstmCpuShape shape_;
    std::vector<Layer> layers_;
    std::vector<float> scale_, shift_; // [H]: BatchNorm as y = h * scale + shift
    std::vector<float> head_;          // [H + 1]: weight, bias
    float negative_slope_;
};

} // namespace rp
