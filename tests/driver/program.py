"""The built programs, as tests run them."""

import functools
import json
import os
import pathlib
import struct
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build/default")) / "bin"
PROGRAM = BIN / "return-predictor"
REAL = pathlib.Path(os.environ.get("RP_MARKET", ROOT.parent / "shared/market/sp500-50"))


def run(*arguments, program=PROGRAM, timeout=900):
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=timeout
    )


def done(*arguments, **options):
    """Runs what must succeed."""
    result = run(*arguments, **options)
    assert result.returncode == 0, f"{arguments}: {result.stderr}"
    return result


def synthesize(folder, **options):
    arguments = [f"--{name}={value}" for name, value in options.items()]
    done("synthesize", "--out", folder, *arguments)
    return folder


@functools.cache
def trainer():
    """The fastest configuration of this machine's CPU, or the reason why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        synthesize(folder / "prices", tickers=2, days=60)
        for name in ("cpu-fused", "cpu"):
            small = ("--epochs", 1, "--hidden", 32, "--configuration", name)
            result = run(
                "train", "--prices", folder / "prices", "--checkpoint", folder / "model", *small
            )
            if result.returncode == 0:
                return name, None
        return None, result.stderr.strip()


def train(prices, checkpoint, **options):
    name, _ = trainer()
    options = {"configuration": name, "threads": 1} | options
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done("train", "--prices", prices, "--checkpoint", checkpoint, "--quiet", *arguments)
    return checkpoint


def evaluate(prices, checkpoint, out, *more):
    done("evaluate", "--prices", prices, "--checkpoint", checkpoint, "--out", out, *more)
    return json.loads(out.read_text())


def checkpoint_parts(path):
    """Metadata and the bytes of each tensor of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    body = data[8 + length :]
    return metadata, {name: body[slice(*tensor["data_offsets"])] for name, tensor in header.items()}
