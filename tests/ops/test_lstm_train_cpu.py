"""rp::lstm_train_ on the CPU: losses, gradients and updates against float64, models apart."""

import pytest
import torch

import lstm_reference

# Relative error (norm): float32 sums over rows and 20 time steps. The slope of 1 keeps out what
# LeakyReLU's kink adds when the sign of a number near zero flips.
GRADIENT_TOLERANCE = 1e-4
LOSS_TOLERANCE = 1e-6
FEATURES, TIME_STEPS, HIDDEN, LAYERS, BATCH, WINDOWS = 4, 20, 64, 2, 64, 150


def make_data():
    generator = torch.Generator().manual_seed(17)
    rows = WINDOWS + TIME_STEPS + 40
    x = torch.randn(rows, FEATURES, generator=generator)
    y = torch.randn(rows, generator=generator) + 0.5 * x[:, 0]
    ends = torch.randperm(rows - TIME_STEPS + 1, generator=generator)[:WINDOWS] + TIME_STEPS - 1
    return x, y, ends.to(torch.int32)


def arguments(seeds, steps, data, first_step=0, precision="fp32"):
    """What the operator changes, by name, and all that it takes."""
    models = len(seeds)
    parameters = torch.stack(
        [lstm_reference.initial_parameters(FEATURES, HIDDEN, LAYERS, seed) for seed in seeds]
    )
    state = {
        "parameters": parameters,
        "exp_avg": torch.zeros_like(parameters),
        "exp_avg_sq": torch.zeros_like(parameters),
        "running_mean": torch.zeros(models, HIDDEN),
        "running_var": torch.ones(models, HIDDEN),
        "losses": torch.zeros(models, steps),
        "scale_state": torch.zeros(models, 3),
    }
    return state, (
        *state.values(), *data, torch.tensor([[0, WINDOWS]] * models), torch.tensor(seeds),
        torch.tensor([1e-3] * models, dtype=torch.float64), first_step, steps, BATCH, TIME_STEPS,
        HIDDEN, LAYERS, 0.2, 0.1, 1e-5, 1.0, 0.9, 0.999, 1e-8, precision,
    )  # fmt: skip


def train(*what, **more):
    state, taken = arguments(*what, **more)
    torch.ops.rp.lstm_train_(*taken)
    return state


@pytest.mark.parametrize("step", [0, 2, 4], ids=["first", "ragged", "second_epoch"])
def test_one_step_equals_float64(step):
    data = make_data()
    state = train([5], 1, data, first_step=step)
    flat = lstm_reference.initial_parameters(FEATURES, HIDDEN, LAYERS, 5)
    reference = lstm_reference.Model(flat, FEATURES, HIDDEN, LAYERS, 0.2, 1.0, 1e-3)
    loss, gradient = reference.step(data, 5, step, BATCH, TIME_STEPS)
    assert state["losses"].item() == pytest.approx(float(loss), rel=LOSS_TOLERANCE)
    found = state["exp_avg"][0].double() / 0.1
    distance = (found - gradient).norm() / gradient.norm()
    assert distance <= GRADIENT_TOLERANCE
    for name in ("running_mean", "running_var"):
        expected = getattr(reference.norm, name)
        assert (state[name][0] - expected).abs().max() <= 1e-6, name


def test_models_are_apart():
    data = make_data()
    both, second = train([5, 6], 3, data), train([6], 3, data)
    for name in both:
        assert torch.equal(both[name][1], second[name][0]), name
        if name != "scale_state":
            assert not torch.equal(both[name][0], both[name][1]), name


def test_opcheck_passes():
    torch.library.opcheck(
        torch.ops.rp.lstm_train_.default, arguments([5], 2, make_data())[1],
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


def test_meta_tensors_are_checked():  # all but ranges, seeds and rates, which are the host's
    _, taken = arguments([5], 2, make_data())
    meta = [tensor.to("meta") for tensor in taken[:10]]
    torch.ops.rp.lstm_train_(*meta, *taken[10:])
    meta[5] = torch.zeros(1, 3, device="meta")
    with pytest.raises(RuntimeError, match="losses"):
        torch.ops.rp.lstm_train_(*meta, *taken[10:])


def test_bad_arguments_are_refused():
    x, y, ends = make_data()
    with pytest.raises(RuntimeError, match="the CPU trains in fp32"):
        train([5], 1, (x, y, ends), precision="fp16")
    ends[7] = 3
    with pytest.raises(RuntimeError, match="window 7 ends at row 3"):
        train([5], 1, (x, y, ends))
