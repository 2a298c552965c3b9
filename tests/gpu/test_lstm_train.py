"""rp::lstm_train_ on the GPU: gradients and updates against float64, and the same bits every way
that the same training can be asked for."""

import functools
import pathlib
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import lstm_reference  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]

# Relative error (norm) of the gradient against float64, by operand type. The 10-bit mantissa of
# fp16 and TF32 gives about 1e-3, the 7 bits of bf16 eight times that, float32 (three products of
# TF32) about 1e-5; what LeakyReLU's kink adds when the sign of a number near zero flips is kept out
# by a slope of 1 (no kink).
GRADIENT_TOLERANCE = {"fp16": 4e-3, "bf16": 4e-2, "tf32": 4e-3, "fp32": 5e-5}
LOSS_TOLERANCE = {"fp16": 2e-3, "bf16": 1e-2, "tf32": 2e-3, "fp32": 2e-5}
PRECISIONS = list(GRADIENT_TOLERANCE)


class Case:
    """Sizes of a training and the state of `models` models, as the operator takes them."""

    def __init__(self, precision="fp16", batch=64, time_steps=20, features=4, hidden=64, layers=2,
                 dropout=0.2, slope=1.0, windows=300, models=1, seed=1, rate=1e-3,
                 forget=0.0):  # fmt: skip
        self.precision, self.batch, self.time_steps = precision, batch, time_steps
        self.features, self.hidden, self.layers = features, hidden, layers
        self.dropout, self.slope, self.models = dropout, slope, models
        generator = torch.Generator().manual_seed(17)
        rows = windows + time_steps + 40
        x = torch.randn(rows, features, generator=generator)
        y = torch.randn(rows, generator=generator) + 0.5 * x[:, 0]
        ends = torch.randperm(rows - time_steps + 1, generator=generator)[:windows]
        self.data = (x, y, (ends + time_steps - 1).to(torch.int32))
        self.start = torch.stack(
            [lstm_reference.initial_parameters(features, hidden, layers, 5 + m)
             for m in range(models)]  # fmt: skip
        )
        for start in self.start:
            for name, tensor in lstm_reference.split(start, features, hidden, layers).items():
                if "bias_ih" in name:
                    tensor[hidden : 2 * hidden] += forget
        self.seeds = [seed + m for m in range(models)]
        self.rates = [rate * (1 + m) for m in range(models)]
        self.ranges = [(0, windows)] * models

    def fresh(self, chosen=None):
        chosen = range(self.models) if chosen is None else chosen
        count = len(chosen)
        parameters = self.start[list(chosen)].cuda()
        return {
            "parameters": parameters,
            "exp_avg": torch.zeros_like(parameters),
            "exp_avg_sq": torch.zeros_like(parameters),
            "running_mean": torch.zeros(count, self.hidden, device="cuda"),
            "running_var": torch.ones(count, self.hidden, device="cuda"),
            "scale_state": torch.zeros(count, 3, device="cuda"),
        }

    def arguments(self, state, losses, first_step, chosen):
        """Of the operator; losses [chosen, steps]."""
        x, y, ends = (t.cuda() for t in self.data)
        return (
            state["parameters"], state["exp_avg"], state["exp_avg_sq"], state["running_mean"],
            state["running_var"], losses, state["scale_state"], x, y, ends,
            torch.tensor([self.ranges[m] for m in chosen]),
            torch.tensor([self.seeds[m] for m in chosen]),
            torch.tensor([self.rates[m] for m in chosen], dtype=torch.float64),
            first_step, losses.shape[1], self.batch, self.time_steps, self.hidden, self.layers,
            self.dropout, 0.1, 1e-5, self.slope, 0.9, 0.999, 1e-8, self.precision,
        )  # fmt: skip

    def train(self, state, first_step, steps, chosen=None):
        chosen = list(range(self.models) if chosen is None else chosen)
        losses = torch.full((len(chosen), steps), float("nan"), device="cuda")
        torch.ops.rp.lstm_train_(*self.arguments(state, losses, first_step, chosen))
        torch.cuda.synchronize()
        return losses.cpu()

    def reference(self, model=0):
        return lstm_reference.Model(
            self.start[model], self.features, self.hidden, self.layers, self.dropout, self.slope,
            self.rates[model],
        )  # fmt: skip

    def reference_step(self, reference, step, model=0):
        first, count = self.ranges[model]
        x, y, ends = self.data
        return reference.step(
            (x, y, ends[first : first + count]), self.seeds[model], step, self.batch,
            self.time_steps,
        )  # fmt: skip


def relative(value, expected):
    """Error over the norm of what is expected; over 1 where that is 0."""
    scale = expected.norm().item() or 1.0
    return (value - expected).norm().item() / scale


def assert_same_bits(state, expected, what):
    for name in expected:
        assert torch.equal(state[name], expected[name]), f"{what}: {name} differs"


