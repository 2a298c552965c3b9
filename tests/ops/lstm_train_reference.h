// One training step of the model in float64: loss, gradients, running statistics and Adam.
#pragma once

#include <algorithm>

#include "kernels/lstm_cpu_train.h"
#include "lstm_reference.h"

namespace reference {

// Adds one cell's gradients; returns (dL/dinput, dL/dh before, dL/dc before).
struct CellGradient {
    Row input, h, c;
};

inline CellGradient step_back(const Layer &layer, const Cell &cell, const Row &dh, const Row &dc,
                              double *gradient) {
    const auto H = static_cast<size_t>(layer.H), K = static_cast<size_t>(layer.K);
    double *input_weight = gradient, *hidden_weight = input_weight + 4 * H * K;
    double *input_bias = hidden_weight + 4 * H * H, *hidden_bias = input_bias + 4 * H;
    CellGradient out{Row(K), Row(H), Row(H)};
    for (size_t u = 0; u < H; ++u) {
        const double i = cell.i[u], f = cell.f[u], g = cell.g[u], o = cell.o[u];
        const double t = std::tanh(cell.c[u]), d_c = dc[u] + dh[u] * o * (1 - t * t);
        const double d_gate[4] = {d_c * g * i * (1 - i), d_c * cell.c_before[u] * f * (1 - f),
                                  d_c * i * (1 - g * g), dh[u] * t * o * (1 - o)};
        out.c[u] = d_c * f;
        for (size_t gate = 0; gate < 4; ++gate) {
            const size_t row = gate * H + u;
            const double d = d_gate[gate];
            input_bias[row] += d;
            hidden_bias[row] += d;
            for (size_t k = 0; k < K; ++k) {
                input_weight[row * K + k] += d * cell.input[k];
                out.input[k] += d * layer.input_weight[row * K + k];
            }
            for (size_t k = 0; k < H; ++k) {
                hidden_weight[row * H + k] += d * cell.h_before[k];
                out.h[k] += d * layer.hidden_weight[row * H + k];
            }
        }
    }
    return out;
}

struct StepResult {
    double loss;
    Row gradient, running_mean, running_var; // [P], [H], [H]
    Row parameters;                          // [P] after Adam from zero moments at step `step`
};

class TrainStep {
  public:
    TrainStep(const Problem &problem, const rp::LstmCpuTrainOptions &options, int64_t step)
        : problem_(problem), options_(options), step_(step),
          layers_(layers_of(problem.shape, problem.parameters.data())) {}

    StepResult run() {
        const auto windows = static_cast<int64_t>(problem_.window_ends.size());
        const int64_t batch = options_.batch;
        const int64_t per_epoch = windows / batch + (windows % batch >= 2 ? 1 : 0);
        const int64_t position = step_ % per_epoch * batch;
        const auto rows = static_cast<size_t>(std::min(batch, windows - position));
        const rp_order_key key = rp_order_key_make(static_cast<uint32_t>(windows), options_.seed,
                                                   static_cast<uint32_t>(step_ / per_epoch));
        for (size_t row = 0; row < rows; ++row) {
            order_.push_back(
                rp_order(static_cast<uint32_t>(position) + static_cast<uint32_t>(row), &key));
            forward(row);
        }
        result_.gradient.assign(problem_.parameters.size(), 0.0);
        head();
        for (size_t row = 0; row < rows; ++row) {
            backward(row);
        }
        adam();
        return result_;
    }

  private:
    double keep(size_t row, size_t layer, size_t unit, size_t t) const {
        const uint32_t threshold = rp_dropout_threshold(options_.dropout);
        if (threshold == 0 || layer + 1 == layers_.size()) {
            return 1;
        }
        const rp_philox_block block = rp_dropout_block(
            options_.seed, step_, static_cast<uint32_t>(row), static_cast<uint32_t>(layer),
            static_cast<uint32_t>(unit), static_cast<uint32_t>(t / 8));
        const uint32_t bits = rp_dropout_keep_bits(block, threshold);
        return (bits >> t % 8 & 1) ? rp_dropout_scale(threshold) : 0;
    }

    void forward(size_t row) {
        Sequence sequence = problem_.window(order_[row]);
        const auto H = static_cast<size_t>(problem_.shape.hidden);
        cells_.emplace_back();
        for (size_t l = 0; l < layers_.size(); ++l) {
            Row h(H), c(H);
            std::vector<Cell> cells;
            for (size_t t = 0; t < sequence.size(); ++t) {
                cells.push_back(step(layers_[l], sequence[t], h, c));
                sequence[t] = h = cells.back().h;
                c = cells.back().c;
                for (size_t u = 0; u < H; ++u) {
                    sequence[t][u] *= keep(row, l, u, t);
                }
            }
            cells_.back().push_back(cells);
        }
    }

