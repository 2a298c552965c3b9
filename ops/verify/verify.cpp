// Runs one case of the table twice, by PyTorch's own operators and by rp::bn_leaky_relu, and counts
// the elements whose bits differ.
#include "rp_ops/verify.h"

#include "../torch/bn_leaky_relu_dispatch.h"
#include "../torch/bn_leaky_relu_fused.h"
#include "cases.h"
#include "rp_ops/bn_leaky_relu.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include <limits>

namespace rp_ops {
namespace {

using at::Tensor;

constexpr double EPS = 1e-5;
constexpr double SLOPE = 0.01;

struct Inputs {
    Tensor input, grad_output, running_mean, running_var;
    OptionalTensor weight, bias;
};

struct Outputs {
    Tensor output, mean, invstd, running_mean, running_var, grad_input, grad_weight, grad_bias;
};

bool trains(const Case &c) {
    return c.mode != Mode::EVAL && c.mode != Mode::EVAL_FROZEN && c.mode != Mode::EVAL_WEIGHTS_ONLY;
}

bool tracks(const Case &c) {
    return c.mode != Mode::TRAIN_UNTRACKED;
}

// momentum=None passes the reciprocal of the number of batches: the third one here.
double momentum(const Case &c) {
    return c.mode == Mode::TRAIN_CUMULATIVE ? 1.0 / 3.0 : 0.1;
}

std::array<bool, 3> gradients(const Case &c) {
    const bool frozen = c.mode == Mode::TRAIN_FROZEN || c.mode == Mode::EVAL_FROZEN;
    const bool parameters = c.affine && !frozen;
    return {c.mode != Mode::EVAL_WEIGHTS_ONLY, parameters, parameters};
}

std::vector<int64_t> per_channel(const Case &c) {
    std::vector<int64_t> shape(c.shape.size(), 1);
    shape[1] = c.shape[1];
    return shape;
}

// One kind of exceptional value a channel, twelve kinds in turn.
void put_special_values(Tensor &input) {
    const float infinity = std::numeric_limits<float>::infinity();
    const int64_t last = input.size(0) - 1;
    for (int64_t channel = 0; channel < input.size(1); ++channel) {
        Tensor values = input.select(1, channel);
        switch (channel % 12) {
        case 0:
            values.select(0, last / 2).fill_(std::numeric_limits<float>::quiet_NaN());
            break;
        case 1:
            values.select(0, last / 2).fill_(infinity);
            break;
        case 2:
            values.select(0, last / 2).fill_(-infinity);
            break;
        case 3:
            values.select(0, 0).fill_(infinity);
            values.select(0, last).fill_(-infinity);
            break;
        case 4:
            values.fill_(-0.0f);
            break;
        case 5:
            values.fill_(0.0f);
            break;
        case 6:
            values.mul_(1e-39f);
            break;
        case 7:
            values.sign_().mul_(3e38f);
            break;
        case 8:
            values.mul_(0.1f).add_(1e20f);
            break;
        case 9:
            values.fill_(2.5f);
            break;
        case 10:
            values.select(0, 0).fill_(-0.0f);
            break;
        default:
            break;
        }
    }
}

Tensor laid_out(const Tensor &tensor, Layout layout) {
    switch (layout) {
    case Layout::CHANNELS_LAST:
        return tensor.contiguous(tensor.dim() == 5 ? at::MemoryFormat::ChannelsLast3d
                                                   : at::MemoryFormat::ChannelsLast);
    case Layout::SLICED:
        return at::repeat_interleave(tensor, 2, 0).slice(0, 0, 2 * tensor.size(0), 2);
    case Layout::TRANSPOSED:
        return tensor.transpose(0, 1).contiguous().transpose(0, 1);
    case Layout::EXPANDED:
        return tensor.slice(0, 0, 1).expand(tensor.sizes());
    default:
        return tensor;
    }
}

Inputs make_inputs(const Case &c, int64_t seed, c10::Device device) {
    at::Generator generator = at::globalContext().defaultGenerator(device).clone();
    generator.set_current_seed(static_cast<uint64_t>(seed) + 1);
    const auto options = at::TensorOptions(device).dtype(at::kFloat);
    const int64_t channels = c.shape[1];
    const auto normal = [&](at::IntArrayRef shape) { return at::randn(shape, generator, options); };
    // Channels of very different scales and means, as in a network.
    const Tensor scale = at::rand({channels}, generator, options) * 4 + 0.1;
    Tensor input = normal(c.shape) * scale.view(per_channel(c)) +
                   (normal({channels}) * 3).view(per_channel(c));
    if (c.values == Values::SPECIAL) {
        put_special_values(input);
    }
    Inputs in;
    in.input = laid_out(input.to(c.dtype), c.layout);
    in.grad_output = (normal(c.shape) * 0.7).to(c.dtype);
    if (c.layout == Layout::CHANNELS_LAST) {
        in.grad_output = laid_out(in.grad_output, c.layout);
    } else if (c.layout == Layout::GRADIENT_EXPANDED) {
        in.grad_output = at::full({}, 0.7, options.dtype(c.dtype)).expand(c.shape);
    } else if (c.layout == Layout::TRANSPOSED) {
        in.grad_output = laid_out(in.grad_output, c.layout);
    }
    if (c.affine) {
        in.weight = normal({channels}).to(c.parameter_dtype);
        in.bias = normal({channels}).to(c.parameter_dtype);
    }
    in.running_mean = normal({channels}).to(c.parameter_dtype);
    in.running_var = (at::rand({channels}, generator, options) * 3 + 0.01).to(c.parameter_dtype);
    return in;
}

OptionalTensor tracked(const Case &c, const Tensor &statistic) {
    return tracks(c) ? OptionalTensor(statistic.clone()) : std::nullopt;
}

OptionalTensor leaf(const OptionalTensor &tensor, bool requires_grad) {
    return tensor ? OptionalTensor(tensor->detach().requires_grad_(requires_grad)) : tensor;
}

// `call(input, weight, bias, running_mean, running_var)` and its gradients.
template <typename Call> Outputs run(const Case &c, const Inputs &in, const Call &call) {
    at::AutoGradMode grad_mode(true);
    const std::array<bool, 3> wanted = gradients(c);
    // detach() keeps the strides, also of an expanded input.
    const Tensor input = in.input.detach().requires_grad_(wanted[0]);
    const OptionalTensor weight = leaf(in.weight, wanted[1]);
    const OptionalTensor bias = leaf(in.bias, wanted[2]);
    const OptionalTensor mean = tracked(c, in.running_mean);
    const OptionalTensor var = tracked(c, in.running_var);

    Outputs out;
    const Tensor output = call(input, weight, bias, mean, var);
    out.output = output.detach();
    if (trains(c) && tracks(c)) {
        out.running_mean = *mean;
        out.running_var = *var;
    }
    torch::autograd::variable_list leaves;
    for (const auto &[tensor, needed] : {std::pair<OptionalTensor, bool>(input, wanted[0]),
                                         {weight, wanted[1]},
                                         {bias, wanted[2]}}) {
        if (needed) {
            leaves.push_back(*tensor);
        }
    }
    const auto grads = torch::autograd::grad({output}, leaves, {in.grad_output});
    size_t next = 0;
    for (auto [slot, needed] : {std::pair<Tensor *, bool>(&out.grad_input, wanted[0]),
                                {&out.grad_weight, wanted[1]},
                                {&out.grad_bias, wanted[2]}}) {
        if (needed) {
            *slot = grads[next++].detach();
        }
    }
    return out;
}

Outputs reference(const Case &c, const Inputs &in) {
    Outputs out =
        run(c, in,
            [&](const Tensor &input, const OptionalTensor &weight, const OptionalTensor &bias,
                const OptionalTensor &mean, const OptionalTensor &var) {
                // What batch_norm calls with cuDNN off; only batch_norm takes an empty batch.
                const Tensor y =
                    in.input.numel() == 0
                        ? at::batch_norm(input, weight, bias, mean, var, trains(c), momentum(c),
                                         EPS, /*cudnn_enabled=*/false)
                        : std::get<0>(at::native_batch_norm(input, weight, bias, mean, var,
                                                            trains(c), momentum(c), EPS));
                return at::leaky_relu(y, SLOPE);
            });
    if (trains(c) && in.input.numel() > 0) {
        at::NoGradGuard no_grad;
        std::tie(std::ignore, out.mean, out.invstd) =
            at::native_batch_norm(in.input, in.weight, in.bias, tracked(c, in.running_mean),
                                  tracked(c, in.running_var), true, 0.0, EPS);
    }
    return out;
}

Outputs subject(const Case &c, const Inputs &in) {
    Outputs out =
        run(c, in,
            [&](const Tensor &input, const OptionalTensor &weight, const OptionalTensor &bias,
                const OptionalTensor &mean, const OptionalTensor &var) {
                return bn_leaky_relu(input, weight, bias, mean, var, trains(c), momentum(c), EPS,
                                     SLOPE);
            });
    if (trains(c) && in.input.numel() > 0) {
        at::NoGradGuard no_grad;
        std::tie(std::ignore, out.mean, out.invstd, std::ignore) =
            dispatch_forward(in.input, in.weight, in.bias, tracked(c, in.running_mean),
                             tracked(c, in.running_var), true, 0.0, EPS, SLOPE);
    }
    return out;
}

Tensor bits(const Tensor &tensor) {
    const Tensor flat = tensor.contiguous().view({-1});
    switch (flat.element_size()) {
    case 2:
        return flat.view(at::kShort);
    case 4:
        return flat.view(at::kInt);
    default:
        return flat.view(at::kLong);
    }
}

void flip_last_bit(Tensor &tensor) {
    if (tensor.numel() > 0) {
        Tensor changed = tensor.contiguous().clone();
        bits(changed).select(0, 0).bitwise_xor_(1);
        tensor = changed;
    }
}

void compare(std::vector<VerifyOutput> &results, const char *name, const Tensor &expected,
             const Tensor &actual) {
    if (!expected.defined() && !actual.defined()) {
        return;
    }
    VerifyOutput result = {name, 0, 0.0};
    if (!expected.defined() || !actual.defined() || expected.sizes() != actual.sizes()) {
        result.differing_elements = std::max<int64_t>(1, expected.defined() ? expected.numel() : 0);
        result.max_difference = std::numeric_limits<double>::infinity();
        results.push_back(result);
        return;
    }
    // On the CPU eager mode keeps the statistics in the type of the parameters: same values.
    const Tensor same_type = expected.to(actual.scalar_type());
    const Tensor differs = bits(same_type).ne(bits(actual));
    result.differing_elements = differs.sum().item<int64_t>();
    if (result.differing_elements > 0) {
        const Tensor distance = (same_type - actual).to(at::kDouble).abs();
        result.max_difference = at::nan_to_num(distance, 0.0, 0.0, 0.0).max().item<double>();
    }
    results.push_back(result);
}

std::string shape_name(const std::vector<int64_t> &shape) {
    std::string name;
    for (int64_t size : shape) {
        name += (name.empty() ? "" : "x") + std::to_string(size);
    }
    return name;
}

std::string type_name(c10::ScalarType type) {
    switch (type) {
    case at::kHalf:
        return "float16";
    case at::kBFloat16:
        return "bfloat16";
    case at::kDouble:
        return "float64";
    default:
        return "float32";
    }
}

std::string layout_name(const Case &c) {
    switch (c.layout) {
    case Layout::CHANNELS_LAST:
        return c.shape.size() == 5 ? "channels_last_3d" : "channels_last";
    case Layout::SLICED:
        return "sliced";
    case Layout::TRANSPOSED:
        return "transposed";
    case Layout::EXPANDED:
        return "expanded";
    case Layout::GRADIENT_EXPANDED:
        return "contiguous, expanded gradient";
    default:
        return "contiguous";
    }
}

std::string mode_name(const Case &c) {
    switch (c.mode) {
    case Mode::TRAIN_UNTRACKED:
        return "train, untracked";
    case Mode::TRAIN_CUMULATIVE:
        return "train, cumulative";
    case Mode::TRAIN_FROZEN:
        return "train, frozen parameters";
    case Mode::EVAL:
        return "eval";
    case Mode::EVAL_FROZEN:
        return "eval, frozen parameters";
    case Mode::EVAL_WEIGHTS_ONLY:
        return "eval, frozen input";
    default:
        return "train";
    }
}

VerifyResult describe(const Case &c, const Inputs &in) {
    VerifyResult result;
    result.shape = shape_name(c.shape);
    result.dtype = type_name(c.dtype);
    if (c.parameter_dtype != c.dtype) {
        result.dtype += ", " + type_name(c.parameter_dtype) + " parameters";
    }
    result.layout = layout_name(c);
    result.mode = mode_name(c);
    if (c.values == Values::SPECIAL) {
        result.mode += ", special values";
    }
    result.affine = c.affine;
    const OptionalTensor mean = tracked(c, in.running_mean);
    const OptionalTensor var = tracked(c, in.running_var);
    result.fused = fuses_forward(in.input, in.weight, in.bias, mean, var, trains(c)) &&
                   fuses_backward(in.input, in.weight, in.bias, mean, var, trains(c), gradients(c));
    return result;
}

} // namespace

int64_t verify_case_count() {
    return static_cast<int64_t>(cases().size());
}

VerifyResult verify_case(int64_t index, c10::Device device, bool perturb) {
    TORCH_CHECK(index >= 0 && index < verify_case_count(), "verify: no case ", index,
                "; there are ", verify_case_count());
    const Case &c = cases()[index];
    const Inputs in = make_inputs(c, index, device);
    VerifyResult result = describe(c, in);
    const Outputs expected = reference(c, in);
    Outputs actual = subject(c, in);
    if (perturb) {
        flip_last_bit(actual.output);
    }
    compare(result.outputs, "output", expected.output, actual.output);
    compare(result.outputs, "mean", expected.mean, actual.mean);
    compare(result.outputs, "invstd", expected.invstd, actual.invstd);
    compare(result.outputs, "running_mean", expected.running_mean, actual.running_mean);
    compare(result.outputs, "running_var", expected.running_var, actual.running_var);
    compare(result.outputs, "grad_input", expected.grad_input, actual.grad_input);
    compare(result.outputs, "grad_weight", expected.grad_weight, actual.grad_weight);
    compare(result.outputs, "grad_bias", expected.grad_bias, actual.grad_bias);
    return result;
}

namespace {

using NamedCase = std::tuple<std::string, bool, std::vector<std::string>, std::vector<int64_t>,
                             std::vector<double>>;

NamedCase verify_case_operator(int64_t index, c10::Device device, bool perturb) {
    const VerifyResult result = verify_case(index, device, perturb);
    std::vector<std::string> names;
    std::vector<int64_t> differing;
    std::vector<double> distances;
    for (const VerifyOutput &output : result.outputs) {
        names.push_back(output.name);
        differing.push_back(output.differing_elements);
        distances.push_back(output.max_difference);
    }
    const std::string name = result.shape + " | " + result.dtype + " | " + result.layout + " | " +
                             result.mode + (result.affine ? " | affine" : " | plain");
    return {name, result.fused, names, differing, distances};
}

} // namespace

TORCH_LIBRARY_FRAGMENT(rp, m) {
    m.def("verify_case_count() -> int", &verify_case_count);
    m.def("verify_case(int index, Device device, bool perturb) -> (str name, bool fused, "
          "str[] outputs, int[] differing_elements, float[] max_difference)",
          &verify_case_operator);
}

} // namespace rp_ops
