// The model in float64, written as its formulas: what the CPU kernels are compared with.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/lstm_cpu.h"
#include "kernels/random.h"

namespace reference {

using Row = std::vector<double>;
using Sequence = std::vector<Row>; // [T][..]

struct Layer {
    int K, H;
    const float *input_weight, *hidden_weight, *input_bias, *hidden_bias;
};

inline std::vector<Layer> layers_of(const rp::LstmCpuShape &shape, const float *parameters) {
    std::vector<Layer> layers;
    const int H = shape.hidden;
    for (int l = 0; l < shape.layers; ++l) {
        const int K = l == 0 ? shape.features : H;
        const float *input_weight = parameters, *hidden_weight = input_weight + 4 * H * K;
        const float *input_bias = hidden_weight + 4 * H * H;
        layers.push_back({K, H, input_weight, hidden_weight, input_bias, input_bias + 4 * H});
        parameters = input_bias + 8 * H;
    }
    return layers;
}

inline int64_t parameter_count(const rp::LstmCpuShape &shape) {
    int64_t count = shape.hidden + 1;
    for (int l = 0; l < shape.layers; ++l) {
        count += 4 * shape.hidden * ((l == 0 ? shape.features : shape.hidden) + shape.hidden + 2);
    }
    return count;
}

inline double sigmoid(double x) {
    return 1 / (1 + std::exp(-x));
}
inline double leaky_relu(double x, double slope) {
    return x > 0 ? x : x * slope;
}

// What a layer computes at one time step and backward needs.
struct Cell {
    Row input, h_before, c_before, i, f, g, o, c, h;
};

inline Cell step(const Layer &layer, const Row &input, const Row &h, const Row &c) {
    const auto H = static_cast<size_t>(layer.H);
    Cell cell{input, h, c, Row(H), Row(H), Row(H), Row(H), Row(H), Row(H)};
    auto gate = [&](int row) {
        double sum = static_cast<double>(layer.input_bias[row]) + layer.hidden_bias[row];
        for (int k = 0; k < layer.K; ++k) {
            sum += layer.input_weight[row * layer.K + k] * input[static_cast<size_t>(k)];
        }
        for (int k = 0; k < layer.H; ++k) {
            sum += layer.hidden_weight[row * layer.H + k] * h[static_cast<size_t>(k)];
        }
        return sum;
    };
    for (int u = 0; u < layer.H; ++u) {
        const auto j = static_cast<size_t>(u);
        cell.i[j] = sigmoid(gate(u));
        cell.f[j] = sigmoid(gate(layer.H + u));
        cell.g[j] = std::tanh(gate(2 * layer.H + u));
        cell.o[j] = sigmoid(gate(3 * layer.H + u));
        cell.c[j] = cell.f[j] * c[j] + cell.i[j] * cell.g[j];
        cell.h[j] = cell.o[j] * std::tanh(cell.c[j]);
    }
    return cell;
}

struct Problem {
    rp::LstmCpuShape shape;
    std::vector<float> parameters, running_mean, running_var; // [P], [H], [H]
    std::vector<float> features, targets;                     // [N][F], [N]
    std::vector<int32_t> window_ends;                         // [W]

    Problem(const rp::LstmCpuShape &problem_shape, int windows, unsigned seed = 1)
        : shape(problem_shape) {
        std::mt19937 generator(seed);
        std::normal_distribution<float> normal;
        const float bound = 1.0f / std::sqrt(static_cast<float>(shape.hidden));
        std::uniform_real_distribution<float> weight(-bound, bound);
        auto fill = [](std::vector<float> &values, int64_t count, auto &&draw) {
            values.resize(static_cast<size_t>(count));
            for (float &value : values) {
                value = draw();
            }
        };
        const int rows = windows + shape.time_steps - 1;
        fill(parameters, parameter_count(shape), [&] { return weight(generator); });
        fill(running_mean, shape.hidden, [&] { return 0.1f * normal(generator); });
        fill(running_var, shape.hidden,
             [&] { return 0.01f + 0.1f * std::fabs(weight(generator)); });
        fill(features, static_cast<int64_t>(rows) * shape.features,
             [&] { return normal(generator); });
        fill(targets, rows, [&] { return normal(generator); });
        for (int w = 0; w < windows; ++w) {
            window_ends.push_back(w + shape.time_steps - 1);
        }
    }

    Sequence window(size_t index) const {
        Sequence sequence;
        const auto F = static_cast<size_t>(shape.features);
        const int first = window_ends[index] - shape.time_steps + 1;
        for (int t = 0; t < shape.time_steps; ++t) {
            const auto from = features.begin() + static_cast<int64_t>(F) * (first + t);
            sequence.emplace_back(from, from + static_cast<int64_t>(F));
        }
        return sequence;
    }
};

// Prediction by the running statistics.
inline double predict(const Problem &problem, size_t window, double eps, double slope) {
    Sequence sequence = problem.window(window);
    const auto H = static_cast<size_t>(problem.shape.hidden);
    for (const Layer &layer : layers_of(problem.shape, problem.parameters.data())) {
        Row h(H), c(H);
        for (Row &row : sequence) {
            const Cell cell = step(layer, row, h, c);
            h = row = cell.h;
            c = cell.c;
        }
    }
    const float *head = problem.parameters.data() + problem.parameters.size() - H - 1;
    double sum = head[H];
    for (size_t u = 0; u < H; ++u) {
        const double y = (sequence.back()[u] - problem.running_mean[u]) /
                         std::sqrt(problem.running_var[u] + eps);
        sum += head[u] * leaky_relu(y, slope);
    }
    return sum;
}

} // namespace reference
