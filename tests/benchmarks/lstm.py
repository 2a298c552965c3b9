"""return_predictor.nn.LSTM beside torch.nn.LSTM, microseconds a call -> results/lstm.json

    python tests/benchmarks/lstm.py [--device cuda] [--batches 1 64 512 4096] [--out FILE]

Two layers with dropout between them. `forward` is inference without gradients, `training` forward
and the gradients of all parameters. On a GPU both are timed eagerly and as a CUDA graph. The two
take turns in each round; reported are medians of the rounds.
"""

import argparse
import itertools
import os
import pathlib
import statistics
import sys
import time

import torch

import result_file

sys.path.insert(0, str(result_file.ROOT / "python"))
from return_predictor import nn  # noqa: E402

LAYERS, DROPOUT = 2, 0.2


def make_call(layer, what, device, shape):
    features, hidden, time_steps, batch = shape
    torch.manual_seed(0)
    lstm = layer(features, hidden, LAYERS, dropout=DROPOUT, device=device)
    training = what == "training"
    lstm.train(training)
    x = torch.randn(time_steps, batch, features, device=device)
    grad = torch.randn(time_steps, batch, hidden, device=device)
    wanted = list(lstm.parameters())

    def call():
        with torch.set_grad_enabled(training):
            output = lstm(x)[0]
            if training:
                torch.autograd.grad(output, wanted, grad)

    return call


def graphed(call):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()

    def replay(owner=call):  # of the tensors that the graph reads
        graph.replay()

    return replay


def warm_up(device):
    """Until the clocks are up."""
    end = time.perf_counter() + 1
    square = torch.randn(2048, 2048, device=device)
    while time.perf_counter() < end:
        (square @ square).sum().item()


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def microseconds(call, device, least_seconds):
    """Of a call, in a run of calls that takes at least so long."""
    calls, taken = 1, 0.0
    while taken < least_seconds:
        calls = min(100 * calls, int(1.2 * calls * least_seconds / taken)) + 1 if taken else calls
        synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize(device)
        taken = time.perf_counter() - start
    return 1e6 * taken / calls


def row_of(what, mode, device, shape, rounds, least_seconds):
    calls = {
        name: make_call(layer, what, device, shape)
        for name, layer in (("return_predictor", nn.LSTM), ("torch", torch.nn.LSTM))
    }
    for name, call in calls.items():
        call()
        calls[name] = graphed(call) if mode == "graph" else call
    taken = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(microseconds(call, device, least_seconds))
    medians = {name: round(statistics.median(values), 2) for name, values in taken.items()}
    features, hidden, time_steps, batch = shape
    return {
        "what": what, "mode": mode, "features": features, "hidden": hidden,
        "time_steps": time_steps, "batch": batch,
        **{f"{name}_us": value for name, value in medians.items()},
        "speedup": round(medians["torch"] / medians["return_predictor"], 2),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 64, 192, 512, 4096])
    parser.add_argument("--hidden", type=int, nargs="*", default=[32, 64])
    parser.add_argument("--time-steps", type=int, nargs="*", default=[20, 100])
    parser.add_argument("--features", type=int, nargs="*", default=[4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--least-seconds", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=pathlib.Path, default=result_file.ROOT / "results/lstm.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    modes = ["eager", "graph"] if arguments.device == "cuda" else ["eager"]
    rows = []
    warm_up(arguments.device)
    shapes = itertools.product(
        arguments.features, arguments.hidden, arguments.time_steps, arguments.batches
    )
    for shape, what, mode in itertools.product(shapes, ("forward", "training"), modes):
        row = row_of(
            what, mode, arguments.device, shape, arguments.rounds, arguments.least_seconds
        )
        rows.append(row)
        print(*row.values(), flush=True)
    gpu = torch.cuda.get_device_name() if arguments.device == "cuda" else None
    result_file.write(
        arguments.out,
        {"device": arguments.device, "layers": LAYERS, "dropout": DROPOUT,
         "threads": arguments.threads, "rows": rows},
        gpu=gpu, torch=torch.__version__, cudnn=torch.backends.cudnn.version(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
