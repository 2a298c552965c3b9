"""return_predictor.nn.LSTM and torch.ops.rp.lstm: a drop-in for torch.nn.LSTM."""

import copy
import pickle

import pytest
import torch
from return_predictor import nn

# Float32's rounding over 64 time steps and four layers; values are below 1.
TOLERANCE = 1e-6
# B, T, F, H, layers: within the CPU kernels' limits, at them, and just outside.
FAST = [
    (1, 20, 4, 64, 2),
    (37, 20, 4, 64, 2),
    (5, 64, 32, 64, 4),
    (1, 1, 1, 1, 1),
    (70, 3, 5, 33, 3),
]
OWN = [(3, 65, 4, 8, 1), (3, 5, 33, 8, 1), (3, 5, 4, 65, 1), (3, 5, 4, 8, 5)]


def pair(features, hidden, layers=1, **options):
    torch.manual_seed(0)
    ours = nn.LSTM(features, hidden, layers, **options)
    theirs = torch.nn.LSTM(features, hidden, layers, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def parts(result):
    output, (h, c) = result
    return output, h, c


def assert_close(ours, theirs, tolerance=TOLERANCE):
    for a, b in zip(parts(ours), parts(theirs), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def took(operator, call):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return any(event.name == operator for event in profile.events())


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", FAST + OWN, ids=str)
def test_inference_equals_torchs(shape, batch_first):
    B, T, F, H, layers = shape
    ours, theirs = pair(F, H, layers, batch_first=batch_first)
    x = torch.randn(*((B, T, F) if batch_first else (T, B, F)))
    with torch.no_grad():
        assert_close(ours(x), theirs(x))
        assert took("rp::lstm_infer", lambda: ours(x)) == (shape in FAST and has_avx2())


def has_avx2():
    return "AVX2" in torch.backends.cpu.get_cpu_capability() or "AVX512" in (
        torch.backends.cpu.get_cpu_capability()
    )


def test_inference_of_a_sequence_is_the_same_in_any_batch():
    ours, _ = pair(4, 64, 2, batch_first=True)
    x = torch.randn(101, 20, 4)
    with torch.no_grad():
        whole = ours(x)[0]
        for first, last in [(0, 1), (7, 40), (100, 101)]:
            assert torch.equal(ours(x[first:last])[0], whole[first:last])


def test_inference_of_a_strided_input_equals_its_copys():
    ours, _ = pair(4, 16, batch_first=True)
    x = torch.randn(6, 18, 8)[:, ::2, ::2]
    with torch.no_grad():
        assert torch.equal(ours(x)[0], ours(x.contiguous())[0])


OPTIONS = [
    {},
    {"num_layers": 3, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"proj_size": 5},
    {"bias": False},
    {"dtype": torch.float64},
]


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_results_and_gradients_equal_torchs(options, with_states):
    ours, theirs = pair(6, 12, options.pop("num_layers", 1), **options)
    x = torch.randn(7, 7, 6, dtype=options.get("dtype"))
    rows = ours.num_layers * (2 if ours.bidirectional else 1)
    states = None
    if with_states:
        states = (
            torch.randn(rows, 7, ours.proj_size or 12, dtype=x.dtype),
            torch.randn(rows, 7, 12, dtype=x.dtype),
        )
    results = [lstm(x, states) for lstm in (ours, theirs)]
    assert_close(*results)
    for (output, (h, c)), lstm in zip(results, (ours, theirs)):
        (output.sin().sum() + h.cos().sum() + c.sum()).backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def gradients(lstm, x, states=None, loss=None):
    """Outputs, and gradients of everything, by name."""
    x = x.detach().requires_grad_()
    states = states and tuple(s.detach().requires_grad_() for s in states)
    lstm.zero_grad()
    output, (h, c) = lstm(x, states)
    loss = loss or (lambda output, h, c: output.sin().sum() + h.cos().sum() + c.square().sum())
    loss(output, h, c).backward()
    named = {"output": output, "h": h, "c": c, "grad input": x.grad}
    named |= {name: parameter.grad for name, parameter in lstm.named_parameters()}
    if states:
        named |= {"grad h_0": states[0].grad, "grad c_0": states[1].grad}
    return {name: value.detach().clone() for name, value in named.items()}


def doubled(states):
    return states and tuple(s.double() for s in states)


def assert_float32_of(mine, exact):
    assert mine.keys() == exact.keys()
    for name, expected in exact.items():
        error = (mine[name] - expected).norm() / expected.norm().clamp_min(1e-30)
        assert error < 5e-6, f"{name}: relative error {error:.1e}"  # torch's own: up to 4e-6


# B, T, F, H, layers; H a multiple of 16, of both AVX2's and AVX-512's lanes.
TRAINED = [
    (1, 1, 1, 16, 1),
    (1, 20, 4, 64, 2),
    (37, 7, 3, 48, 3),
    (70, 70, 40, 32, 1),
    (5, 3, 4, 128, 2),
]


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("shape", TRAINED, ids=str)
def test_training_equals_float64(shape, with_states):
    B, T, F, H, layers = shape
    ours, theirs = pair(F, H, layers, batch_first=with_states)
    x = torch.randn(*((B, T, F) if with_states else (T, B, F)))
    states = tuple(torch.randn(2, layers, B, H)) if with_states else None
    assert took("rp::lstm_recurrence_backward", lambda: gradients(ours, x, states)) == has_avx2()
    exact = gradients(theirs.double(), x.double(), doubled(states))
    assert_float32_of(gradients(ours, x, states), exact)


LOSSES = {
    "expanded gradient": lambda output, h, c: output.sum(),
    "last output": lambda output, h, c: output[-1].square().sum(),
    "h": lambda output, h, c: h.square().sum(),
    "c": lambda output, h, c: c.square().sum(),
    "transposed": lambda output, h, c: output.permute(2, 1, 0).sin().sum(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_training_by_some_results_alone(loss):
    ours, theirs = pair(3, 16, 2)
    x = torch.randn(5, 11, 3)
    exact = gradients(theirs.double(), x.double(), None, loss)
    assert_float32_of(gradients(ours, x, None, loss), exact)


def test_training_has_the_same_bits_on_any_number_of_threads():
    ours, _ = pair(4, 32, 2)
    x, threads = torch.randn(7, 150, 4), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = gradients(ours, x)
        torch.set_num_threads(3)
        assert all(torch.equal(v, alone[name]) for name, v in gradients(ours, x).items()
                   if "l0" not in name and "l1" not in name)  # a sum over time is MKL's
    finally:
        torch.set_num_threads(threads)


def test_training_with_dropout_drops_what_torch_drops():
    ours, theirs = pair(4, 16, 2, dropout=0.5)
    x, results = torch.randn(7, 30, 4), []
    for lstm in (ours, theirs):
        torch.manual_seed(3)
        results.append(gradients(lstm, x))
    for name, value in results[1].items():
        torch.testing.assert_close(results[0][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif("not has_avx2()", reason="torch's own, compiled, has another shape of h")
def test_training_compiled_equals_eager():
    torch._dynamo.reset()
    ours, eager = (pair(4, 16, 2)[0] for _ in range(2))
    x = torch.randn(5, 3, 4)
    with torch._dynamo.config.patch(allow_rnn=True):  # as torch.nn.LSTM needs it
        mine = gradients(torch.compile(ours, backend="aot_eager", fullgraph=True), x)
    for a, b in zip(mine.values(), gradients(eager, x).values(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("with_states", [False, True])
def test_second_derivative_in_float32_equals_torchs(with_states):
    found = []
    for lstm in pair(4, 16, 2):
        torch.manual_seed(1)
        x = torch.randn(5, 3, 4, requires_grad=True)
        states = tuple(torch.randn(2, 2, 3, 16, requires_grad=True)) if with_states else None
        output, (h, c) = lstm(x, states)
        loss = output.sin().sum() + (0 if with_states else c.square().sum())
        (grad,) = torch.autograd.grad(loss, x, create_graph=True)
        grad.square().sum().backward()
        found.append([x.grad, *(p.grad for p in lstm.parameters())])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("reuse", ["states", "output", "bias"])
def test_gradients_where_one_argument_is_made_of_another_equal_torchs(reuse, create_graph):
    found = []
    for lstm in pair(4, 16):
        torch.manual_seed(1)
        x = torch.randn(5, 3, 4)
        if reuse == "bias":
            lstm.bias_hh_l0 = lstm.bias_ih_l0
        output, states = lstm(x)
        again = output[..., :4].contiguous() if reuse == "output" else x
        loss = output.sum() if reuse == "bias" else lstm(again, states)[0].sum()
        found.append(torch.autograd.grad(loss, list(lstm.parameters()), create_graph=create_graph))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_of_the_biases_may_be_changed_one_by_one():
    found = []
    for lstm in pair(4, 16):
        for parameter in lstm.parameters():
            parameter.register_hook(lambda gradient: gradient.mul_(0.5))
        torch.manual_seed(1)
        lstm(torch.randn(5, 3, 4))[0].sum().backward()
        found.append([p.grad for p in lstm.parameters()])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_states_may_be_detached_and_changed_in_place(layers):
    for lstm in pair(4, 16, layers):
        _, (h, c) = lstm(torch.randn(5, 3, 4))
        loss = c.square().sum()
        h.mul_(2)
        (loss + h.sum()).backward()
        h.detach_()
        c.detach_()


def test_replaced_parameters_are_taken():
    ours, theirs = pair(4, 16)
    x = torch.randn(5, 3, 4)
    zeros = {name: torch.zeros_like(p) for name, p in ours.named_parameters()}
    assert torch.func.functional_call(ours, zeros, (x,))[0].abs().max() == 0
    for lstm in (ours, theirs):
        torch.nn.utils.parametrizations.weight_norm(lstm, "weight_hh_l0")
        lstm(x)[0].sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_the_meta_device_has_torchs_shapes():
    ours, theirs = pair(4, 16, 2, device="meta")
    x = torch.empty(5, 3, 4, device="meta")
    assert [t.shape for t in parts(ours(x))] == [t.shape for t in parts(theirs(x))]


@pytest.mark.parametrize("transform", ["grad", "vmap"])
def test_function_transforms_are_torchs(transform):
    ours, theirs = pair(4, 16)
    x = torch.randn(2, 5, 3, 4)
    call = {
        "grad": lambda lstm: torch.func.grad(lambda x: lstm(x)[0].sum())(x[0]),
        "vmap": lambda lstm: torch.func.vmap(lambda x: lstm(x)[0])(x),
    }[transform]
    outcomes = []
    for lstm in (ours, theirs):
        try:
            outcomes.append(call(lstm))
        except RuntimeError as error:
            outcomes.append(str(error).splitlines()[0])
    assert type(outcomes[0]) is type(outcomes[1])
    if isinstance(outcomes[0], torch.Tensor):
        torch.testing.assert_close(*outcomes)


def test_unbatched_and_packed_inputs_are_torchs():
    ours, theirs = pair(4, 8)
    x = torch.randn(5, 4)
    assert_close(ours(x), theirs(x), 0)
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(4, 4), torch.randn(2, 4)])
    (a, _), (b, _) = ours(packed), theirs(packed)
    assert torch.equal(a.data, b.data)


def test_dropout_in_training_without_gradients_is_torchs():
    ours, theirs = pair(4, 8, 2, dropout=0.5)
    x = torch.randn(5, 3, 4)
    with torch.no_grad():
        torch.manual_seed(3)
        a = ours(x)
        torch.manual_seed(3)
        assert_close(a, theirs(x), 0)


def test_autocast_gives_torchs_type():
    ours, theirs = pair(4, 8)
    x = torch.randn(5, 3, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert ours(x)[0].dtype == theirs(x)[0].dtype


@pytest.mark.parametrize(
    "input, states",
    [
        (torch.randn(5, 3, 7), None),
        (torch.randn(5, 3, 4, 1), None),
        (torch.randn(5, 3, 4).double(), None),
        (torch.randn(5, 3, 4), (torch.randn(1, 2, 8), torch.randn(1, 3, 8))),
        (torch.randn(5, 3, 4), (torch.randn(1, 3, 8), torch.randn(1, 3, 9))),
        (torch.randn(5, 0, 4), None),
    ],
    ids=["features", "dimensions", "dtype", "h", "c", "empty"],
)
def test_errors_are_torchs(input, states):
    ours, theirs = pair(4, 8)
    outcomes = []
    for lstm in (ours, theirs):
        try:
            with torch.no_grad():
                outcomes.append([tuple(t.shape) for t in parts(lstm(input, states))])
        except (RuntimeError, ValueError) as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1]


def test_state_dict_copy_and_pickle_are_interchangeable():
    ours, theirs = pair(4, 8, 2)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(5, 3, 4)
    with torch.no_grad():
        for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert torch.equal(again(x)[0], ours(x)[0])


def operator_arguments(dtype=torch.float32, requires_grad=False):
    _, lstm = pair(3, 5, 2, dtype=dtype)
    x = torch.randn(4, 2, 3, dtype=dtype, requires_grad=requires_grad)
    params = [p.detach().requires_grad_(requires_grad) for p in lstm.parameters()]
    hx = [torch.randn(2, 2, 5, dtype=dtype, requires_grad=requires_grad) for _ in range(2)]
    return x, hx, params


def test_operator_passes_opcheck():
    x, hx, params = operator_arguments()
    for states in ([], hx):
        torch.library.opcheck(
            torch.ops.rp.lstm.default, (x, states, params, True, 2, 0.0, False, False, False)
        )
    torch.library.opcheck(torch.ops.rp.lstm_infer.default, (x, params, False))


def recurrence_arguments(hidden=16):
    sizes = [(3, 8, 4 * hidden), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,), (8, hidden),
             (8, hidden)]  # fmt: skip
    torch.manual_seed(0)
    return [(0.3 * torch.randn(size)).requires_grad_() for size in sizes]


def test_recurrence_passes_opcheck():
    arguments = recurrence_arguments()
    for hx in (arguments[4:], [None, None]):
        torch.library.opcheck(torch.ops.rp.lstm_recurrence.default, (*arguments[:4], *hx))
    plain = [a.detach() for a in arguments]
    torch.library.opcheck(torch.ops.rp.lstm_recurrence_forward.default, (*plain, True))
    output, h, c, saved = torch.ops.rp.lstm_recurrence_forward(*plain, True)
    torch.library.opcheck(
        torch.ops.rp.lstm_recurrence_backward.default, (output, None, c, saved, plain[1], 8)
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({0: torch.zeros(3, 8, 63)}, "projected must be"),
        ({0: torch.zeros(3, 0, 64)}, "no elements"),
        ({1: torch.zeros(64, 16).double()}, "weight must be float32"),
        ({4: torch.zeros(1, 8, 16)}, "h_0 must be"),
    ],
)
def test_recurrence_refuses_what_does_not_fit(change, message):
    arguments = [a.detach() for a in recurrence_arguments()]
    for k, value in change.items():
        arguments[k] = value
    with pytest.raises(RuntimeError, match=message):
        torch.ops.rp.lstm_recurrence(*arguments)
    with pytest.raises(RuntimeError, match="no kernel for hidden size 13"):
        torch.ops.rp.lstm_recurrence(*recurrence_arguments(13))


def test_operator_derivatives_of_both_orders():
    x, hx, params = operator_arguments(torch.float64, requires_grad=True)

    def call(x, *rest):
        return torch.ops.rp.lstm(x, rest[:2], rest[2:], True, 2, 0.0, True, False, False)

    assert torch.autograd.gradcheck(call, (x, *hx, *params))
    assert torch.autograd.gradgradcheck(call, (x, *hx, *params))


def test_operator_refuses_what_lstm_infer_does_not_take():
    x, _, params = operator_arguments()
    with pytest.raises(RuntimeError, match="is not its shape"):
        torch.ops.rp.lstm_infer(torch.randn(65, 2, 3), params, False)
    with pytest.raises(RuntimeError, match="params four a layer"):
        torch.ops.rp.lstm_infer(x, params[:3], False)
