"""The GPU configurations of train and benchmark as a user runs them."""

import json
import os
import pathlib
import struct
import subprocess

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build/default")) / "bin/return-predictor"
CONFIGURATIONS = ["gpu", "gpu-kernel", "gpu-graph", "gpu-fused"]


FAULTS = PROGRAM.parents[1] / "lib/librp_faults.so"


def run(*arguments, fault=None, environment=None):
    """`fault`: as tests/reliability/faults.c reads it."""
    environment = os.environ | (environment or {})
    if fault:
        environment |= {"LD_PRELOAD": str(FAULTS), "RP_FAULT": fault}
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment
    )


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prices")
    result = run("synthesize", "--out", folder, "--tickers", 10, "--days", 500)
    assert result.returncode == 0, result.stderr
    return folder


def train(prices, checkpoint, configuration, *more):
    result = run("train", "--prices", prices, "--checkpoint", checkpoint,
                 "--configuration", configuration, *more)
    assert result.returncode == 0, result.stderr
    return checkpoint.read_bytes()


def metadata(checkpoint):
    (length,) = struct.unpack("<Q", checkpoint[:8])
    return json.loads(checkpoint[8 : 8 + length])["__metadata__"]


def losses(checkpoint):
    return [float(loss) for loss in metadata(checkpoint)["training.epoch_losses"].split()]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_ten_runs_give_the_same_bits(prices, tmp_path, configuration):
    files = {
        train(prices, tmp_path / str(i), configuration, "--epochs", 1) for i in range(10)
    }
    assert len(files) == 1


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_losses_agree_with_cpu(prices, tmp_path, configuration):
    cpu = losses(train(prices, tmp_path / "cpu", "cpu", "--epochs", 3))
    gpu = losses(train(prices, tmp_path / "gpu", configuration, "--epochs", 3))
    # TF32 against fp32 over 24 Adam steps; the benchmark's tolerance is 1e-2.
    assert gpu == pytest.approx(cpu, rel=3e-3)


@pytest.mark.parametrize("precision, tolerance", [("bf16", 1e-2), ("tf32", 3e-3), ("fp32", 1e-3)])
def test_fused_trains_in_each_precision(prices, tmp_path, precision, tolerance):
    cpu = losses(train(prices, tmp_path / "cpu", "cpu", "--epochs", 3))
    trained = train(prices, tmp_path / "gpu", "gpu-fused", "--epochs", 3, "--precision", precision)
    assert metadata(trained)["training.precision"] == precision
    # A sign that flips at LeakyReLU's kink costs 1e-4, in float32 as well.
    assert losses(trained) == pytest.approx(cpu, rel=tolerance)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_resume_equals_uninterrupted(prices, tmp_path, configuration):
    whole = train(prices, tmp_path / "whole", configuration, "--epochs", 4)
    train(prices, tmp_path / "parts", configuration, "--epochs", 2)
    parts = train(prices, tmp_path / "parts", configuration, "--epochs", 4, "--resume")
    assert whole == parts


def test_a_gpu_checkpoint_continues_on_the_cpu(prices, tmp_path):
    train(prices, tmp_path / "model", "gpu-graph", "--epochs", 1)
    continued = losses(train(prices, tmp_path / "model", "cpu", "--epochs", 3, "--resume"))
    alone = losses(train(prices, tmp_path / "cpu", "cpu", "--epochs", 3))
    assert continued == pytest.approx(alone, rel=3e-3)


def test_a_model_that_does_not_fit_the_fused_kernel_trains_by_the_graph(prices, tmp_path):
    result = run("train", "--prices", prices, "--checkpoint", tmp_path / "fused", "--epochs", 1,
                 "--configuration", "gpu-fused", "--hidden", 128)
    assert result.returncode == 0, result.stderr
    assert "gpu-graph trains instead of gpu-fused: " in result.stdout + result.stderr
    train(prices, tmp_path / "graph", "gpu-graph", "--epochs", 1, "--hidden", 128)
    assert losses((tmp_path / "fused").read_bytes()) == losses((tmp_path / "graph").read_bytes())


@pytest.mark.alone
def test_exhausted_gpu_memory_is_a_clear_error(prices, tmp_path):
    checkpoint = tmp_path / "model"
    old = train(prices, checkpoint, "gpu", "--epochs", 1)
    hold = torch.empty(torch.cuda.mem_get_info()[0] - (450 << 20), dtype=torch.uint8, device="cuda")
    try:
        result = run("train", "--prices", prices, "--checkpoint", checkpoint,
                     "--configuration", "gpu", "--batch", 4096, "--hidden", 512)
    finally:
        del hold
        torch.cuda.empty_cache()
    assert result.returncode == 1
    assert "memory" in result.stderr.lower()
    assert checkpoint.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_device_that_is_lost_in_mid_run_leaves_a_valid_checkpoint(prices, tmp_path):
    """From its 40th wait on, the device answers as one whose kernel has failed does."""
    checkpoint = tmp_path / "model"
    options = ("--epochs", 4, "--checkpoint-every", 4)
    whole = train(prices, tmp_path / "whole", "gpu", *options)
    lost = run("train", "--prices", prices, "--checkpoint", checkpoint, "--configuration", "gpu",
               *options, fault="cudaStreamSynchronize:40:719")
    assert lost.returncode == 1
    assert "CUDA error" in lost.stderr
    assert [path.name for path in checkpoint.parent.glob("model*")] == ["model"]
    assert train(prices, checkpoint, "gpu", *options, "--resume") == whole


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_device_that_is_gone_keeps_the_checkpoint(prices, tmp_path, configuration):
    checkpoint = tmp_path / "model"
    old = train(prices, checkpoint, configuration, "--epochs", 1)
    gone = run("train", "--prices", prices, "--checkpoint", checkpoint, "--resume", "--epochs", 2,
               "--configuration", configuration, environment={"CUDA_VISIBLE_DEVICES": ""})
    assert gone.returncode == 1
    assert "no usable GPU" in gone.stderr
    assert checkpoint.read_bytes() == old
