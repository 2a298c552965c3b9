"""return_predictor.nn.LSTM on a GPU: as exact as cuDNN's LSTM against float64, in the same test."""

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "python")]
from return_predictor import nn  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]

# What nn.LSTM gives to the library's kernels.
LEAST_BATCH, LEAST_ROWS = 192, 2048
# B, T, F, H, layers
SHAPES = [
    (1, 1, 1, 32, 1),
    (1, 20, 4, 64, 2),
    (7, 5, 3, 32, 3),
    (8, 2, 64, 64, 1),
    (9, 3, 17, 64, 2),
    (300, 20, 4, 64, 2),
    (77, 100, 4, 32, 2),
    (2200, 6, 5, 64, 1),
]
# Of the error relative to float64 beyond cuDNN's: where cuDNN's products are not in TF32 it has
# float32's own error, and operands of 16 bits give up to this.
LEAST = 5e-6


class Recurrence(torch.nn.LSTM):
    """By the library's kernels whatever the batch."""

    def forward(self, x, states=None):
        x = x.transpose(0, 1) if self.batch_first else x
        ends = []
        for layer in range(self.num_layers):
            weight, *rest = (getattr(self, f"{n}_l{layer}")
                             for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))  # fmt: skip
            before = [s[layer] for s in states] if states else [None, None]
            x, *end = torch.ops.rp.lstm_recurrence(x @ weight.T, *rest, *before)
            ends.append(end)
        x = x.transpose(0, 1) if self.batch_first else x
        return x, tuple(torch.stack(part) for part in zip(*ends))


