"""rp::bn_leaky_relu on the CPU: the shared case table, derivatives, errors and PyTorch's tooling."""

import copy
import io

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

op = torch.ops.rp.bn_leaky_relu
MOMENTUM, EPS, SLOPE = 0.1, 1e-5, 0.3


def pair(x, weight, bias, mean, var, training):
    return F.leaky_relu(F.batch_norm(x, mean, var, weight, bias, training, MOMENTUM, EPS), SLOPE)


def fused(x, weight, bias, mean, var, training):
    return op(x, weight, bias, mean, var, training, MOMENTUM, EPS, SLOPE)


def tensors(shape=(10, 4), dtype=torch.float32, affine=True, requires_grad=True):
    torch.manual_seed(7)
    channels = shape[1]
    x = torch.randn(shape, dtype=dtype, requires_grad=requires_grad)
    weight = bias = None
    if affine:
        weight = torch.randn(channels, dtype=dtype, requires_grad=requires_grad)
        bias = torch.randn(channels, dtype=dtype, requires_grad=requires_grad)
    return x, weight, bias, torch.randn(channels, dtype=dtype), torch.rand(channels, dtype=dtype) + 0.1


def leaves(x, weight, bias):
    return [t for t in (x, weight, bias) if t is not None]


def test_case_table_on_the_cpu_differs_in_no_bit():
    count = torch.ops.rp.verify_case_count()
    assert count >= 500
    different = {}
    for index in range(count):
        name, is_fused, outputs, differing, _ = torch.ops.rp.verify_case(index, "cpu", False)
        assert not is_fused
        if any(differing):
            different[name] = dict(zip(outputs, differing))
    assert not different


def test_case_table_perturbed_differs():
    _, _, outputs, differing, _ = torch.ops.rp.verify_case(0, "cpu", True)
    assert dict(zip(outputs, differing))["output"] == 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(10, 4), (4, 3, 5), (3, 2, 4, 5)])
def test_gradients_in_float64_equal_finite_differences(shape, training):
    x, weight, bias, mean, var = tensors(shape, torch.float64)

    def function(x, weight, bias):
        return fused(x, weight, bias, mean.clone(), var.clone(), training)

    assert torch.autograd.gradcheck(function, (x, weight, bias))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias))


@pytest.mark.parametrize("training", [True, False])
def test_double_backward_has_eagers_bits(training):
    results = []
    for function in (pair, fused):
        x, weight, bias, mean, var = tensors((50, 7))
        output = function(x, weight, bias, mean, var, training)
        torch.manual_seed(1)
        first = torch.autograd.grad(output, (x, weight, bias), torch.randn_like(output), create_graph=True)
        loss = sum((g * g).sum() for g in first)
        results.append(torch.autograd.grad(loss, (x, weight, bias)))
    for expected, actual in zip(*results):
        assert torch.equal(expected, actual)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_opcheck_passes(training, affine):
    x, weight, bias, mean, var = tensors(affine=affine)
    torch.library.opcheck(op, (x, weight, bias, mean, var, training, MOMENTUM, EPS, SLOPE))
    detached = [None if t is None else t.detach() for t in (x, weight, bias)]
    arguments = (*detached, mean, var, training, MOMENTUM, EPS, SLOPE)
    torch.library.opcheck(torch.ops.rp.bn_leaky_relu_forward, arguments)
    _, batch_mean, invstd, _ = torch.ops.rp.bn_leaky_relu_forward(*arguments)
    mask = [True, affine, affine]
    torch.library.opcheck(
        torch.ops.rp.bn_leaky_relu_backward,
        (detached[0], *detached, mean, var, batch_mean, invstd, training, EPS, SLOPE, mask),
    )


@pytest.mark.parametrize(
    "permute", [lambda x: x.transpose(1, 2), lambda x: x[..., 0].mT[1], lambda x: x[:, ::2]]
)
@pytest.mark.parametrize("training", [True, False])
def test_layout_of_results_is_what_compilers_are_told(training, permute):
    x = permute(torch.randn(4, 6, 5, 3))
    weight, bias, mean, var = torch.rand(4, x.shape[1]).unbind()
    fake = FakeTensorMode()

    def check(op, *arguments):
        results = op(*arguments)
        told = op(*(fake.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments))
        assert [t.stride() for t in told] == [t.stride() for t in results]
        return results

    ops = torch.ops.rp
    output, batch_mean, invstd, _ = check(
        ops.bn_leaky_relu_forward, x, weight, bias, mean, var, training, MOMENTUM, EPS, SLOPE
    )
    check(
        ops.bn_leaky_relu_backward, torch.ones_like(output), x, weight, bias, mean, var, batch_mean,
        invstd, training, EPS, SLOPE, [True] * 3,
    )  # fmt: skip


def test_training_between_evaluation_and_its_backward_changes_no_gradient():
    gradients = []
    for trains in (False, True):
        x, weight, bias, mean, var = tensors()
        loss = fused(x, weight, bias, mean, var, False).square().sum()
        if trains:  # moves the running statistics
            fused(x.detach() * 2 + 3, weight, bias, mean, var, True)
        gradients.append(torch.autograd.grad(loss, (x, weight, bias)))
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


