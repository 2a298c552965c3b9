"""A training run of about a third of a second, for tests that end it before its time."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build/default"))
PROGRAM = BUILD / "bin/return-predictor"
FAULTS = BUILD / "lib/librp_faults.so"
EPOCHS, EVERY = 12, 3  # 12 epochs of 6 steps, saved every 3 steps


def make_prices(folder):
    subprocess.run(
        [PROGRAM, "synthesize", "--out", folder, "--tickers", "5", "--days", "120"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def command(prices, checkpoint, *more, epochs=EPOCHS, every=EVERY):
    return [
        PROGRAM, "train", "--prices", prices, "--checkpoint", checkpoint, "--resume", "--quiet",
        "--configuration", "cpu-fused", "--threads", "1", "--hidden", "16", "--batch", "64",
        "--epochs", str(epochs), "--checkpoint-every", str(every), *map(str, more),
    ]  # fmt: skip


def train(prices, checkpoint, *more, fault=None, path=None, log=None, **options):
    """The finished process; `fault`, `path` and `log` as faults.c reads them. Without a path all
    of the checkpoint's folder counts: a save has no name at first."""
    environment = {**os.environ}
    if fault or log:
        environment |= {"LD_PRELOAD": str(FAULTS), "RP_FAULT_PATH": path or str(checkpoint.parent)}
        environment |= {"RP_FAULT": fault} if fault else {}
        environment |= {"RP_FAULT_LOG": str(log)} if log else {}
    return subprocess.run(
        command(prices, checkpoint, *more, **options),
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip


def whole_run(prices, checkpoint, **options):
    """The bytes that an uninterrupted run ends with."""
    done = train(prices, checkpoint, **options)
    assert done.returncode == 0, done.stderr
    return checkpoint.read_bytes()
