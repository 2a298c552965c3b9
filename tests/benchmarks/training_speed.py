"""Time of one optimiser step by batch, operand type and configuration -> results/training_speed.json

gpu-fused is rp::lstm_train_, everything included (gather, dropout, statistics, Adam); pytorch-graph
is the same model by PyTorch's cuDNN LSTM and fused Adam, captured in a CUDA graph, on one batch
that stays on the GPU; jax is a jitted step with the LSTM as a scan. Random data, dropout 0.2.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

import torch

import result_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
FEATURES, TIME_STEPS, HIDDEN, DROPOUT = 4, 20, 64, 0.2


def load_operators():
    named = os.environ.get("RP_OPS_LIBRARY")
    built = sorted(ROOT.glob("build/*/lib/librp_ops.so"), key=lambda p: p.stat().st_mtime)
    torch.ops.load_library(named or str(built[-1]))


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
    return sorted(times)[len(times) // 2]


def time_fused(batch, precision, models, steps, repeats):
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
            batch, TIME_STEPS, HIDDEN, 2, DROPOUT, 0.1, 1e-5, 0.01, 0.9, 0.999, 1e-8, precision,
        )  # fmt: skip

    microseconds = median_microseconds(run, steps, repeats)
    if not torch.isfinite(losses).all():
        raise RuntimeError(f"batch {batch}, {precision}: a loss is not finite")
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
    import time

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
    return sorted(times)[len(times) // 2]


def machine():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(),
        "driver": subprocess.run(query, capture_output=True, text=True).stdout.strip(),
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()),
        "torch": torch.__version__,
        "compiler": None,
    }


def commit():
    if os.environ.get("RP_COMMIT"):
        return os.environ["RP_COMMIT"]
    head = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(ROOT / "results/training_speed.json"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--jax", action="store_true", help="measure JAX too, where it is installed")
    arguments = parser.parse_args()
    load_operators()
    rows, many = [], []

    def add(configuration, precision, batch, models, microseconds):
        (rows if models == 1 else many).append({
            "configuration": configuration, "precision": precision, "batch": batch,
            "models": models, "step_us": round(microseconds, 3),
            "samples_per_second": round(models * batch / microseconds * 1e6),
        })  # fmt: skip
        print(f"{configuration:14} {precision:5} batch {batch:5} models {models:4} "
              f"{microseconds:9.2f} us/step {models * batch / microseconds:7.2f} M samples/s",
              flush=True)  # fmt: skip

    for batch in (64, 128, 256, 512, 1024, 2048, 4096):
        compared = batch in (64, 512, 1024, 4096)
        for precision in ("fp16", "bf16", "tf32", "fp32")[: 4 if compared else 2]:
            add("gpu-fused", precision, batch, 1,
                time_fused(batch, precision, 1, 200, arguments.repeats))  # fmt: skip
        if compared:
            add("pytorch-graph", "tf32", batch, 1, time_pytorch_graph(batch, arguments.repeats))
    for batch, models in ((64, 8), (64, 66), (512, 66), (512, 132)):
        add("gpu-fused", "fp16", batch, models,
            time_fused(batch, "fp16", models, 40, arguments.repeats))  # fmt: skip
    if arguments.jax:
        try:
            for batch in (64, 512):
                add("jax", "tf32", batch, 1, time_jax(batch, arguments.repeats))
        except ImportError as reason:
            print(f"jax is not measured: {reason}", file=sys.stderr)
    result = {
        "schema": 1,
        "command": result_file.command(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": {"features": FEATURES, "time_steps": TIME_STEPS, "hidden": HIDDEN, "layers": 2,
                  "dropout": DROPOUT},
        "rows": rows,
        "many_models": many,
    }  # fmt: skip
    pathlib.Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