def pair(features, hidden, layers=1, own=nn.LSTM, **options):
    torch.manual_seed(0)
    ours = own(features, hidden, layers, device="cuda", **options)
    theirs = torch.nn.LSTM(features, hidden, layers, device="cuda", **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def random_input(lstm, batch, time_steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    sizes = (batch, time_steps) if lstm.batch_first else (time_steps, batch)
    return torch.randn(*sizes, lstm.input_size, generator=generator)


def random_states(lstm, batch):
    generator = torch.Generator().manual_seed(2)
    sizes = (lstm.num_layers, batch, lstm.hidden_size)
    return tuple(torch.randn(sizes, generator=generator) for _ in range(2))


def all_used(output, h, c):
    generator = torch.Generator().manual_seed(3)
    return sum(
        (part * torch.randn(part.shape, generator=generator).to(part)).sum()
        for part in (output, h, c)
    )


def results(lstm, x, states=None, loss=all_used):
    """Outputs, and gradients of everything, by name."""
    first = next(lstm.parameters())
    x = x.to(first).requires_grad_()
    states = states and tuple(s.to(first).requires_grad_() for s in states)
    lstm.zero_grad()
    output, (h, c) = lstm(x, states) if states else lstm(x)
    loss(output, h, c).backward()
    named = {"output": output, "h": h, "c": c, "grad input": x.grad}
    named |= {f"grad {name}": p.grad for name, p in lstm.named_parameters()}
    if states:
        named |= {"grad h_0": states[0].grad, "grad c_0": states[1].grad}
    return {name: value.detach() for name, value in named.items()}


def relative(value, expected):
    return ((value.cpu().double() - expected).norm() / (expected.norm() + 1e-30)).item()


def assert_as_exact_as_cudnn(ours, theirs, x, states=None, loss=all_used):
    expected = results(copy.deepcopy(theirs).cpu().double(), x, states, loss)
    mine, cudnns = (results(lstm, x, states, loss) for lstm in (ours, theirs))
    assert mine.keys() == expected.keys()
    for name, value in expected.items():
        error, allowed = relative(mine[name], value), relative(cudnns[name], value)
        assert mine[name].shape == cudnns[name].shape and mine[name].dtype == torch.float32
        assert error <= allowed + LEAST, f"{name}: {error:.2e}, cuDNN's {allowed:.2e}"


def own_kernels(call):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return sum(event.name == "rp::lstm_recurrence_forward" for event in profile.events())


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_as_exact_as_cudnns(shape, with_states):
    B, T, F, H, layers = shape
    ours, theirs = pair(F, H, layers, Recurrence, batch_first=with_states)
    x = random_input(ours, B, T)
    assert own_kernels(lambda: ours(x.cuda())) == layers
    assert_as_exact_as_cudnn(ours, theirs, x, random_states(ours, B) if with_states else None)


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_layer_is_as_exact_as_cudnns(batch_first, with_states):
    ours, theirs = pair(4, 64, 2, batch_first=batch_first)
    x = random_input(ours, LEAST_BATCH, 20)
    assert own_kernels(lambda: ours(x.cuda())) == 2
    states = random_states(ours, LEAST_BATCH) if with_states else None
    assert_as_exact_as_cudnn(ours, theirs, x, states)


LOSSES = {
    "output": lambda output, h, c: output.square().sum(),
    "expanded gradient": lambda output, h, c: output.sum(),
    "last output": lambda output, h, c: output[-1].square().sum(),
    "h": lambda output, h, c: h.square().sum(),
    "c": lambda output, h, c: c.square().sum(),
    "transposed": lambda output, h, c: output.permute(2, 1, 0).sin().sum(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_of_some_results_alone(loss):
    ours, theirs = pair(3, 64, 2, Recurrence)
    assert_as_exact_as_cudnn(ours, theirs, random_input(ours, 11, 5), None, loss)


def test_gradient_of_a_long_memory():
    # Open forget gates carry the gradient over many steps, and errors with it.
    ours, theirs = pair(4, 64, 1, Recurrence)
    with torch.no_grad():
        for lstm in (ours, theirs):
            lstm.bias_ih_l0[64:128] = 3.0
    assert_as_exact_as_cudnn(ours, theirs, random_input(ours, 20, 200))


def test_saturated_gates_give_finite_gradients():
    ours, _ = pair(4, 64, 1, Recurrence)
    for value in results(ours, 1e4 * random_input(ours, 9, 5)).values():
        assert torch.isfinite(value).all()


@pytest.mark.parametrize(
    "options, features, context",
    [
        ({"hidden": 48}, 4, None),
        ({}, 129, None),
        ({"batch": LEAST_BATCH - 1}, 4, None),
        ({"time_steps": LEAST_ROWS // LEAST_BATCH}, 4, None),
        ({"bidirectional": True}, 4, None),
        ({"proj_size": 5}, 4, None),
        ({"bias": False}, 4, None),
        ({"dtype": torch.float64}, 4, None),
        ({}, 4, lambda: torch.backends.cudnn.flags(allow_tf32=False)),
        ({}, 4, lambda: torch.backends.cudnn.flags(enabled=False)),
        ({}, 4, lambda: torch.autocast("cuda", torch.float16)),
    ],
    ids=["H", "F", "B", "B T", "bidirectional", "projection", "bias", "float64", "tf32", "cudnn", "autocast"],
)
def test_all_else_is_torchs_own(options, features, context):
    options = dict(options)
    batch, time_steps = options.pop("batch", LEAST_BATCH), options.pop("time_steps", 20)
    ours, theirs = pair(features, options.pop("hidden", 64), **options)
    x = random_input(ours, batch, time_steps).to(next(ours.parameters()))

    def both():
        assert own_kernels(lambda: ours(x)) == 0
        assert torch.equal(ours(x)[0], theirs(x)[0])

    if context is None:
        both()
    else:
        with context():
            both()


def test_inference_has_the_bits_of_training_and_every_run_the_same():
    ours, _ = pair(4, 64, 2)
    x, states = random_input(ours, 700, 20), random_states(ours, 700)
    first = results(ours, x, states)
    for _ in range(3):
        again = results(ours, x, states)
        assert all(torch.equal(first[name], again[name]) for name in first)
    with torch.no_grad():
        output, (h, c) = ours(x.cuda(), tuple(s.cuda() for s in states))
    assert torch.equal(output, first["output"])
    assert torch.equal(h, first["h"]) and torch.equal(c, first["c"])


def test_dropout_between_layers_is_torchs():
    ours, _ = pair(4, 32, 2, dropout=0.3)
    below, above = nn.LSTM(4, 32, device="cuda"), nn.LSTM(32, 32, device="cuda")
    for layer, lstm in enumerate((below, above)):
        state = {k[:-1] + "0": v for k, v in ours.state_dict().items() if k.endswith(str(layer))}
        lstm.load_state_dict(state)
    x = random_input(ours, LEAST_BATCH, 20).cuda()
    torch.manual_seed(5)
    output = ours(x)[0]
    torch.manual_seed(5)
    dropped = torch.nn.functional.dropout(below(x)[0], 0.3)
    assert torch.equal(output, above(dropped)[0])
    assert 0.25 < (dropped == 0).float().mean() < 0.35
    assert not torch.equal(output, ours(x)[0])
    ours.eval()
    assert torch.equal(ours(x)[0], above(below(x)[0])[0])


def test_captured_in_a_cuda_graph_replays_new_inputs():
    ours, eager = (pair(4, 64, 2)[0] for _ in range(2))
    replayed = torch.cuda.make_graphed_callables(
        ours, (random_input(ours, LEAST_BATCH, 20).cuda().requires_grad_(),)
    )
    for seed in range(3):
        x = random_input(eager, LEAST_BATCH, 20, seed)
        mine, expected = results(replayed, x), results(eager, x)
        assert all(torch.equal(mine[name], expected[name]) for name in expected)


@pytest.mark.parametrize("states", [False, True])
def test_compiled_without_graph_breaks_has_eager_results(states):
    torch._dynamo.reset()
    ours, eager = (pair(4, 64, 2, batch_first=True)[0] for _ in range(2))
    states = random_states(eager, LEAST_BATCH) if states else None
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(allow_rnn=True):  # as torch.nn.LSTM needs it
        mine, expected = (results(lstm, random_input(eager, LEAST_BATCH, 20), states)
                          for lstm in (compiled, eager))  # fmt: skip
    for name, value in zip(expected, mine.values(), strict=True):
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def operator_arguments(batch=9, time_steps=3, hidden=32):
    generator = torch.Generator().manual_seed(4)
    sizes = [(time_steps, batch, 4 * hidden), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,),
             (batch, hidden), (batch, hidden)]  # fmt: skip
    return [torch.randn(s, generator=generator).mul(0.3).cuda().requires_grad_() for s in sizes]


def test_operators_pass_opcheck():
    arguments = operator_arguments()
    for hx in (arguments[4:], [None, None]):
        torch.library.opcheck(torch.ops.rp.lstm_recurrence.default, (*arguments[:4], *hx))
    plain = [a.detach() for a in arguments]
    forward = torch.ops.rp.lstm_recurrence_forward.default
    utils = ("test_schema", "test_faketensor")
    torch.library.opcheck(forward, (*plain, True), test_utils=utils)
    output, h, c, saved = forward(*plain, True)
    torch.library.opcheck(
        torch.ops.rp.lstm_recurrence_backward.default,
        (output, None, c, saved, plain[1], 9), test_utils=utils,
    )  # fmt: skip
    ours, _ = pair(4, 32, 2)
    torch.library.opcheck(
        torch.ops.rp.lstm.default,
        (random_input(ours, LEAST_BATCH, 20).cuda(), [], list(ours.parameters()), True, 2, 0.0, True, False,
         False),  # of unknown sizes it is torch's own, with other rounding
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor",
                    "test_aot_dispatch_static"),
    )  # fmt: skip


def test_a_second_derivative_is_refused_as_cudnns_is():
    for lstm in pair(4, 64):
        x = random_input(lstm, LEAST_BATCH, 20).cuda().requires_grad_()
        (grad,) = torch.autograd.grad(lstm(x)[0].square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="not implemented"):
            grad.sum().backward()


@pytest.mark.parametrize(
    "change, message",
    [
        ({0: torch.zeros(3, 9, 127)}, "projected must be"),
        ({0: torch.zeros(3, 0, 128)}, "no elements"),
        ({1: torch.zeros(128, 32).double()}, "weight must be float32"),
        ({3: torch.zeros(128)}, "bias_hh must be float32 on cuda"),
        ({4: torch.zeros(1, 9, 32)}, "h_0 must be"),
    ],
)
def test_operator_refuses_what_does_not_fit(change, message):
    arguments = [a.detach() for a in operator_arguments()]
    for k, value in change.items():
        arguments[k] = value if k == 3 else value.cuda()
    with pytest.raises(RuntimeError, match=message):
        torch.ops.rp.lstm_recurrence(*arguments)
    sizes = operator_arguments(hidden=48)
    with pytest.raises(RuntimeError, match="no kernel for hidden size 48"):
        torch.ops.rp.lstm_recurrence(*sizes)
