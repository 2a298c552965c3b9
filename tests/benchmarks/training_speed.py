"""Training's speed by batch, operand type and configuration -> results/training_speed.json

rows: gpu-fused and gpu-graph are whole trainings by the driver on the prices of --prices (ten
epochs; shuffling, gather, dropout, Adam and losses included), median of five; step_us is the time
of as many samples as a batch has. pytorch-graph and jax are Python's peers on one batch of random
data that stays on the GPU: PyTorch's cuDNN LSTM and fused Adam, captured in a CUDA graph, and a
jitted step with the LSTM as a scan. train_command: `train` of gpu-fused, ten epochs at batch 512,
from the start of its process to its end, the checkpoint on disk. many_models: rp::lstm_train_ on
random data.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import torch

import result_file

ROOT, PROGRAM = result_file.ROOT, result_file.PROGRAM
FEATURES, TIME_STEPS, HIDDEN, DROPOUT = 4, 20, 64, 0.2
BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)
COMPARED = (64, 512, 1024, 4096)  # with all operand types and peers
PARTS = re.compile(
    r"([\d.]+) s to read the prices, ([\d.]+) s to start, ([\d.]+) s of training, "
    r"([\d.]+) s to check and save"
)


def median(values):
    return sorted(values)[len(values) // 2]


def time_driver(prices, batch, repeats):
    """The benchmark's rows. A void one counts: small batches take so many steps that rounding alone
    parts their losses; the last epoch's stands beside each time."""
    precisions = ("fp16", "bf16", "tf32", "fp32") if batch in COMPARED else ("fp16", "bf16")
    names = [f"gpu-fused:{precision}" for precision in precisions]
    names += ["gpu-graph"] if batch in COMPARED else []
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "benchmark.json")
        subprocess.run(
            [PROGRAM, "benchmark", "--prices", prices, "--batch", str(batch), "--repeat",
             str(repeats), "--configurations", ",".join(names), "--out", out, "--quiet"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        rows = json.loads(out.read_text())["configurations"]
    skipped = [f"{row['name']}: {row['reason']}" for row in rows if row["status"] == "skipped"]
    if skipped:
        raise RuntimeError(f"batch {batch}: {'; '.join(skipped)}")
    return rows


def time_train_command(prices, repeats):
    """The process whose wall clock is the median, with the parts that it prints; the rest of its
    time is loading and leaving the process."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            begin = time.perf_counter()
            done = subprocess.run(
                [PROGRAM, "train", "--prices", prices, "--configuration", "gpu-fused", "--epochs",
                 "10", "--checkpoint", f"{folder}/{repeat}.safetensors"],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            wall = time.perf_counter() - begin
            runs.append((wall, *map(float, PARTS.search(done.stderr).groups())))
    names = ("seconds", "read", "start", "training", "check_and_save")
    return {
        "runs_seconds": [round(run[0], 3) for run in runs],
        **{name: round(value, 3) for name, value in zip(names, median(runs))},
    }


def median_microseconds(run, steps, repeats):
    """Of `run`, which does `steps` steps; warmed up by two calls."""
    times = []
    for repeat in range(repeats + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        if repeat >= 2:
            times.append(begin.elapsed_time(end) * 1000 / steps)
    return median(times)


def time_many_models(batch, models, steps, repeats):
    windows = max(20000, 4 * batch)
    generator = torch.Generator().manual_seed(1)
    rows = windows + TIME_STEPS
    x = torch.randn(rows, FEATURES, generator=generator).cuda()
    y = torch.randn(rows, generator=generator).cuda()
    ends = torch.arange(TIME_STEPS - 1, TIME_STEPS - 1 + windows, dtype=torch.int32).cuda()
    count = 4 * HIDDEN * (FEATURES + 3 * HIDDEN + 4) + HIDDEN + 1
    parameters = (torch.rand(models, count, generator=generator) * 2 - 1).cuda() / HIDDEN**0.5
    m, v = torch.zeros_like(parameters), torch.zeros_like(parameters)
    mean, var = torch.zeros(models, HIDDEN).cuda(), torch.ones(models, HIDDEN).cuda()
    losses, scale = torch.zeros(models, steps).cuda(), torch.zeros(models, 3).cuda()
    ranges = torch.tensor([[0, windows]] * models)
    seeds = torch.arange(models)
    rates = torch.full((models,), 1e-3, dtype=torch.float64)

    def run():
        torch.ops.rp.lstm_train_(
            parameters, m, v, mean, var, losses, scale, x, y, ends, ranges, seeds, rates, 0, steps,
            batch, TIME_STEPS, HIDDEN, 2, DROPOUT, 0.1, 1e-5, 0.01, 0.9, 0.999, 1e-8, "fp16",
        )  # fmt: skip

    microseconds = median_microseconds(run, steps, repeats)
    if not torch.isfinite(losses).all():
        raise RuntimeError(f"{models} models, batch {batch}: a loss is not finite")
    return microseconds


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True, dropout=DROPOUT)
        self.norm = torch.nn.BatchNorm1d(HIDDEN, affine=False)
        self.head = torch.nn.Linear(HIDDEN, 1)

    def forward(self, x):
        h = self.norm(self.lstm(x)[0][:, -1])
        return self.head(torch.nn.functional.leaky_relu(h, 0.01))[:, 0]


def time_pytorch_graph(batch, repeats):
    torch.manual_seed(0)
    model = Network().cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=True)
    x = torch.randn(batch, TIME_STEPS, FEATURES, device="cuda")
    y = torch.randn(batch, device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return median_microseconds(lambda: [graph.replay() for _ in range(50)], 50, repeats)


def time_jax(batch, repeats):
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import jax.numpy as jnp

    def parameters(key):
        out = []
        for inputs in (FEATURES, HIDDEN):
            key, a, b = jax.random.split(key, 3)
            out.append((jax.random.normal(a, (inputs, 4 * HIDDEN)) * 0.1,
                        jax.random.normal(b, (HIDDEN, 4 * HIDDEN)) * 0.1,
                        jnp.zeros(4 * HIDDEN)))  # fmt: skip
        return out, jax.random.normal(key, (HIDDEN,)) * 0.1, jnp.zeros(())

    def layer(w, x):
        projected = x @ w[0] + w[2]

        def cell(carry, p):
            h, c = carry
            i, f, g, o = jnp.split(p + h @ w[1], 4, 1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((x.shape[1], HIDDEN))
        return jax.lax.scan(cell, (zero, zero), projected)[1]

    def loss(w, key, x, y):
        h = layer(w[0][0], x)
        h = h * jax.random.bernoulli(key, 1 - DROPOUT, h.shape) / (1 - DROPOUT)
        h = layer(w[0][1], h)[-1]
        h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)
        return ((jax.nn.leaky_relu(h, 0.01) @ w[1] + w[2] - y) ** 2).mean()

    @jax.jit
    def train(state, key, x, y):
        def one(state, key):
            w, m, v, t = state
            value, g = jax.value_and_grad(loss)(w, key, x, y)
            t = t + 1
            m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
            v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
            w = jax.tree.map(
                lambda p, a, b: p
                - 1e-3 * a / (1 - 0.9**t) / (jnp.sqrt(b / (1 - 0.999**t)) + 1e-8), w, m, v
            )  # fmt: skip
            return (w, m, v, t), value

        return jax.lax.scan(one, state, jax.random.split(key, 50))

    key = jax.random.PRNGKey(0)
    w = parameters(key)
    zeros = jax.tree.map(jnp.zeros_like, w)
    state = (w, zeros, zeros, jnp.zeros(()))
    x = jax.random.normal(key, (TIME_STEPS, batch, FEATURES))
    y = jax.random.normal(key, (batch,))
    times = []
    for repeat in range(repeats + 1):
        begin = time.perf_counter()
        state, value = train(state, key, x, y)
        value.block_until_ready()
        if repeat:
            times.append((time.perf_counter() - begin) * 1e6 / 50)
    return median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prices", required=True, help="a folder of price files")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/training_speed.json")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jax", action="store_true", help="measure JAX too, where it is installed")
    arguments = parser.parse_args()
    if torch.cuda.get_device_capability()[0] != 9:
        sys.exit("training_speed: gpu-fused needs a GPU of compute capability 9.0 (H100, H200)")
    torch.ops.load_library(str(PROGRAM.parents[1] / "lib/librp_ops.so"))
    rows, many = [], []

    def add(table, configuration, precision, batch, models, microseconds, **more):
        table.append({
            "configuration": configuration, "precision": precision, "batch": batch,
            "models": models, "step_us": round(microseconds, 3),
            "samples_per_second": round(models * batch / microseconds * 1e6), **more,
        })  # fmt: skip
        print(f"{configuration:14} {precision:5} batch {batch:5} models {models:4} "
              f"{microseconds:9.2f} us/step {models * batch / microseconds:7.2f} M samples/s",
              flush=True)  # fmt: skip

    for batch in BATCHES:
        for row in time_driver(arguments.prices, batch, arguments.repeats):
            add(rows, row["name"].split(":")[0], row["precision"], batch, 1,
                batch / row["samples_per_second"] * 1e6,
                train_seconds=row["train_seconds"], loss=row["epoch_loss"][-1])  # fmt: skip
        if batch in COMPARED:
            add(rows, "pytorch-graph", "tf32", batch, 1,
                time_pytorch_graph(batch, arguments.repeats))  # fmt: skip
    for batch, models in ((64, 8), (64, 66), (512, 66), (512, 132)):
        add(many, "gpu-fused", "fp16", batch, models,
            time_many_models(batch, models, 40, arguments.repeats))  # fmt: skip
    if arguments.jax:
        try:
            for batch in (64, 512):
                add(rows, "jax", "tf32", batch, 1, time_jax(batch, arguments.repeats))
        except ImportError as reason:
            print(f"jax is not measured: {reason}", file=sys.stderr)
    train_command = time_train_command(arguments.prices, arguments.repeats)
    print("train:", train_command)
    result_file.write(
        arguments.out,
        {
            "model": {"features": FEATURES, "time_steps": TIME_STEPS, "hidden": HIDDEN,
                      "layers": 2, "dropout": DROPOUT},
            "rows": rows,
            "train_command": train_command,
            "many_models": many,
        },
        gpu=torch.cuda.get_device_name(),
        cuda=torch.version.cuda,
        cudnn=str(torch.backends.cudnn.version()),
        torch=torch.__version__,
    )  # fmt: skip


if __name__ == "__main__":
    main()
