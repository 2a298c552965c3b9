"""rp::gather_windows and rp::lstm_dropout, on the CPU and, where there is one, the GPU."""

import os
import pathlib
import sys

import numpy as np
import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import random_reference  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
torch.ops.load_library(
    os.environ.get("RP_OPS_LIBRARY", str(ROOT / "build/default/lib/librp_ops.so"))
)

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
DEVICES = ["cpu", pytest.param("cuda", marks=no_gpu)]


def step_tensor(step, device):
    return torch.tensor(step, dtype=torch.int64, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("step, seed", [(0, 1), (7, 2**63 + 5), (2**32 + 3, 0)])
def test_dropout_any_step_matches_the_reference_mask(device, step, seed):
    x = torch.randn(19, 5, 33, dtype=torch.float64, device=device)
    signed_seed = seed - 2**64 if seed >= 2**63 else seed
    y = torch.ops.rp.lstm_dropout(x, step_tensor(step, device), signed_seed, 1, 0.2)
    mask = random_reference.dropout_mask(seed, step, 1, 0.2, *x.shape)
    expected = x.cpu().numpy() * np.float32(mask).astype(np.float64)
    np.testing.assert_array_equal(y.cpu().numpy(), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_dropout_gradient_passes_the_same_mask(device):
    x = torch.randn(9, 3, 8, device=device, dtype=torch.float64, requires_grad=True)
    step = step_tensor(4, device)
    torch.autograd.gradcheck(lambda v: torch.ops.rp.lstm_dropout(v, step, 3, 0, 0.4), x)
    y = torch.ops.rp.lstm_dropout(x, step, 3, 0, 0.4)
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert torch.equal(gradient == 0, y == 0)


@pytest.mark.parametrize("device", DEVICES)
def test_dropout_many_draws_keeps_the_expected_share(device):
    ones = torch.ones(64, 64, 64, device=device)
    kept = torch.stack(
        [torch.ops.rp.lstm_dropout(ones, step_tensor(s, device), 1, 0, 0.2) > 0 for s in range(8)]
    ).double()
    deviation = (0.8 * 0.2 / ones.numel() / 8) ** 0.5
    assert abs(kept.mean().item() - 0.8) < 5 * deviation
    for axis in (1, 2, 3):  # neighbours in time, row and unit are independent
        pairs = (kept.narrow(axis, 0, 63) * kept.narrow(axis, 1, 63)).mean().item()
        assert abs(pairs - 0.64) < 10 * deviation


@pytest.mark.parametrize("device", DEVICES)
def test_dropout_zero_probability_is_identity(device):
    x = torch.randn(4, 2, 3, device=device)
    assert torch.equal(torch.ops.rp.lstm_dropout(x, step_tensor(0, device), 1, 0, 0.0), x)


def market(device, rows=200, width=3, time_steps=6):
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(rows, width, generator=generator)
    targets = torch.randn(rows, generator=generator)
    ends = torch.randperm(rows - time_steps + 1, generator=generator)[:53] + time_steps - 1
    return features.to(device), targets.to(device), ends.to(torch.int32).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("step, rows", [(0, 16), (3, 5), (9, 16), (7, 5)])
def test_gather_any_step_takes_the_reference_windows(device, step, rows):
    features, targets, ends = market(device)
    x, y = torch.ops.rp.gather_windows(
        features, targets, ends, step_tensor(step, device), 11, 16, rows, 6
    )
    first = step % 4 * 16
    chosen = ends.cpu().numpy()[random_reference.order(53, 11, step // 4)[first : first + rows]]
    for row, end in enumerate(chosen):
        assert torch.equal(x[:, row], features[end - 5 : end + 1])
        assert y[row] == targets[end]


@no_gpu
def test_gather_past_the_epoch_on_the_gpu_is_nan():
    features, targets, ends = market("cuda")
    x, y = torch.ops.rp.gather_windows(features, targets, ends, step_tensor(3, "cuda"), 1, 16, 6, 6)
    assert torch.isnan(y[5]) and torch.isnan(x[:, 5]).all() and torch.isfinite(x[:, :5]).all()


def test_gather_past_the_epoch_on_the_cpu_is_refused():
    with pytest.raises(RuntimeError, match="has 5 rows"):
        torch.ops.rp.gather_windows(*market("cpu"), step_tensor(3, "cpu"), 1, 16, 6, 6)


@no_gpu
def test_both_in_a_captured_graph_move_with_the_step():
    features, targets, ends = market("cuda")
    step = step_tensor(0, "cuda")

    def once():
        x, _ = torch.ops.rp.gather_windows(features, targets, ends, step, 1, 16, 16, 6)
        return torch.ops.rp.lstm_dropout(x, step, 1, 0, 0.2)

    once()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = once()
        step += 1
    step.zero_()
    for expected_step in range(3):
        graph.replay()
        replayed = captured.clone()
        current = step.clone()
        step.fill_(expected_step)
        assert torch.equal(replayed, once())
        step.copy_(current)


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck_both_operators_pass(device):
    x = torch.randn(3, 2, 4, device=device, requires_grad=True)
    torch.library.opcheck(
        torch.ops.rp.lstm_dropout.default, (x, step_tensor(1, device), 1, 0, 0.3)
    )
    torch.library.opcheck(
        torch.ops.rp.gather_windows.default, (*market(device), step_tensor(1, device), 1, 16, 16, 6)
    )
