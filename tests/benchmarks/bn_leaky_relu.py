"""Measures rp::bn_leaky_relu on one GPU and writes results/bn_leaky_relu.json.

Every candidate runs in the same process on the same tensors: eager PyTorch (cuDNN off: the
reference of the bits), torch.compile (Inductor), and the operator. Times are medians of replays of
a CUDA graph, and of plain calls. cuDNN stays off, because its arithmetic is another one.

    python tests/benchmarks/bn_leaky_relu.py --library build/default/lib/librp_ops.so \\
        --out results/bn_leaky_relu.json
"""

import argparse
import gc
import pathlib
import statistics
import time

import result_file
import torch
import torch.nn.functional as F

MOMENTUM, EPS, SLOPE = 0.1, 1e-5, 0.01
CHANNELS_LAST = torch.channels_last

# shape, type, layout
CASES = [
    ((512, 64), torch.float32, "contiguous"),
    ((4096, 64), torch.float32, "contiguous"),
    ((65536, 64), torch.float32, "contiguous"),
    ((100003, 257), torch.float32, "contiguous"),
    ((1048576, 64), torch.float32, "contiguous"),
    ((32, 256, 56, 56), torch.float32, "contiguous"),
    ((32, 256, 56, 56), torch.float32, "channels_last"),
    ((64, 64, 112, 112), torch.float16, "contiguous"),
    ((64, 64, 112, 112), torch.bfloat16, "channels_last"),
]
HOST_SHAPE = (512, 64)


def eager(x, weight, bias, mean, var, training):
    return F.leaky_relu(F.batch_norm(x, mean, var, weight, bias, training, MOMENTUM, EPS), SLOPE)


def fused(x, weight, bias, mean, var, training):
    return torch.ops.rp.bn_leaky_relu(
        x, weight, bias, mean, var, training, MOMENTUM, EPS, SLOPE
    )


class Tensors:
    def __init__(self, shape, dtype, layout):
        generator = torch.Generator("cuda").manual_seed(1)

        def normal(*size):
            return torch.randn(*size, device="cuda", generator=generator)

        channels = shape[1]
        per_channel = [1, channels] + [1] * (len(shape) - 2)
        x = normal(*shape) * (0.1 + normal(channels).abs()).view(per_channel)
        x = (x + normal(channels).view(per_channel)).to(dtype)
        grad = normal(*shape).to(dtype)
        if layout == "channels_last":
            x = x.contiguous(memory_format=CHANNELS_LAST)
            grad = grad.contiguous(memory_format=CHANNELS_LAST)
        self.x, self.grad = x, grad
        self.weight, self.bias = normal(channels), normal(channels)
        self.mean, self.var = normal(channels), normal(channels).abs() + 0.1
        self.leaves = [t.clone().requires_grad_() for t in (x, self.weight, self.bias)]

    def forward(self, function, training=True):
        with torch.no_grad():
            return function(self.x, self.weight, self.bias, self.mean, self.var, training)

    def forward_backward(self, function):
        output = function(*self.leaves, self.mean, self.var, True)
        return torch.autograd.grad(output, self.leaves, self.grad)


def median_replay_us(call, calls, replays=15):
    """Microseconds of one call: median over replays of a CUDA graph that holds `calls` calls."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    for _ in range(3):
        graph.replay()
    return median_event_us(graph.replay, replays) / calls


def median_event_us(call, repeats):
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2 * repeats)]
    for k in range(repeats):
        events[2 * k].record()
        call()
        events[2 * k + 1].record()
    torch.cuda.synchronize()
    return 1e3 * statistics.median(
        events[2 * k].elapsed_time(events[2 * k + 1]) for k in range(repeats)
    )


def median_call_us(call, calls, repeats=7):
    """The same without a graph: wall time of `calls` calls in a row."""
    for _ in range(5):
        call()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / calls)
    return 1e6 * statistics.median(times)


def host_us(calls, count=100, rounds=20):
    """Host time of each call, which does not wait for the device.

    The calls take turns, and the least of the rounds counts: whatever else the machine does only
    adds to it.
    """
    least = {}
    for number in range(rounds + 1):  # the first one warms up
        for name, call in calls.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(count):
                call()
            us = 1e6 * (time.perf_counter() - start) / count
            if number:
                least[name] = min(us, least.get(name, us))
    return least


def host_times(tensors, functions):
    """host_us of every candidate's forward, and of its forward and backward."""
    times = {name: {} for name in functions}
    for what in ("forward", "forward_backward"):
        run = getattr(tensors, what)
        calls = {name: lambda f=function: run(f) for name, function in functions.items()}
        for name, us in host_us(calls).items():
            times[name][what] = round(us, 2)
    return times


def saved_bytes(tensors, function):
    """Growth of allocated memory across a forward, less the output; the input is there anyway."""
    gc.collect()  # earlier calls' graphs must not be freed in between
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    output = function(*tensors.leaves, tensors.mean, tensors.var, True)
    torch.cuda.synchronize()
    after = torch.cuda.memory_allocated()
    return after - before - output.untyped_storage().nbytes()


def copy_bandwidth():
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    us = median_replay_us(lambda: target.copy_(source), 4)
    return 2 * source.numel() * source.element_size() / us / 1e6


def measure(tensors, function, calls):
    rows = []
    for graph in (True, False):
        timer = median_replay_us if graph else median_call_us
        times = {
            "forward_us": timer(lambda: tensors.forward(function), calls),
            "forward_backward_us": timer(lambda: tensors.forward_backward(function), calls),
            "eval_forward_us": timer(lambda: tensors.forward(function, False), calls),
        }
        rows.append({"graph": graph, **{k: round(v, 2) for k, v in times.items()}})
    return rows


def candidates(names):
    torch._dynamo.reset()
    functions = {"eager": eager, "rp": fused, "inductor": torch.compile(eager, dynamic=False)}
    return {name: functions[name] for name in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", required=True, help="librp_ops.so")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--candidates", default="eager,inductor,rp")
    arguments = parser.parse_args()
    torch.ops.load_library(arguments.library)
    torch.backends.cudnn.enabled = False

    result = {
        "copy_bandwidth_tb_s": round(copy_bandwidth(), 3),
        "not_run": [
            {
                "candidate": "inplace_abn",
                "reason": "its extension is built from source against one torch, and this machine "
                "has no network; it computes another function and can't be captured",
            }
        ],
        "host_us": {},
        "rows": [],
    }
    for shape, dtype, layout in CASES:
        tensors = Tensors(shape, dtype, layout)
        size = tensors.x.numel() * tensors.x.element_size()
        calls = max(1, min(20, int(2e8 / size)))
        functions = candidates(arguments.candidates.split(","))
        for name, function in functions.items():
            for row in measure(tensors, function, calls):
                row = {
                    "shape": list(shape),
                    "dtype": str(dtype).removeprefix("torch."),
                    "layout": layout,
                    "candidate": name,
                    **row,
                    "saved_bytes": saved_bytes(tensors, function),
                }
                result["rows"].append(row)
                print(row, flush=True)
        if shape == HOST_SHAPE:
            result["host_us"] = host_times(tensors, functions)
            print(result["host_us"], flush=True)
        del tensors
        torch.cuda.empty_cache()
    result_file.write(
        arguments.out,
        result,
        gpu=torch.cuda.get_device_name(),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