@pytest.mark.parametrize("training", [True, False])
def test_compiled_has_eagers_bits_and_no_graph_break(training):
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    results = []
    for function in (pair, compiled):
        x, weight, bias, mean, var = tensors((33, 5))
        output = function(x, weight, bias, mean, var, training)
        grads = torch.autograd.grad(output.sum(), (x, weight, bias))
        results.append((output, mean, var, *grads))
    for expected, actual in zip(*results):
        assert torch.equal(expected, actual)


def test_exported_program_has_eagers_bits():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            _, weight, bias, mean, var = tensors(requires_grad=False)
            self.weight, self.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
            self.register_buffer("mean", mean)
            self.register_buffer("var", var)

        def forward(self, x):
            return fused(x, self.weight, self.bias, self.mean, self.var, False)

    model = Model()
    x = torch.randn(6, 4)
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    assert torch.load(saved).keys() == model.state_dict().keys()


def test_autocast_leaves_the_pair_and_the_operator_alike():
    x, weight, bias, mean, var = tensors()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = pair(x, weight, bias, mean.clone(), var.clone(), True)
        actual = fused(x, weight, bias, mean.clone(), var.clone(), True)
    assert expected.dtype == actual.dtype
    assert torch.equal(expected, actual)


def test_vmap_jvp_and_grad_transforms_equal_the_pairs():
    x, weight, bias, _, _ = tensors(requires_grad=False)
    batch = torch.randn(3, 10, 4)

    def over(function):
        return lambda x: function(x, weight, bias, None, None, True)

    for transform in (
        lambda f: torch.func.vmap(f)(batch),
        lambda f: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
        lambda f: torch.func.grad(lambda x: f(x).sum())(x),
    ):
        assert torch.equal(transform(over(pair)), transform(over(fused)))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        assert forward_ad.unpack_dual(over(fused)(dual)).tangent is not None


BAD_ARGUMENTS = {
    "one_value_a_channel": lambda f: f(torch.randn(1, 4), None, None, None, None, True),
    "one_value_a_channel_in_images": lambda f: f(torch.randn(1, 4, 1, 1), None, None, None, None, True),
    "short_running_mean": lambda f: f(torch.randn(3, 4), None, None, torch.zeros(3), torch.ones(4), True),
    "long_weight": lambda f: f(torch.randn(3, 4), torch.ones(5), torch.ones(4), None, None, True),
    "no_statistics_in_evaluation": lambda f: f(torch.randn(3, 4), None, None, None, None, False),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_refusals_say_what_eager_says(name):
    messages = []
    for function in (pair, fused):
        with pytest.raises((RuntimeError, ValueError)) as refusal:
            BAD_ARGUMENTS[name](function)
        messages.append((refusal.type, str(refusal.value)))
    assert messages[0] == messages[1]


def test_empty_batch_returns_empty_and_keeps_the_statistics():
    x, weight, bias, mean, var = tensors((0, 4))
    before = mean.clone(), var.clone()
    output = fused(x, weight, bias, mean, var, True)
    assert output.shape == (0, 4)
    assert torch.equal(mean, before[0]) and torch.equal(var, before[1])
    output.sum().backward()
    assert x.grad.shape == x.shape


def test_forward_keeps_one_activation():
    kept = []
    x, weight, bias, mean, var = tensors((1000, 8))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        fused(x, weight, bias, mean, var, True)
    assert sum(size >= x.numel() for size in kept) == 1


def test_two_forwards_before_the_backwards_have_eagers_bits():
    results = []
    for function in (pair, fused):
        x, weight, bias, mean, var = tensors()
        first = function(x, weight, bias, mean, var, True)
        second = function(x + 1, weight, bias, mean, var, True)
        (first.square().sum() + second.sum()).backward()
        results.append([mean, var, *(t.grad for t in leaves(x, weight, bias))])
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize("training", [True, False])
def test_expanded_and_transposed_gradients_have_eagers_bits(training):
    for grad in (torch.tensor(0.5).expand(10, 4), torch.randn(4, 1).expand(4, 10).t()):
        results = []
        for function in (pair, fused):
            x, weight, bias, mean, var = tensors()
            output = function(x, weight, bias, mean, var, training)
            results.append(torch.autograd.grad(output, (x, weight, bias), grad))
        assert all(torch.equal(a, b) for a, b in zip(*results))


ARGUMENTS = ["input", "weight", "bias", "running_mean", "running_var", "output"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("changed", ARGUMENTS)
def test_change_in_place_before_backward_does_what_it_does_in_eager_mode(changed, training):
    """Refused, or without effect on the gradients."""
    outcomes = []
    for function in (pair, fused):
        x, weight, bias, mean, var = tensors()
        arguments = [x.clone(), weight.clone(), bias.clone(), mean, var]
        output = function(*arguments, training)
        with torch.no_grad():
            [*arguments, output][ARGUMENTS.index(changed)].mul_(-2)
        grad = torch.linspace(-1, 1, output.numel()).view_as(output)
        try:
            outcomes.append(torch.autograd.grad(output, (x, weight, bias), grad))
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error)
            outcomes.append(None)
    expected, actual = outcomes
    assert (expected is None) == (actual is None) == (changed not in ("bias", "output"))
    if expected is not None:
        assert all(torch.equal(a, b) for a, b in zip(expected, actual))
