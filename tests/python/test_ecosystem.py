"""The fused layer under torch.compile, torch.export, functional transforms and DDP."""

import copy
import os
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn

from return_predictor import fuse
from return_predictor.nn import BatchNormLeakyReLU1d

from bits import all_same_bits, same_bits


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LeakyReLU(0.2), nn.Linear(6, 1))


def step(model, input):
    model.zero_grad()
    output = model(input)
    output.square().sum().backward()
    return [output.detach(), *(p.grad for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("training", [True, False])
def test_compiled_without_graph_break_has_eager_bits(backend, training):
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if backend == "inductor" and not headers.is_file():
        pytest.skip(f"Inductor needs {headers}: apt-get install python3-dev")
    torch._dynamo.reset()
    layer = BatchNormLeakyReLU1d(6, negative_slope=0.2).train(training)
    pair = nn.Sequential(nn.BatchNorm1d(6), nn.LeakyReLU(0.2)).train(training)
    compiled = torch.compile(copy.deepcopy(layer), backend=backend, fullgraph=True)
    input = torch.randn(16, 6)
    for _ in range(2):
        expected = step(pair, input)
        assert all_same_bits(step(compiled, input), expected)


def test_compiled_fused_network_has_no_graph_break():
    torch._dynamo.reset()
    fused = fuse(network())
    explanation = torch._dynamo.explain(copy.deepcopy(fused))(torch.randn(8, 4))
    assert explanation.graph_break_count == 0 and explanation.graph_count == 1


@pytest.mark.parametrize("training", [True, False])
def test_exported_network_computes_the_same(training):
    fused = fuse(network()).train(training)
    input = torch.randn(8, 4)
    exported = torch.export.export(copy.deepcopy(fused), (input,))
    assert "rp.bn_leaky_relu" in str(exported.graph)
    assert same_bits(exported.module()(input).detach(), fused(input).detach())


def test_exported_network_saved_and_loaded_computes_the_same(tmp_path):
    fused = fuse(network()).eval()
    input = torch.randn(8, 4)
    batch = torch.export.Dim("batch", min=2)
    torch.export.save(
        torch.export.export(fused, (input,), dynamic_shapes=({0: batch},)), tmp_path / "model.pt2"
    )
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for rows in (8, 13):
        input = torch.randn(rows, 4)
        assert same_bits(loaded(input).detach(), fused(input).detach())


def test_vmap_and_jvp_equal_the_pair():
    layer = BatchNormLeakyReLU1d(6, negative_slope=0.2).eval()
    pair = nn.Sequential(*layer.to_modules())
    inputs, tangent = torch.randn(3, 8, 6), torch.randn(3, 8, 6)
    torch.testing.assert_close(torch.vmap(layer)(inputs), torch.vmap(pair)(inputs))
    for mine, theirs in zip(
        torch.func.jvp(layer, (inputs[0],), (tangent[0],)),
        torch.func.jvp(pair, (inputs[0],), (tangent[0],)),
    ):
        assert same_bits(mine.detach(), theirs.detach())


def test_gradient_of_gradient_equals_the_pair():
    layer = BatchNormLeakyReLU1d(6, negative_slope=0.2, dtype=torch.float64)
    pair = nn.Sequential(*copy.deepcopy(layer).to_modules())
    input = torch.randn(8, 6, dtype=torch.float64)
    results = []
    for model in (layer, pair):
        x = input.clone().requires_grad_()
        (first,) = torch.autograd.grad(model(x).pow(3).sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.pow(2).sum(), [x, *model.parameters()]))
    assert all_same_bits(*results)


def test_two_processes_under_ddp_train_as_the_pair_does(run, tmp_path):
    worker = Path(__file__).parent / "ddp_worker.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = run(worker, tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["rank", "0", "equal", "rank", "1", "equal"]
