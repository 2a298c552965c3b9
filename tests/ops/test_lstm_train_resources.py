"""The compiled training kernel keeps everything in registers: nothing spills to local memory."""

import pathlib
import re
import shutil
import subprocess

import pytest

torch = pytest.importorskip("torch")


def cuobjdump():
    """CUDA's, or the one that Triton brings along with PyTorch."""
    try:
        import triton
    except ImportError:
        return shutil.which("cuobjdump")
    brought = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return shutil.which("cuobjdump") or (str(brought) if brought.exists() else None)


def test_training_kernels_spill_nothing():
    if not hasattr(torch.ops.rp, "lstm_train_unsupported"):
        pytest.skip("librp_ops.so was built without CUDA")
    tool = cuobjdump()
    if tool is None:
        pytest.skip("neither cuobjdump nor Triton is installed")
    library = next(path for path in torch.ops.loaded_libraries if path.endswith("librp_ops.so"))
    text = subprocess.run(
        [tool, "--dump-resource-usage", library],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    kernels = re.findall(r"lstm_train_kernel\S*:\s+REG:(\d+) STACK:(\d+).*? LOCAL:(\d+)", text)
    assert len(kernels) == 8  # two hidden sizes, one or two layers, fp16 or bf16
    for registers, stack, local in kernels:
        assert int(registers) <= 255 and (int(stack), int(local)) == (0, 0)
