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


def printed_by(tool, option):
    library = next(path for path in torch.ops.loaded_libraries if path.endswith("librp_ops.so"))
    return subprocess.run([tool, option, library], capture_output=True, text=True, check=True).stdout


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
    text = printed_by(tool, "--dump-resource-usage")
    kernels = re.findall(name + r"\S*:\s+REG:(\d+) STACK:(\d+).*? LOCAL:(\d+)", text)
    assert len(kernels) == count
    for registers, stack, local in kernels:
        assert int(registers) <= 255 and (int(stack), int(local)) == (0, 0)


@needs_kernels
def test_products_of_weight_gradients_wait_for_nothing_between_them():
    """ptxas may put a wait behind each product of a warpgroup, and only remarks on it."""
    tool = cuobjdump()
    if tool is None:
        pytest.skip("neither cuobjdump nor Triton is installed")
    kernels = 0
    for kernel in printed_by(tool, "--dump-sass").split("Function : ")[1:]:
        products_and_waits = "".join(
            wait or "P" for wait in re.findall(r"HGMMA|WARPGROUP\.DEPBAR\.LE gsb0, 0x(\d)", kernel)
        )
        if products_and_waits:
            kernels += 1
            # Products of both groups of gate rows; a wait for all, or for all but 7; for the rest.
            assert re.fullmatch("(P+070)+", products_and_waits), kernel.splitlines()[0]
    assert kernels == 12  # two hidden sizes, one or two layers, three types of operands
