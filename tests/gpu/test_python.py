"""The Python package on a GPU: fused layers and networks, CUDA graphs, Trainer and train_many."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2] / part) for part in ("python", "tests/python")
]
from bits import all_same_bits, same_bits  # noqa: E402
from return_predictor import Trainer, fuse, train_many  # noqa: E402
from return_predictor.nn import BatchNormLeakyReLU1d, BatchNormLeakyReLU2d  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]


def step(model, input):
    model.zero_grad()
    output = model(input)
    output.square().sum().backward()
    return [output.detach(), *(p.grad for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_equals_pair(layout, dtype):
    layer = BatchNormLeakyReLU2d(33, negative_slope=0.2).to("cuda", dtype)
    pair = nn.Sequential(*copy.deepcopy(layer).to_modules())
    input = torch.randn(6, 33, 9, 7).to("cuda", dtype, memory_format=layout)
    with torch.backends.cudnn.flags(enabled=False):
        for training in (True, False):
            layer.train(training), pair.train(training)
            assert all_same_bits(step(layer, input), step(pair, input))


def test_network_fused_computes_the_same_bits():
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Linear(20, 64), nn.BatchNorm1d(64), nn.LeakyReLU(0.2), nn.Linear(64, 65),
        nn.BatchNorm1d(65), nn.LeakyReLU(), nn.Linear(65, 1),
    ).cuda()  # fmt: skip
    fused = fuse(copy.deepcopy(plain))
    assert fused.fuse_report.fused == ["1", "4"]
    input = torch.randn(1000, 20, device="cuda")
    assert all_same_bits(step(fused, input), step(plain, input))


def test_layer_captured_in_a_cuda_graph_replays_the_same_bits():
    layer, eager = (BatchNormLeakyReLU1d(64).cuda() for _ in range(2))
    input = torch.randn(512, 64, device="cuda")
    static = input.clone().requires_grad_()
    replayed = torch.cuda.make_graphed_callables(copy.deepcopy(layer), (static,))
    for _ in range(3):
        fresh = torch.randn(512, 64, device="cuda")
        outputs = [model(fresh.clone().requires_grad_()) for model in (replayed, eager)]
        assert same_bits(*(output.detach() for output in outputs))


def test_compiled_layer_has_eager_bits():
    torch._dynamo.reset()
    layer = BatchNormLeakyReLU1d(64).cuda()
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    input = torch.randn(4096, 64, device="cuda")
    assert all_same_bits(step(compiled, input), step(layer, input))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2000, 4, generator=generator)
    targets = features[:, 0] + torch.randn(2000, generator=generator)
    windows = torch.arange(19, 2000)[torch.randperm(1981, generator=generator)][:1500].int()
    return features.cuda(), targets.cuda(), windows.cuda()


@pytest.fixture
def kernel():
    if not torch._C._dispatch_has_kernel_for_dispatch_key("rp::lstm_train_", "CUDA"):
        pytest.skip("this build has no training kernel")


def test_trainer_on_the_gpu_follows_the_cpu(data, kernel):
    fused = Trainer(*data, seeds=[1, 2], batch=512, precision="fp16")
    assert fused.fused, fused.reason
    plain = Trainer(*(tensor.cpu() for tensor in data), seeds=[1, 2], batch=512)
    mine, theirs = fused.run(30).cpu(), plain.run(30)
    # fp16 operands: 30 steps stay within 8e-4 of float64 in the kernel's own tests.
    torch.testing.assert_close(mine, theirs, rtol=3e-3, atol=0)


def test_trainer_with_kernel_in_parts_or_restored_equals_one_run(data, kernel):
    whole, parts, resumed = (Trainer(*data, batch=256) for _ in range(3))
    whole.run(12)
    parts.run(5)
    resumed.restore(parts.save())
    parts.run(7), resumed.run(7)
    for other in (parts, resumed):
        assert all_same_bits(other.state_dict().values(), whole.state_dict().values())


def test_many_models_equal_each_trained_alone(data, kernel):
    features, targets, windows = data
    sets, seeds, calls = [windows, windows[:700]], [3, 4, 5], []
    state = train_many(
        features, targets, sets, seeds, epochs=2, batch=128, progress=lambda *a: calls.append(a)
    )
    assert calls[-1][0] == calls[-1][1] and len(calls) == 4
    for index in range(6):
        alone = Trainer(features, targets, sets[index // 3], seeds=[seeds[index % 3]], batch=128)
        alone.run(2 * alone.steps_per_epoch)
        for name, tensor in alone.state_dict().items():
            assert same_bits(tensor[0], state[name][index]), (index, name)


def test_trained_module_predicts_what_it_was_trained_for(data):
    trainer = Trainer(*data, batch=256, learning_rates=1e-2)
    trainer.run(20 * trainer.steps_per_epoch)
    features, targets, windows = data
    inputs = torch.stack([features[end - 19 : end + 1] for end in windows.tolist()])
    with torch.no_grad():
        predicted = trainer.module()(inputs)
    assert torch.corrcoef(torch.stack([predicted, targets[windows.long()]]))[0, 1] > 0.5
