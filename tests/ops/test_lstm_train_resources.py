"""The compiled LSTM kernels keep everything in registers: nothing spills to local memory."""

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


needs_kernels = pytest.mark.skipif(
    "not hasattr(torch.ops.rp, 'lstm_train_unsupported')",
    reason="librp_ops.so was built without CUDA",
)


@needs_kernels
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32", "fp32"])
def test_training_kernel_takes_the_precision_where_weights_fit_in_registers(precision):
    def reason(hidden):
        return torch.ops.rp.lstm_train_unsupported(4, 20, hidden, 2, 512, precision)

    assert reason(32) == reason(64) == ""
    assert "hidden size 32 or 64" in reason(128) and "registers" in reason(128)


@needs_kernels
@pytest.mark.parametrize(
    "name, count",
    [
        ("lstm_train_kernel", 16),  # two hidden sizes, one or two layers, four types of operands
        ("lstm_recurrence_forward_kernel", 4),  # two hidden sizes, one or more blocks a processor
        ("lstm_recurrence_backward_kernel", 4),
    ],
)
def test_kernels_spill_nothing(name, count):
    tool = cuobjdump()
    if tool is None:
        pytest.skip("neither cuobjdump nor Triton is installed")
    library = next(path for path in torch.ops.loaded_libraries if path.endswith("librp_ops.so"))
    text = subprocess.run(
        [tool, "--dump-resource-usage", library],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    kernels = re.findall(name + r"\S*:\s+REG:(\d+) STACK:(\d+).*? LOCAL:(\d+)", text)
    assert len(kernels) == count
    for registers, stack, local in kernels:
        assert int(registers) <= 255 and (int(stack), int(local)) == (0, 0)
