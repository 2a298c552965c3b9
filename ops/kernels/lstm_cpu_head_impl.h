// The training head over a whole batch (a sample a lane, one thread, fixed order) and Adam.
//
//   x = (h - mean) / sqrt(var + eps)   y = leaky_relu(x)   p = w . y + b   loss = mean (p -
//   target)^2 dp = 2 (p - target) / B   dx = dp w y'(x)   dh = (dx - mean dx - x mean (dx x)) /
//   sqrt(var + eps)
//
// Mean and variance take two passes. Policy: see lstm_cpu_vector.h.
#pragma once

#include "kernels/lstm_cpu_vector.h"

namespace rp {
namespace {

struct UnitStatistics {
    float mean, inverse_std;
};

UnitStatistics unit_statistics(const LstmCpuHead &head, const float *h, int64_t unit) {
    const int64_t B = head.rows;
    const auto rows = static_cast<float>(B);
    vec sum = {}, squares = {};
    for (int64_t b = 0; b < B; b += lanes) {
        sum += keep_below(load(h + b), b, B);
    }
    const float mean = sum_of_lanes(sum) / rows;
    for (int64_t b = 0; b < B; b += lanes) {
        const vec difference = keep_below(load(h + b) - mean, b, B);
        squares += difference * difference;
    }
    const float square_sum = sum_of_lanes(squares), momentum = head.momentum;
    head.running_mean[unit] += momentum * (mean - head.running_mean[unit]);
    head.running_var[unit] += momentum * (square_sum / (rows - 1.0f) - head.running_var[unit]);
    return {mean, 1.0f / __builtin_sqrtf(square_sum / rows + head.eps)};
}

// head.error [stride] = dL/dprediction from predictions; returns the loss.
float prediction_errors(const LstmCpuHead &head) {
    const auto rows = static_cast<float>(head.rows);
    vec loss = {}, dbias = {};
    for (int64_t b = 0; b < head.stride; b += lanes) {
        const vec difference =
            keep_below(load(head.error + b) - load(head.targets + b), b, head.rows);
        const vec d = difference * (2.0f / rows);
        loss += difference * difference;
        dbias += d;
        store(head.error + b, d);
    }
    *head.dbias = sum_of_lanes(dbias);
    return sum_of_lanes(loss) / rows;
}

// Turns dh, which holds x, into dL/dh of one unit. Columns beyond the batch have error 0.
void unit_gradient(const LstmCpuHead &head, const LstmCpuModel &model, int64_t unit,
                   float inverse_std) {
    const auto rows = static_cast<float>(head.rows);
    const float weight = model.head_weight[unit];
    float *dh = head.dh + unit * head.stride;
    vec sum_dx = {}, sum_dx_x = {}, dweight = {};
    auto dx_of = [&](vec x, vec error) {
        const vec d = error * weight;
        return x > 0.0f ? d : d * model.negative_slope;
    };
    for (int64_t b = 0; b < head.stride; b += lanes) {
        const vec x = load(dh + b), error = load(head.error + b), dx = dx_of(x, error);
        dweight += error * leaky_relu(x, model.negative_slope);
        sum_dx += dx;
        sum_dx_x += dx * x;
    }
    head.dweight[unit] = sum_of_lanes(dweight);
    const float mean_dx = sum_of_lanes(sum_dx) / rows, mean_dx_x = sum_of_lanes(sum_dx_x) / rows;
    for (int64_t b = 0; b < head.stride; b += lanes) {
        const vec x = load(dh + b), dx = dx_of(x, load(head.error + b));
        store(dh + b, keep_below((dx - mean_dx - x * mean_dx_x) * inverse_std, b, head.rows));
    }
}

float train_head(const LstmCpuHead &head, const LstmCpuModel &model) {
    float inverse_std[512]; // H is at most that
    for (int64_t b = 0; b < head.stride; b += lanes) {
        store(head.error + b, broadcast(model.head_bias));
    }
    for (int64_t unit = 0; unit < model.shape.hidden; ++unit) {
        const float *h = head.h + unit * head.stride;
        float *x_of_unit = head.dh + unit * head.stride;
        const UnitStatistics statistics = unit_statistics(head, h, unit);
        inverse_std[unit] = statistics.inverse_std;
        for (int64_t b = 0; b < head.stride; b += lanes) {
            const vec x = (load(h + b) - statistics.mean) * statistics.inverse_std;
            store(x_of_unit + b, x);
            store(head.error + b, load(head.error + b) + leaky_relu(x, model.negative_slope) *
                                                             model.head_weight[unit]);
        }
    }
    const float loss = prediction_errors(head);
    for (int64_t unit = 0; unit < model.shape.hidden; ++unit) {
        unit_gradient(head, model, unit, inverse_std[unit]);
    }
    return loss;
}

// The first `count` lanes, the others 0.
RP_INLINE vec load_some(const float *from, int64_t count) {
    if (count >= lanes) {
        return load(from);
    }
    vec value = {};
    for (int64_t i = 0; i < count; ++i) {
        value[i] = from[i];
    }
    return value;
}

RP_INLINE void store_some(float *to, vec value, int64_t count) {
    if (count >= lanes) {
        store(to, value);
        return;
    }
    for (int64_t i = 0; i < count; ++i) {
        to[i] = value[i];
    }
}

// m += (g - m)(1 - beta1)   v = beta2 v + (1 - beta2) g g
// p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
// One loop for whole and broken vectors: an element's bits don't depend on where its range ends.
void adam_update(const LstmCpuAdam &adam) {
    for (int64_t at = 0; at < adam.count; at += lanes) {
        const int64_t count = adam.count - at;
        const vec g = load_some(adam.gradient + at, count);
        vec m = load_some(adam.exp_avg + at, count), v = load_some(adam.exp_avg_sq + at, count);
        m += (g - m) * adam.one_minus_beta1;
        v = v * adam.beta2 + g * g * adam.one_minus_beta2;
        const vec denominator = square_root(v) * adam.inverse_correction + adam.eps;
        const vec p = load_some(adam.parameters + at, count) - adam.step_size * (m / denominator);
        store_some(adam.exp_avg + at, m, count);
        store_some(adam.exp_avg_sq + at, v, count);
        store_some(adam.parameters + at, p, count);
    }
}

} // namespace
} // namespace rp
