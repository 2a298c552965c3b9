"""train and benchmark as a user runs them: files, exit codes, interruption, continuation."""

import contextlib
import json
import os
import pathlib
import pty
import re
import resource
import signal
import struct
import subprocess
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build/default")) / "bin/return-predictor"
REAL = pathlib.Path(os.environ.get("RP_MARKET", ROOT.parent / "shared/market/sp500-50"))

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built")


def run(*arguments, **options):
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options
    )


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prices")
    result = run("synthesize", "--out", folder, "--tickers", 6, "--days", 260)
    assert result.returncode == 0, result.stderr
    return folder


def train(prices, checkpoint, *more, **options):
    small = ("--batch", 64, "--hidden", 16, "--threads", 1)
    return run("train", "--prices", prices, "--checkpoint", checkpoint, *small, *more, **options)


def header(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def test_train_prints_the_counts_of_the_real_prices(tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"no real prices at {REAL} (set RP_MARKET)")
    result = run("train", "--prices", REAL, "--checkpoint", tmp_path / "model", "--epochs", 1,
                 "--batch", 65536, "--hidden", 1, "--layers", 1, "--time-steps", 20)
    assert result.returncode == 0, result.stderr
    for count in ("2,495 labelled rows each", "124,750 labelled rows", "123,800 windows",
                  "99,000 train"):
        assert count in result.stderr


def test_train_says_where_its_time_goes(prices, tmp_path):
    start = time.perf_counter()
    result = train(prices, tmp_path / "model", "--epochs", 2, "--seeds", 2)
    wall = time.perf_counter() - start
    assert result.returncode == 0, result.stderr
    *lines, last = result.stderr.splitlines()
    total, *parts = map(float, re.findall(r"([0-9.]+) s\b", last))
    assert len(parts) == 4 and min(parts) > 0
    assert sum(parts) == pytest.approx(total, abs=0.003) and total < wall
    of_seeds = [float(s) for s in re.findall(r"([0-9.]+) s of training", "\n".join(lines))]
    assert len(of_seeds) == 2 and sum(of_seeds) == pytest.approx(parts[2], abs=0.003)


def test_checkpoint_is_read_by_the_safetensors_package(prices, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    assert train(prices, path, "--epochs", 1).returncode == 0
    tensors = safetensors.load_file(path)
    assert tensors["lstm.weight_ih_l0"].shape == (64, 4)
    assert tensors["head.weight"].shape == (1, 16)
    steps = int(header(path)["__metadata__"]["training.step"])
    assert tensors["norm.num_batches_tracked"] == steps
    assert np.isfinite(tensors["adam.exp_avg_sq.head.bias"]).all()


def test_resume_of_a_longer_run_equals_uninterrupted(prices, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(prices, whole, "--epochs", 4).returncode == 0
    assert train(prices, parts, "--epochs", 1).returncode == 0
    result = train(prices, parts, "--epochs", 4, "--resume")
    assert result.returncode == 0, result.stderr
    assert whole.read_bytes() == parts.read_bytes()


def test_kill_and_resume_equals_uninterrupted(prices, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ("--epochs", 30, "--checkpoint-every", 7)
    assert train(prices, whole, *options).returncode == 0
    command = [PROGRAM, "train", "--prices", prices, "--checkpoint", parts, "--batch", 64,
               "--hidden", 16, "--threads", 1, "--resume", *options]
    for _ in range(3):
        process = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not parts.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)
        process.kill()
        process.wait()
    result = train(prices, parts, *options, "--resume")
    assert result.returncode == 0, result.stderr
    assert whole.read_bytes() == parts.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "whole"]


@pytest.mark.parametrize("configuration", ["cpu", "cpu-fused"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_a_checkpoint_and_ends_cleanly(prices, tmp_path, number, configuration):
    path = tmp_path / "model"
    process = subprocess.Popen(
        [PROGRAM, "train", "--prices", prices, "--checkpoint", path, "--epochs", "100000",
         "--hidden", "16", "--threads", "1", "--log", tmp_path / "log",
         "--configuration", configuration],
        stderr=subprocess.PIPE, text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (tmp_path / "log").exists():
        time.sleep(0.02)
    time.sleep(1.0)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert "continue with --resume" in messages
    assert int(header(path)["__metadata__"]["training.step"]) > 0


def tensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return data[8 + length :]


def test_patience_keeps_the_best_validation_epoch(prices, tmp_path):
    path, log = tmp_path / "model", tmp_path / "log"
    fast = ("--learning-rate", 0.02)
    result = train(prices, path, "--epochs", 60, "--patience", 3, "--log", log, *fast)
    assert result.returncode == 0, result.stderr
    epochs = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [epoch["validation_loss"] for epoch in epochs]
    best = int(np.argmin(losses))
    assert len(epochs) == best + 1 + 3 < 60
    assert int(header(path)["__metadata__"]["training.step"]) == epochs[best]["step"]
    assert not path.with_name("model.best").exists()
    # Its weights are those of a run that ends there.
    short = tmp_path / "short"
    result = train(prices, short, "--epochs", best + 1, "--validation", 0.1, *fast)
    assert result.returncode == 0, result.stderr
    assert tensors(path) == tensors(short)


def losses(path, key):
    return [float(loss) for loss in header(path)["__metadata__"][key].split()]


def test_checkpoint_tells_how_training_and_validation_went(prices, tmp_path):
    path, log = tmp_path / "model", tmp_path / "log"
    options = ("--validation", 0.2, "--log", log)
    assert train(prices, path, "--epochs", 2, *options).returncode == 0
    assert train(prices, path, "--epochs", 4, *options, "--resume").returncode == 0
    epochs = [json.loads(line) for line in log.read_text().splitlines()]
    assert losses(path, "training.epoch_losses") == [epoch["loss"] for epoch in epochs]
    validation = losses(path, "validation.epoch_losses")
    assert len(validation) == 4
    assert validation == [epoch["validation_loss"] for epoch in epochs]
    whole = tmp_path / "whole"
    assert train(prices, whole, "--epochs", 4, *options).returncode == 0
    assert whole.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("configuration", ["cpu", "cpu-fused"])
def test_loss_that_is_not_finite_names_its_batch_and_keeps_the_checkpoint(
    prices, tmp_path, configuration
):
    path, log = tmp_path / "model", tmp_path / "log"
    small = ("--configuration", configuration)
    assert train(prices, path, "--epochs", 1, *small).returncode == 0
    good = path.read_bytes()
    wild = ("--epochs", 9, "--learning-rate", 1e30, "--resume", "--log", log)
    result = train(prices, path, *small, *wild)
    assert result.returncode == 1
    where = r"the loss of epoch (\d+), step (\d+) of (\d+) is -?(nan|inf)"
    epoch, step, steps = map(int, re.search(where, result.stderr).groups()[:3])
    assert re.search(r"Its batch holds 64 windows: (SYN000\d \d{4}-\d\d-\d\d, ){3}", result.stderr)
    assert path.read_bytes() == good
    failed = json.loads(log.read_text().splitlines()[-1])
    assert failed["failed_epoch"] == epoch
    assert failed["failed_step"] == (epoch - 1) * steps + step
    assert len({(window["ticker"], window["date"]) for window in failed["batch"]}) == 64
    assert not path.with_name("model.best").exists()


def test_seeds_give_one_checkpoint_each(prices, tmp_path):
    result = train(prices, tmp_path / "m.safetensors", "--epochs", 1, "--seeds", 2, "--seed", 5)
    assert result.returncode == 0, result.stderr
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["m.seed5.safetensors", "m.seed6.safetensors"]
    seeds = [header(tmp_path / name)["__metadata__"]["training.seed"] for name in names]
    assert seeds == ["5", "6"]


def test_quiet_says_nothing(prices, tmp_path):
    result = train(prices, tmp_path / "model", "--epochs", 1, "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "arguments, part",
    [
        (("--configuration", "tpu"), "tpu"),
        (("--precision", "fp32", "--configuration", "cpuu"), "cpuu"),
    ],
)
def test_bad_configuration_is_named(prices, tmp_path, arguments, part):
    result = run("train", "--prices", prices, "--checkpoint", tmp_path / "m", *arguments)
    assert result.returncode in (1, 2)
    assert part in result.stderr


@pytest.mark.parametrize(
    "arguments", [("--epochs", "0"), ("--batch", "1"), ("--batch", "x"), ("--nope",), ("--seed",)]
)
def test_usage_error_exits_2(prices, tmp_path, arguments):
    result = run("train", "--prices", prices, "--checkpoint", tmp_path / "m", *arguments)
    assert result.returncode == 2
    assert arguments[0] in result.stderr


def test_no_gpu_is_a_clear_error(prices, tmp_path):
    result = train(prices, tmp_path / "m", "--configuration", "gpu", env={
        **os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert result.returncode == 1
    assert "gpu can't run here" in result.stderr
    assert not (tmp_path / "m").exists()


def test_unwritable_output_keeps_the_old_file(prices, tmp_path):
    path = tmp_path / "model"
    assert train(prices, path, "--epochs", 1).returncode == 0
    old = path.read_bytes()

    def limit():  # every file ends at 4,000 bytes, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    result = train(prices, path, "--epochs", 2, preexec_fn=limit)
    assert result.returncode == 1
    assert "model" in result.stderr and "File too large" in result.stderr
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_resume_with_other_prices_is_refused(prices, tmp_path):
    other = tmp_path / "other"
    assert run("synthesize", "--out", other, "--tickers", 6, "--days", 260,
               "--seed", 9).returncode == 0
    path = tmp_path / "model"
    assert train(prices, path, "--epochs", 1).returncode == 0
    result = train(other, path, "--epochs", 2, "--resume")
    assert result.returncode == 1
    assert "other price files" in result.stderr


def test_benchmark_lists_every_configuration_and_agrees_with_itself(prices, tmp_path):
    out = tmp_path / "benchmark.json"
    result = run("benchmark", "--prices", prices, "--epochs", 1, "--repeat", 2, "--threads", 1,
                 "--out", out, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert result.returncode == 0, result.stderr
    table = json.loads(out.read_text())
    assert len(table["commit"]) == 40 and table["protocol"]["parameters"] == 51265
    rows = {row["name"]: row for row in table["configurations"]}
    assert {"cpu", "gpu", "gpu-kernel", "gpu-graph"} <= set(rows)
    cpu = rows["cpu"]
    assert cpu["status"] == "ran" and len(cpu["train_seconds"]) == 2
    assert cpu["speedup_over_cpu"] == 1
    for name in ("gpu", "gpu-kernel", "gpu-graph"):
        assert rows[name]["status"] == "skipped" and rows[name]["reason"]


def test_benchmark_counts_the_samples_that_it_trained(prices, tmp_path):
    def protocol(batch):
        out = tmp_path / f"{batch}.json"
        done = run("benchmark", "--prices", prices, "--configurations", "cpu-fused", "--repeat", 1,
                   "--epochs", 2, "--batch", batch, "--out", out)
        assert done.returncode == 0, done.stderr
        table = json.loads(out.read_text())
        return table["data"]["train_windows"], table["protocol"]["samples_trained"]

    windows, samples = protocol(64)
    assert samples == 2 * windows
    assert protocol(windows - 1) == (windows, 2 * (windows - 1))  # a last batch of one is left out


def test_benchmark_of_one_step_an_epoch_reports_soon_and_stops(prices, tmp_path):
    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "benchmark", "--prices", prices, "--configurations", "cpu-fused", "--batch",
         "1000000", "--epochs", "10000", "--out", tmp_path / "benchmark.json"],
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while not (report := re.search(rb"epoch (\d+),", shown)):
        shown += os.read(reader, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 1
    with contextlib.suppress(OSError):  # at its end
        while True:
            shown += os.read(reader, 4096)
    os.close(reader)
    assert b"interrupted; no result was written" in shown
    assert list(tmp_path.iterdir()) == []
    assert int(report[1]) < 16  # seconds, where a step takes one


def test_help_is_fast():
    run("--help")
    best = min(timed_help() for _ in range(5))
    assert best < 0.05  # libtorch alone takes 0.2 s to load


def timed_help():
    start = time.monotonic()
    assert run("--help").returncode == 0
    return time.monotonic() - start
