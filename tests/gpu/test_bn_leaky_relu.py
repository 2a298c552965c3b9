"""rp::bn_leaky_relu on a GPU: bits against eager PyTorch, repeated, captured, on other streams."""

import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]

MOMENTUM, EPS, SLOPE = 0.1, 1e-5, 0.01
SHAPES = [
    ((512, 64), torch.float32, torch.contiguous_format),
    ((4096, 64), torch.float32, torch.contiguous_format),
    ((65536, 64), torch.float32, torch.contiguous_format),
    ((20003, 257), torch.float32, torch.contiguous_format),
    ((8, 64, 56, 56), torch.float32, torch.contiguous_format),
    ((48, 32, 56, 56), torch.float32, torch.contiguous_format),
    ((8, 64, 56, 56), torch.float32, torch.channels_last),
    ((32, 16, 112, 112), torch.float16, torch.contiguous_format),
    ((32, 64, 56, 56), torch.bfloat16, torch.channels_last),
    # Several tiles for each thread block, on the chip and beyond it.
    ((16, 256, 48, 48), torch.float32, torch.channels_last),
    ((32, 136, 60, 60), torch.float32, torch.channels_last),
    ((32, 136, 60, 60), torch.bfloat16, torch.channels_last),
    # Rows whose size is no multiple of 16 bytes.
    ((40003, 33), torch.float32, torch.contiguous_format),
    ((40003, 100), torch.float16, torch.contiguous_format),
]


@pytest.fixture(autouse=True)
def without_cudnn():
    """cuDNN's arithmetic is closed; the operator has the bits of PyTorch's own kernels."""
    with torch.backends.cudnn.flags(enabled=False):
        yield


def pair(x, weight, bias, mean, var, training=True):
    return F.leaky_relu(F.batch_norm(x, mean, var, weight, bias, training, MOMENTUM, EPS), SLOPE)


def fused(x, weight, bias, mean, var, training=True):
    return torch.ops.rp.bn_leaky_relu(
        x, weight, bias, mean, var, training, MOMENTUM, EPS, SLOPE
    )


def tensors(shape, dtype, layout):
    torch.manual_seed(3)
    channels = shape[1]
    x = torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=layout)
    grad = torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=layout)
    weight, bias, mean = (torch.randn(channels, device="cuda") for _ in range(3))
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    return leaves, mean, torch.rand(channels, device="cuda") + 0.1, grad


def step(function, leaves, mean, var, grad):
    mean, var = mean.clone(), var.clone()
    output = function(*leaves, mean, var)
    return [output.detach(), mean, var, *torch.autograd.grad(output, leaves, grad)]


def bits(tensor):
    return tensor.contiguous().view(torch.int16 if tensor.element_size() == 2 else torch.int32)


def assert_same_bits(expected, actual):
    for a, b in zip(expected, actual, strict=True):
        assert torch.equal(bits(a), bits(b))


def test_case_table_on_the_gpu_differs_in_no_bit():
    different, fused_cases = {}, 0
    for index in range(torch.ops.rp.verify_case_count()):
        name, is_fused, outputs, differing, _ = torch.ops.rp.verify_case(index, "cuda", False)
        fused_cases += is_fused
        if any(differing):
            different[name] = dict(zip(outputs, differing))
    assert not different
    assert fused_cases > 1500


@pytest.mark.parametrize("shape,dtype,layout", SHAPES)
def test_fifty_runs_have_eagers_bits_each(shape, dtype, layout):
    arguments = tensors(shape, dtype, layout)
    expected = step(pair, *arguments)
    for _ in range(50):
        # Old results must not hide elements that a run did not write.
        poison = torch.full_like(arguments[0][0], float("nan"))
        del poison
        assert_same_bits(expected, step(fused, *arguments))


