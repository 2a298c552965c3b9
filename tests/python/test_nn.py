"""return_predictor.nn.BatchNormLeakyReLU: a drop-in for BatchNorm and LeakyReLU, bit for bit."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import return_predictor
from return_predictor.nn import BatchNormLeakyReLU1d, BatchNormLeakyReLU2d, BatchNormLeakyReLU3d

from bits import all_same_bits, same_bits

CASES = [
    (BatchNormLeakyReLU1d, nn.BatchNorm1d, (12, 5)),
    (BatchNormLeakyReLU1d, nn.BatchNorm1d, (6, 5, 7)),
    (BatchNormLeakyReLU2d, nn.BatchNorm2d, (4, 5, 3, 6)),
    (BatchNormLeakyReLU3d, nn.BatchNorm3d, (3, 5, 2, 3, 4)),
]
OPTIONS = [
    {},
    {"momentum": None},
    {"affine": False},
    {"track_running_stats": False},
    {"eps": 1e-3, "momentum": 0.3, "dtype": torch.float64},
]


def pair_and_fused(fused_class, norm_class, slope=0.2, **options):
    norm = norm_class(5, **options)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    fused = fused_class(5, negative_slope=slope, **options)
    fused.load_state_dict(norm.state_dict())
    return nn.Sequential(norm, nn.LeakyReLU(slope)), fused


def run(model, input):
    input = input.clone().requires_grad_()
    output = model(input)
    model.zero_grad()
    (
        output * torch.arange(output.numel(), dtype=output.dtype).view_as(output).cos()
    ).sum().backward()
    return [output.detach(), input.grad, *(p.grad for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    "fused_class, norm_class, shape", CASES, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_layer_in_training_and_eval_equals_pair(fused_class, norm_class, shape, options):
    torch.manual_seed(0)
    pair, fused = pair_and_fused(fused_class, norm_class, **options)
    for training in (True, True, False):
        input = torch.randn(shape, dtype=options.get("dtype"))
        assert all_same_bits(run(pair.train(training), input), run(fused.train(training), input))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("fused_class, norm_class", [case[:2] for case in CASES[1:]])
def test_state_dict_loads_both_ways(fused_class, norm_class, options):
    pair, fused = pair_and_fused(fused_class, norm_class, **options)
    assert list(fused.state_dict()) == list(pair[0].state_dict())
    run(
        pair,
        torch.randn(CASES[[c[0] for c in CASES].index(fused_class)][2], dtype=options.get("dtype")),
    )
    fused.load_state_dict(pair[0].state_dict())
    again = norm_class(5, **options)
    again.load_state_dict(fused.state_dict())
    assert all_same_bits(again.state_dict().values(), pair[0].state_dict().values())


def test_state_dict_of_old_version_without_counter_loads():
    state = BatchNormLeakyReLU1d(5).state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    layer = BatchNormLeakyReLU1d(5)
    layer.load_state_dict(state)
    assert layer.num_batches_tracked == 0


def test_from_modules_and_back_share_parameters_and_buffers():
    norm = nn.BatchNorm2d(5, eps=1e-3, momentum=0.2).eval()
    fused = BatchNormLeakyReLU2d.from_modules(norm, nn.LeakyReLU(0.3))
    back, activation = fused.to_modules()
    for layer in (fused, back):
        assert layer.weight is norm.weight and layer.running_var is norm.running_var
        assert (layer.eps, layer.momentum, layer.training) == (1e-3, 0.2, False)
    assert type(back) is nn.BatchNorm2d and activation.negative_slope == 0.3


@pytest.mark.parametrize(
    "norm, act", [(nn.BatchNorm1d(5), nn.LeakyReLU()), (nn.BatchNorm2d(5), nn.ReLU())]
)
def test_from_modules_of_other_layers_raises_type_error(norm, act):
    with pytest.raises(TypeError, match="BatchNormLeakyReLU2d replaces BatchNorm2d and LeakyReLU"):
        BatchNormLeakyReLU2d.from_modules(norm, act)


def through_pickle(module):
    return pickle.loads(pickle.dumps(module))


def through_torch_save(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_torch_save])
def test_copy_computes_the_same(copied):
    fused = BatchNormLeakyReLU1d(5, negative_slope=0.2)
    input = torch.randn(8, 5)
    fused(input)
    other = copied(fused)
    assert other.weight is not fused.weight
    assert all_same_bits(run(fused, input), run(other, input))


@pytest.mark.parametrize("fused_class, norm_class, shape", CASES[1:])
def test_input_of_wrong_dimension_says_what_batch_norm_says(fused_class, norm_class, shape):
    messages = []
    for layer in (norm_class(5), fused_class(5)):
        with pytest.raises(ValueError) as raised:
            layer(torch.randn(5))
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "input", [torch.randn(1, 5), torch.randn(4, 6), torch.randn(4, 5, dtype=torch.float64)]
)
def test_unusable_input_raises_what_the_pair_raises(input):
    pair, fused = pair_and_fused(BatchNormLeakyReLU1d, nn.BatchNorm1d)
    raised = []
    for model in (pair, fused):
        with pytest.raises((RuntimeError, ValueError)) as error:
            model(input)
        raised.append((type(error.value), str(error.value)))
    assert raised[0] == raised[1]


def test_autocast_equals_pair():
    pair, fused = pair_and_fused(BatchNormLeakyReLU1d, nn.BatchNorm1d)
    linear = nn.Linear(5, 5)
    input = torch.randn(8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert same_bits(pair(linear(input)), fused(linear(input)))


def test_convert_sync_batchnorm_leaves_layer_alone():
    model = nn.Sequential(BatchNormLeakyReLU1d(5))
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(model)[0]) is BatchNormLeakyReLU1d


def test_package_names_its_parts():
    assert set(return_predictor.__all__) <= set(dir(return_predictor))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        return_predictor.absent


def test_function_refuses_eps_as_eager_does():
    x, mean, var = torch.randn(4, 3), torch.zeros(3), torch.ones(3)
    with pytest.raises(ValueError, match="eps must be positive, but got 0"):
        return_predictor.bn_leaky_relu(x, mean, var, eps=0.0)