def check_first_gradient(case, step=0, times=1, expected_step=None):
    """times: of the tolerance is allowed. expected_step: (loss, gradient), if known."""
    state = case.fresh()
    loss = case.train(state, step, 1)[0, 0].item()
    expected_loss, expected = expected_step or case.reference_step(case.reference(), step)
    assert loss == pytest.approx(expected_loss, rel=times * LOSS_TOLERANCE[case.precision])
    gradient = state["exp_avg"][0].cpu().double() / 0.1
    tolerance = times * GRADIENT_TOLERANCE[case.precision]
    sizes = (case.features, case.hidden, case.layers)
    named = lstm_reference.split(gradient, *sizes)
    for name, value in lstm_reference.split(expected, *sizes).items():
        # Bias gradients are nearly cancelling sums: BatchNorm removes what all rows share.
        allowed = tolerance * (8 if "bias" in name else 3)
        error = relative(named[name], value)
        assert error < allowed, f"{name}: relative error {error:.2e} > {allowed:.1e}"
    assert relative(gradient, expected) < tolerance
    return state


@functools.cache
def expected_first_step(sizes):
    """Of a case with these sizes (a tuple of items), whatever its precision."""
    case = Case(**dict(sizes))
    return case.reference_step(case.reference(), 0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [64, 300])
def test_gradient_default_model_matches_float64(precision, batch):
    check_first_gradient(Case(precision, batch=batch))


@pytest.mark.parametrize("precision", ["fp16", "tf32", "fp32"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"time_steps": 1}, {"time_steps": 2}, {"time_steps": 3, "batch": 9}, {"time_steps": 23},
        {"time_steps": 24}, {"time_steps": 37, "batch": 50}, {"time_steps": 64, "batch": 24},
        {"features": 1}, {"features": 5}, {"features": 16}, {"features": 17}, {"features": 32},
        {"hidden": 32}, {"hidden": 32, "time_steps": 64, "features": 9}, {"layers": 1},
        {"layers": 1, "hidden": 32, "time_steps": 7}, {"layers": 1, "time_steps": 40},
        {"batch": 2}, {"batch": 7}, {"batch": 8}, {"batch": 13, "windows": 299}, {"dropout": 0.0},
        {"dropout": 0.7}, {"batch": 1024, "windows": 1500}, {"batch": 1030, "windows": 1100},
        {"batch": 2000, "windows": 2000, "time_steps": 30}, {"batch": 4096, "windows": 4096},
        {"batch": 9000, "windows": 9000, "time_steps": 5},  # more tiles a block than found at once
        {"batch": 701, "windows": 701, "time_steps": 41, "features": 9, "hidden": 32, "layers": 1},
    ],
    ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()),
)  # fmt: skip
def test_gradient_odd_sizes_match_float64(sizes, precision):
    expected = expected_first_step(tuple(sizes.items()))
    check_first_gradient(Case(precision, **sizes), expected_step=expected)