@pytest.mark.parametrize("shape,dtype,layout", SHAPES)
def test_captured_graph_replays_with_eagers_bits(shape, dtype, layout):
    leaves, mean, var, grad = tensors(shape, dtype, layout)
    expected = step(pair, leaves, mean, var, grad)
    static = [t.clone() for t in (mean, var)]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step(fused, leaves, mean, var, grad)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = fused(*leaves, *static)
        grads = torch.autograd.grad(output, leaves, grad)
    for _ in range(3):
        static[0].copy_(mean)
        static[1].copy_(var)
        graph.replay()
        assert_same_bits(expected, [output.detach(), *static, *grads])


def test_two_streams_at_once_have_eagers_bits():
    arguments = tensors((65536, 64), torch.float32, torch.contiguous_format)
    expected = step(pair, *arguments)
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    results = []
    for _ in range(10):
        for stream in streams:
            with torch.cuda.stream(stream):
                results.append(step(fused, *arguments))
    torch.cuda.synchronize()
    for result in results:
        assert_same_bits(expected, result)


def test_more_than_two_to_the_31_elements_have_eagers_bits():
    rows, channels = 2**31 // 64 + 1, 64
    if torch.cuda.mem_get_info()[0] < 7 * rows * channels * 2:
        pytest.skip("needs seven tensors of 4 GiB")
    x = torch.randn(rows, channels, device="cuda", dtype=torch.float16)
    with torch.no_grad():
        statistics = [torch.zeros(channels, device="cuda"), torch.ones(channels, device="cuda")]
        expected = pair(x, None, None, *[t.clone() for t in statistics])
        actual = fused(x, None, None, *statistics)
    assert torch.equal(bits(expected), bits(actual))


def test_backward_of_more_than_two_to_the_31_elements_has_eagers_bits():
    rows, channels = 2**31 // 64 + 1024, 64
    if torch.cuda.mem_get_info()[0] < 10 * rows * channels * 2:
        pytest.skip("needs ten tensors of 4 GiB")
    x = torch.randn(rows, channels, device="cuda", dtype=torch.float16, requires_grad=True)
    grad = torch.randn_like(x, requires_grad=False)
    weight, bias = (torch.randn(channels, device="cuda", requires_grad=True) for _ in range(2))
    results = []
    for function in (pair, fused):
        output = function(x, weight, bias, None, None)
        results.append(torch.autograd.grad(output, (x, weight, bias), grad))
        del output
    for expected, actual in zip(*results, strict=True):
        assert torch.equal(bits(expected), bits(actual))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("changed", range(6))
def test_change_in_place_before_backward_does_what_it_does_in_eager_mode(changed, training):
    """Of input, weight, bias, running mean, running variance or output."""
    leaves, mean, var, grad = tensors((512, 64), torch.float32, torch.contiguous_format)
    outcomes = []
    for function in (pair, fused):
        arguments = [t.clone() for t in (*leaves, mean, var)]
        output = function(*arguments, training)
        with torch.no_grad():
            [*arguments, output][changed].mul_(-2)
        try:
            outcomes.append(torch.autograd.grad(output, leaves, grad))
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error)
            outcomes.append(None)
    assert (outcomes[0] is None) == (outcomes[1] is None)
    if outcomes[0] is not None:
        assert_same_bits(*outcomes)


def test_reciprocals_of_counts_are_exact_in_a_long_chain():
    """One channel of one image: every thread's count passes 4,000."""
    arguments = tensors((1, 2, 1448, 1448), torch.float32, torch.contiguous_format)
    assert_same_bits(step(pair, *arguments), step(fused, *arguments))


def test_cudnn_is_taken_when_it_was_allowed():
    leaves, mean, var, grad = tensors((8, 16, 32, 32), torch.float32, torch.contiguous_format)
    before = torch.ops.rp.set_allow_cudnn(True)
    try:
        with torch.backends.cudnn.flags(enabled=True):
            assert_same_bits(
                step(pair, leaves, mean, var, grad), step(fused, leaves, mean, var, grad)
            )
    finally:
        torch.ops.rp.set_allow_cudnn(before)


def test_compiled_has_eagers_bits():
    arguments = tensors((4096, 64), torch.float32, torch.contiguous_format)
    assert_same_bits(
        step(pair, *arguments), step(torch.compile(fused, fullgraph=True), *arguments)
    )