    // Loss and its gradient with respect to the last h of every row.
    void head() {
        const size_t rows = cells_.size(), H = static_cast<size_t>(problem_.shape.hidden);
        const auto B = static_cast<double>(rows);
        const size_t offset = problem_.parameters.size() - H - 1;
        const float *weight = problem_.parameters.data() + offset;
        std::vector<Row> x(rows, Row(H));
        Row inverse(H), error(rows, weight[H]);
        for (size_t u = 0; u < H; ++u) {
            double mean = 0, square = 0;
            for (const auto &row : cells_) {
                mean += row.back().back().h[u] / B;
            }
            for (const auto &row : cells_) {
                square += std::pow(row.back().back().h[u] - mean, 2);
            }
            inverse[u] = 1 / std::sqrt(square / B + options_.norm_eps);
            const double momentum = options_.norm_momentum;
            result_.running_mean.push_back((1 - momentum) * problem_.running_mean[u] +
                                           momentum * mean);
            result_.running_var.push_back((1 - momentum) * problem_.running_var[u] +
                                          momentum * square / (B - 1));
            for (size_t row = 0; row < rows; ++row) {
                x[row][u] = (cells_[row].back().back().h[u] - mean) * inverse[u];
                error[row] += weight[u] * leaky_relu(x[row][u], options_.negative_slope);
            }
        }
        result_.loss = 0;
        for (size_t row = 0; row < rows; ++row) {
            const auto end = static_cast<size_t>(problem_.window_ends[order_[row]]);
            const double difference = error[row] - problem_.targets[end];
            result_.loss += difference * difference / B;
            error[row] = 2 * difference / B;
            result_.gradient[offset + H] += error[row];
        }
        dh_.assign(rows, Row(H));
        for (size_t u = 0; u < H; ++u) {
            double mean_dx = 0, mean_dx_x = 0;
            for (size_t row = 0; row < rows; ++row) {
                const double value = x[row][u];
                result_.gradient[offset + u] +=
                    error[row] * leaky_relu(value, options_.negative_slope);
                dh_[row][u] = error[row] * weight[u] * (value > 0 ? 1 : options_.negative_slope);
                mean_dx += dh_[row][u] / B;
                mean_dx_x += dh_[row][u] * value / B;
            }
            for (size_t row = 0; row < rows; ++row) {
                dh_[row][u] = (dh_[row][u] - mean_dx - x[row][u] * mean_dx_x) * inverse[u];
            }
        }
    }

    void backward(size_t row) {
        const size_t H = static_cast<size_t>(problem_.shape.hidden);
        const auto T = static_cast<size_t>(problem_.shape.time_steps);
        Sequence above(T, Row(H)); // gradient of the layer's output, by time step
        above.back() = dh_[row];
        for (size_t l = layers_.size(); l-- > 0;) {
            double *gradient =
                result_.gradient.data() + (layers_[l].input_weight - problem_.parameters.data());
            Row dh(H), dc(H);
            for (size_t t = T; t-- > 0;) {
                for (size_t u = 0; u < H; ++u) {
                    dh[u] += above[t][u] * keep(row, l, u, t);
                }
                CellGradient back = step_back(layers_[l], cells_[row][l][t], dh, dc, gradient);
                above[t] = back.input;
                dh = back.h;
                dc = back.c;
            }
        }
    }

    void adam() {
        const auto t = static_cast<double>(step_ + 1);
        for (size_t p = 0; p < problem_.parameters.size(); ++p) {
            const double g = result_.gradient[p];
            const double m = (1 - options_.beta1) * g, v = (1 - options_.beta2) * g * g;
            const double denominator =
                std::sqrt(v / (1 - std::pow(options_.beta2, t))) + options_.eps;
            result_.parameters.push_back(problem_.parameters[p] -
                                         options_.learning_rate * m /
                                             (1 - std::pow(options_.beta1, t)) / denominator);
        }
    }

    const Problem &problem_;
    rp::LstmCpuTrainOptions options_;
    int64_t step_;
    std::vector<Layer> layers_;
    std::vector<size_t> order_;
    std::vector<std::vector<std::vector<Cell>>> cells_; // [row][layer][t]
    std::vector<Row> dh_;
    StepResult result_;
};

} // namespace reference
