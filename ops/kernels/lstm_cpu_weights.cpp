#include "kernels/lstm_cpu_weights.h"

#include <cmath>

namespace rp {
namespace {

// Hands out consecutive pieces of one buffer, each on a cache line of its own. Without memory it
// only counts.
class Pieces {
  public:
    explicit Pieces(float *memory) : memory_(memory) {}
    float *take(int64_t count) {
        float *piece = memory_ ? memory_ + used_ : nullptr;
        used_ += lstm_cpu_round_up(count, 16);
        return piece;
    }
    size_t used() const { return static_cast<size_t>(used_); }

  private:
    float *memory_;
    int64_t used_ = 0;
};

Pieces assign_model(LstmCpuModel &model, float *memory, LstmCpuUse use) {
    Pieces pieces(memory);
    const int64_t H = model.shape.hidden, U = model.units;
    for (int64_t l = 0; l < model.shape.layers; ++l) {
        LstmCpuLayer &layer = model.layer[l];
        const int64_t K = layer.inputs = lstm_cpu_layer_inputs(model.shape, l);
        if (use == LstmCpuUse::training) {
            layer.forward = pieces.take(4 * U * (K + H));
            layer.bias = pieces.take(4 * U);
            layer.backward_hidden = pieces.take(4 * H * U);
            layer.backward_input = l > 0 ? pieces.take(4 * H * U) : nullptr;
        } else {
            layer.project = pieces.take(4 * U * K);
            layer.recur = pieces.take(4 * U * H);
            layer.gate_bias = pieces.take(4 * U);
        }
    }
    model.head_weight = pieces.take(U);
    model.norm_mean = pieces.take(U);
    model.norm_inverse_std = pieces.take(U);
    return pieces;
}

Pieces assign_work(LstmCpuWork &work, float *memory, const LstmCpuModel &model,
                   const LstmCpuKernels &kernels, LstmCpuUse use) {
    Pieces pieces(memory);
    const LstmCpuShape &shape = model.shape;
    const int64_t U = model.units, S = kernels.slice, together = lstm_cpu_steps_together;
    work.x = pieces.take(static_cast<int64_t>(shape.time_steps) * shape.features * S);
    for (int64_t l = 0; l < shape.layers; ++l) {
        work.h[l] = pieces.take(2 * U * S);
        work.c[l] = pieces.take(U * S);
    }
    if (use == LstmCpuUse::inference) {
        work.sequence[0] = pieces.take(shape.time_steps * U);
        work.sequence[1] = pieces.take(shape.time_steps * U);
        work.gates = pieces.take(shape.time_steps * 4 * U);
        return pieces;
    }
    for (int64_t l = 0; l < shape.layers; ++l) {
        work.keep[l] = reinterpret_cast<int32_t *>(pieces.take(U * S));
        work.dropped[l] = pieces.take(U * S);
        work.tanh_c[l] = pieces.take(U * S);
        work.dh[l] = pieces.take(U * S);
        work.dc[l] = pieces.take(U * S);
        work.dgates[l] = pieces.take(together * 4 * U * S);
        work.rows[l] = pieces.take(together * S * lstm_cpu_gradient_columns(model, kernels, l));
        work.dbias[l] = pieces.take(4 * U * kernels.lanes);
    }
    work.dh_above = pieces.take(U * S);
    return pieces;
}

// The arrays are this object's own; the kernels see them as constant.
float *writable(const float *array) {
    return const_cast<float *>(array);
}

} // namespace

int64_t lstm_cpu_layer_inputs(const LstmCpuShape &shape, int64_t layer) {
    return layer == 0 ? shape.features : shape.hidden;
}

int64_t lstm_cpu_layer_offset(const LstmCpuShape &shape, int64_t layer) {
    const int64_t H = shape.hidden;
    int64_t offset = 0;
    for (int64_t l = 0; l < layer; ++l) {
        offset += 4 * H * (lstm_cpu_layer_inputs(shape, l) + H + 2);
    }
    return offset;
}

int64_t lstm_cpu_parameter_count(const LstmCpuShape &shape) {
    return lstm_cpu_layer_offset(shape, shape.layers) + shape.hidden + 1;
}

int64_t lstm_cpu_gradient_columns(const LstmCpuModel &model, const LstmCpuKernels &kernels,
                                  int64_t layer) {
    return model.units +
           lstm_cpu_round_up(lstm_cpu_layer_inputs(model.shape, layer), kernels.lanes);
}

LstmCpuWeights::LstmCpuWeights(const LstmCpuShape &shape, const LstmCpuKernels &kernels,
                               LstmCpuUse use)
    : model{}, kernels_(kernels), use_(use) {
    model.shape = shape;
    model.units = lstm_cpu_round_up(shape.hidden, kernels.lanes);
    memory_.assign(assign_model(model, nullptr, use).used(), 0.0f);
    assign_model(model, memory_.data(), use);
}

// The forward tiles of one unit.
void LstmCpuWeights::pack_unit(const float *layer_parameters, int64_t layer, int64_t unit) {
    const LstmCpuLayer &to = model.layer[layer];
    const int64_t H = model.shape.hidden, K = to.inputs, tile = kernels_.unit_tile;
    const float *input_weight = layer_parameters, *hidden_weight = input_weight + 4 * H * K;
    const float *input_bias = hidden_weight + 4 * H * H, *hidden_bias = input_bias + 4 * H;
    float *forward = writable(to.forward) + (unit / tile * tile * (K + H) + unit % tile) * 4;
    for (int64_t gate = 0; gate < 4; ++gate) {
        const int64_t row = gate * H + unit;
        for (int64_t k = 0; k < K; ++k) {
            forward[k * 4 * tile + gate] = input_weight[row * K + k];
        }
        for (int64_t k = 0; k < H; ++k) {
            forward[(K + k) * 4 * tile + gate] = hidden_weight[row * H + k];
        }
        writable(to.bias)[unit * 4 + gate] = input_bias[row] + hidden_bias[row];
    }
}

// The same for inference: a vector of units side by side.
void LstmCpuWeights::pack_lane(const float *layer_parameters, int64_t layer, int64_t unit) {
    const LstmCpuLayer &to = model.layer[layer];
    const int64_t H = model.shape.hidden, K = to.inputs, V = kernels_.lanes;
    const float *input_weight = layer_parameters, *hidden_weight = input_weight + 4 * H * K;
    const float *input_bias = hidden_weight + 4 * H * H, *hidden_bias = input_bias + 4 * H;
    const int64_t first = unit / V * V;
    for (int64_t gate = 0; gate < 4; ++gate) {
        const int64_t row = gate * H + unit, place = gate * V + unit % V;
        for (int64_t k = 0; k < K; ++k) {
            writable(to.project)[4 * (first * K + k * V) + place] = input_weight[row * K + k];
        }
        for (int64_t k = 0; k < H; ++k) {
            writable(to.recur)[4 * (first * H + k * V) + place] = hidden_weight[row * H + k];
        }
        writable(to.gate_bias)[4 * first + place] = input_bias[row] + hidden_bias[row];
    }
}

// Backward tiles of one output: a column of W_hh and, above the first layer, of W_ih.
void LstmCpuWeights::pack_columns(const float *layer_parameters, int64_t layer, int64_t unit) {
    const LstmCpuLayer &to = model.layer[layer];
    const int64_t H = model.shape.hidden, K = to.inputs, tile = kernels_.output_tile;
    const float *input_weight = layer_parameters, *hidden_weight = input_weight + 4 * H * K;
    const int64_t first = unit / tile * tile * 4 * H + unit % tile;
    for (int64_t row = 0; row < H; ++row) {
        for (int64_t gate = 0; gate < 4; ++gate) {
            const int64_t at = first + (row * 4 + gate) * tile;
            writable(to.backward_hidden)[at] = hidden_weight[(gate * H + row) * H + unit];
            if (layer > 0) {
                writable(to.backward_input)[at] = input_weight[(gate * H + row) * K + unit];
            }
        }
    }
}

void LstmCpuWeights::pack(const float *parameters, int64_t part, int64_t parts) {
    const int64_t H = model.shape.hidden;
    for (int64_t l = 0; l < model.shape.layers; ++l) {
        const float *layer_parameters = parameters + lstm_cpu_layer_offset(model.shape, l);
        for (int64_t unit = H * part / parts; unit < H * (part + 1) / parts; ++unit) {
            if (use_ == LstmCpuUse::training) {
                pack_unit(layer_parameters, l, unit);
                pack_columns(layer_parameters, l, unit);
            } else {
                pack_lane(layer_parameters, l, unit);
            }
        }
    }
    if (part == 0) {
        const float *head = parameters + lstm_cpu_layer_offset(model.shape, model.shape.layers);
        for (int64_t unit = 0; unit < H; ++unit) {
            writable(model.head_weight)[unit] = head[unit];
        }
        model.head_bias = head[H];
    }
}

void LstmCpuWeights::set_norm(const float *running_mean, const float *running_var, float eps) {
    for (int64_t unit = 0; unit < model.shape.hidden; ++unit) {
        writable(model.norm_mean)[unit] = running_mean[unit];
        writable(model.norm_inverse_std)[unit] = 1.0f / std::sqrt(running_var[unit] + eps);
    }
}

LstmCpuBuffers::LstmCpuBuffers(const LstmCpuModel &model, const LstmCpuKernels &kernels,
                               LstmCpuUse use)
    : work{} {
    memory_.assign(assign_work(work, nullptr, model, kernels, use).used(), 0.0f);
    assign_work(work, memory_.data(), model, kernels, use);
}

} // namespace rp
