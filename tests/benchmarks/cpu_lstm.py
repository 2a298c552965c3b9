"""The CPU kernels against PyTorch and ONNX Runtime: training samples/s, inference time.

    python tests/benchmarks/cpu_lstm.py [--rounds 9] [--threads 1 2] [--out results/cpu_lstm.json]

All candidates of a row take turns in each round, so that what else the machine does weighs on all
of them. Reported are medians over the rounds and, because they hold on a busy machine too, the
medians of each round's ratios, in wall and in processor time. PyTorch trains its own nn.LSTM model
with torch.optim.Adam on ready batches, in a process of its own, as its users run it: the driver
tunes malloc for its process. Ours gathers the batch by index, draws the dropout and counts the loss
as well.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import pathlib
import statistics
import sys
import time

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

import result_file

ROOT = result_file.ROOT
sys.path.insert(0, str(ROOT / "tests/shim"))
import rp_library  # noqa: E402

ISAS = ("avx512", "avx2", "portable")
TIME_STEPS, FEATURES, HIDDEN = 20, 4, 64
STEPS = 4  # of the optimiser, in a call


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, HIDDEN, 2, dropout=0.2, batch_first=True)
        self.norm = nn.BatchNorm1d(HIDDEN, affine=False)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, x):
        h, _ = self.lstm(x)
        return self.head(functional.leaky_relu(self.norm(h[:, -1]), 0.01)).squeeze(1)


def make_data(windows):
    generator = np.random.default_rng(0)
    rows = windows + TIME_STEPS - 1
    features = generator.standard_normal((rows, FEATURES)).astype(np.float32)
    targets = generator.standard_normal(rows).astype(np.float32)
    ends = np.arange(TIME_STEPS - 1, rows, dtype=np.int32)
    return features, targets, ends


def windows_of(features, ends):
    return torch.tensor(np.stack([features[e - TIME_STEPS + 1 : e + 1] for e in ends]))


def seconds_a_call(call, least_seconds):
    """Wall and processor seconds."""
    calls, start, cpu = 0, time.perf_counter(), time.process_time()
    while (taken := time.perf_counter() - start) < least_seconds:
        call()
        calls += 1
    return taken / calls, (time.process_time() - cpu) / calls


def timed(call):
    return functools.partial(seconds_a_call, call)


def measure(candidates, rounds, least_seconds, baselines):
    """One row a candidate: seconds a call of each round, and ratios to each baseline.

    A candidate is a function of the least seconds to measure: seconds_a_call's values.
    """
    for candidate in candidates.values():
        candidate(0.01)
    seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            seconds[name].append(candidate(least_seconds))
    rows = []
    for name, own in seconds.items():
        wall, cpu = zip(*own)
        row = {
            "candidate": name, "seconds": wall, "median_seconds": statistics.median(wall),
            "median_cpu_seconds": statistics.median(cpu),
        }  # fmt: skip
        for baseline in baselines:
            for clock, key in enumerate(("speedup_over", "cpu_time_speedup_over")):
                ratios = [b[clock] / o[clock] for b, o in zip(seconds[baseline], own)]
                row[f"{key}_{baseline.split()[0]}"] = {
                    "median": statistics.median(ratios), "least": min(ratios), "most": max(ratios),
                }  # fmt: skip
        rows.append(row)
    return rows


def available_isas():
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    return [i for i in ISAS if i == "portable" or {"avx512": "avx512vl"}.get(i, i) in flags]


def serve_pytorch_training(connection, batch, threads):
    """Body of PyTorch's process: for each number of seconds it is sent, seconds_a_call's values."""
    torch.set_num_threads(threads)
    model = Model().train()
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    features, targets, ends = make_data(batch * 8)
    x, y = windows_of(features, ends[:batch]), torch.tensor(targets[ends[:batch]])

    def train():
        for _ in range(STEPS):
            adam.zero_grad()
            functional.mse_loss(model(x), y).backward()
            adam.step()

    with contextlib.suppress(EOFError):
        while True:
            connection.send(seconds_a_call(train, connection.recv()))


@contextlib.contextmanager
def pytorch_training(batch, threads):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve_pytorch_training, args=(theirs, batch, threads)
    )
    process.start()
    theirs.close()  # so that the end of either process ends the other's wait

    def candidate(least_seconds):
        ours.send(least_seconds)
        return ours.recv()

    yield candidate
    ours.close()
    process.join()


def training_rows(batch, threads, rounds):
    data = make_data(batch * 8)
    candidates = {}
    for isa in available_isas():
        trainer = rp_library.Trainer(
            *data, isa=isa, configuration=b"cpu-fused", batch=batch, threads=threads
        )
        candidates[f"cpu-fused {isa}"] = timed(functools.partial(trainer.run, STEPS))
    libtorch = rp_library.Trainer(*data, configuration=b"cpu", batch=batch, threads=threads)
    candidates["cpu (libtorch by the driver)"] = timed(functools.partial(libtorch.run, STEPS))
    with pytorch_training(batch, threads) as candidates["PyTorch"]:
        rows = measure(candidates, rounds, 0.3, ["PyTorch", "cpu (libtorch by the driver)"])
    for row in rows:
        row.update(what="training", batch=batch, threads=threads,
                   samples_per_second=STEPS * batch / row["median_seconds"])  # fmt: skip
    return rows


def inference_rows(batch, threads, rounds, session, model):
    features, targets, ends = make_data(max(batch, 64))
    trainer = rp_library.Trainer(features, targets, ends, configuration=b"cpu-fused", batch=64)
    ends = ends[:batch].copy()
    candidates = {}
    for isa in available_isas():
        call, _ = trainer.predictor(threads, isa).call(features, ends)
        candidates[f"rp_predictor {isa}"] = timed(call)
    x = windows_of(features, ends)
    torch.set_num_threads(threads)
    candidates["PyTorch"] = timed(lambda: model(x))
    feed = {"x": x.numpy()}
    candidates["ONNX Runtime"] = timed(lambda: session.run(None, feed))
    with torch.inference_mode():
        rows = measure(candidates, rounds, 0.1, ["PyTorch", "ONNX Runtime"])
    for row in rows:
        row.update(what="inference", batch=batch, threads=threads,
                   windows_per_second=batch / row["median_seconds"])  # fmt: skip
    return rows


def onnx_session(model, threads):
    path = ROOT / "build/cpu_lstm.onnx"
    torch.onnx.export(
        model, (torch.randn(1, TIME_STEPS, FEATURES),), str(path), input_names=["x"],
        output_names=["y"], dynamic_axes={"x": {0: "b"}, "y": {0: "b"}}, dynamo=False,
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, os.cpu_count()])
    parser.add_argument("--batches", type=int, nargs="*", default=[64, 512, 2048])
    parser.add_argument("--windows", type=int, nargs="*", default=[1, 8, 64, 512])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/cpu_lstm.json")
    arguments = parser.parse_args()
    rows = []
    model = Model().eval()
    for threads in arguments.threads:
        session = onnx_session(model, threads)
        for batch in arguments.windows:
            rows += inference_rows(batch, threads, arguments.rounds, session, model)
        for batch in arguments.batches:
            rows += training_rows(batch, threads, arguments.rounds)
    result_file.write(
        arguments.out, {"isas": available_isas(), "rows": rows},
        torch=torch.__version__, onnxruntime=onnxruntime.__version__,
    )  # fmt: skip
    for row in rows:
        ratios = {k: round(v["median"], 2) for k, v in row.items() if "speedup_over" in k}
        rate = row.get("samples_per_second", row.get("windows_per_second"))
        print(f"{row['what']} {row['threads']}T {row['batch']:5} {row['candidate']:30} "
              f"{row['median_seconds'] * 1e6:10.1f} us {rate:9.0f}/s {ratios}")  # fmt: skip


if __name__ == "__main__":
    main()