@pytest.mark.parametrize("precision", ["fp16", "tf32", "fp32"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("time_steps", [37, 64])
def test_gradient_of_a_long_memory_matches_float64(time_steps, layers, precision):
    # Open forget gates carry the gradient back over the ends of segments, and errors with it: fp16
    # weights alone cost up to 3e-3 here; without the carry it is off by half.
    case = Case(precision, time_steps=time_steps, layers=layers, forget=2.5, batch=40)
    check_first_gradient(case, times=2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradient_ragged_last_batch_matches_float64(precision):
    case = Case(precision, batch=64, windows=64 * 3 + 21)
    check_first_gradient(case, step=3)
    check_first_gradient(case, step=6)


def test_a_last_batch_of_one_row_is_left_out():
    case = Case("fp16", batch=64, windows=64 * 3 + 1)
    check_first_gradient(case, step=3)  # the first of epoch 1


def test_running_statistics_move_as_batch_norm_does():
    case = Case("fp16", batch=77)
    reference = case.reference()
    state = check_first_gradient(case, expected_step=case.reference_step(reference, 0))
    assert relative(state["running_mean"][0].cpu().double(), reference.norm.running_mean) < 1e-3
    assert relative(state["running_var"][0].cpu().double(), reference.norm.running_var) < 1e-3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_thirty_steps_follows_float64(precision):
    case = Case(precision, batch=64, windows=300, slope=0.01)
    reference = case.reference()
    losses = case.train(case.fresh(), 0, 30)[0].double()
    expected = torch.tensor([case.reference_step(reference, s)[0] for s in range(30)])
    # A sign that flips at LeakyReLU's kink costs 1e-4, in float32 as well.
    tolerance = max(3 * LOSS_TOLERANCE[precision], 5e-4)
    assert (losses - expected).abs().max() < tolerance * expected.mean()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sizes", [{"batch": 64}, {"batch": 1024, "windows": 2500}])
def test_training_again_gives_the_same_bits(precision, sizes):
    case = Case(precision, **sizes)
    first, second = case.fresh(), case.fresh()
    assert torch.equal(case.train(first, 0, 40), case.train(second, 0, 40))
    assert_same_bits(first, second, "second run")


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_training_in_pieces_gives_the_same_bits_as_one_launch(precision):
    case = Case(precision, batch=64, windows=300)
    whole, pieces = case.fresh(), case.fresh()
    losses = case.train(whole, 0, 20)
    parts = [case.train(pieces, s, n) for s, n in ((0, 1), (1, 1), (2, 7), (9, 11))]
    assert torch.equal(losses, torch.cat(parts, 1))
    assert_same_bits(whole, pieces, "four launches")


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("sizes, models", [
    ({"batch": 64}, 3),
    ({"batch": 200}, 9),
    ({"batch": 32}, 70),
    # Alone, two blocks of a multiprocessor make room for the sums that a block carries.
    ({"batch": 600, "windows": 700, "time_steps": 26, "hidden": 32, "layers": 1}, 3),
])  # fmt: skip
def test_training_many_models_gives_each_its_own_bits(sizes, models, precision):
    case = Case(precision, models=models, **{"windows": 300, **sizes})
    windows = len(case.data[2]) - 20
    case.ranges = [(m % 5 * 3, windows - m % 7 * 10) for m in range(models)]
    together = case.fresh()
    losses = case.train(together, 2, 12)
    for model in (0, models // 2, models - 1):
        alone = case.fresh([model])
        assert torch.equal(case.train(alone, 2, 12, [model])[0], losses[model])
        for name in alone:
            assert torch.equal(alone[name][0], together[name][model]), f"model {model}: {name}"


def test_overflow_skips_the_step_and_halves_the_scale():
    case = Case("fp16", batch=64)
    state = case.fresh()
    before = {name: value.clone() for name, value in state.items()}
    state["scale_state"][0, 0] = 2.0**40
    case.train(state, 0, 1)
    assert state["scale_state"][0].tolist() == [2.0**39, 0.0, 1.0]
    for name in ("parameters", "exp_avg", "exp_avg_sq"):
        assert torch.equal(state[name], before[name]), name
    case.train(state, 1, 60)
    scale, good, skipped = state["scale_state"][0].tolist()
    assert 0 < good <= 61 - skipped and skipped < 40 and scale == 2.0 ** (40 - skipped)
    assert torch.isfinite(state["parameters"]).all()
    assert not torch.equal(state["parameters"], before["parameters"])


@pytest.mark.parametrize("before, after", [(256.0, 512.0), (512.0, 512.0)])
def test_loss_scale_doubles_after_two_thousand_good_steps_up_to_its_first_value(before, after):
    case = Case("fp16", batch=64)  # its first scale is 8 * 64
    state = case.fresh()
    state["scale_state"][0] = torch.tensor([before, 1998.0, 3.0])
    case.train(state, 2001, 1)
    assert state["scale_state"][0].tolist() == [before, 1999.0, 3.0]
    case.train(state, 2002, 1)
    assert state["scale_state"][0].tolist() == [after, 0.0, 3.0]


def test_operator_passes_opcheck():
    case = Case("fp16", batch=16, time_steps=4, windows=40)
    state, losses = case.fresh(), torch.zeros(1, 2, device="cuda")
    torch.library.opcheck(
        torch.ops.rp.lstm_train_.default, case.arguments(state, losses, 0, [0]),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )  # fmt: skip


def test_capture_in_a_graph_is_refused():
    # A replay would train the same steps again: they are numbers of the host.
    case = Case("fp16", batch=16, time_steps=4, windows=40)
    state, losses = case.fresh(), torch.zeros(1, 2, device="cuda")
    arguments = case.arguments(state, losses, 0, [0])
    with pytest.raises(RuntimeError, match="can't be captured in a CUDA graph"):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            torch.ops.rp.lstm_train_(*arguments)
    torch.cuda.synchronize()
    case.train(state, 0, 1)


def test_windows_outside_the_data_are_refused():
    case = Case("fp16")
    case.ranges = [(1, 300)]
    with pytest.raises(RuntimeError, match="and there are 300"):
        case.train(case.fresh(), 0, 1)


def test_dropout_of_the_kernel_is_the_operators_mask():
    # With the wrong mask the gradient is off by its own size.
    case = Case("fp16", dropout=0.5, batch=40)
    check_first_gradient(case, step=5)
    case.seeds = [2]
    check_first_gradient(case, step=5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"windows": 1, "batch": 64}, "more than 1 value per channel"),
        ({"batch": 1}, "more than 1 value per channel"),
        ({"hidden": 128}, "hidden size 32 or 64"),
        ({"time_steps": 65}, "1 to 64 time steps"),
        ({"features": 33}, "1 to 32 features"),
    ],
)
def test_training_what_does_not_fit_is_refused(change, message):
    case = Case(**change)
    with pytest.raises(RuntimeError, match=message):
        case.train(case.fresh(), 0, 1)
