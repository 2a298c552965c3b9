"""return_predictor.Trainer and train_many, on the CPU: against plain PyTorch, and against themselves."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from return_predictor import Network, Trainer, train_many
from return_predictor.trainer import initial_parameters, parameter_shapes

from bits import all_same_bits, same_bits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ops"))
import random_reference  # noqa: E402

TIME_STEPS = 6
SMALL = {"time_steps": TIME_STEPS, "hidden": 32, "batch": 16}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(90, 4, generator=generator)
    targets = features[:, 0] + 0.3 * torch.randn(90, generator=generator)
    windows = torch.arange(TIME_STEPS - 1, 90)[torch.randperm(85, generator=generator)][:44]
    return features, targets, windows.int()


def test_initial_weights_are_the_philox_numbers_of_the_seed():
    count, seed = 1001, 0x123456789ABC
    words = random_reference.philox(seed, 0x57454947, np.arange(251), 0, 0, 0)
    unit = (np.stack(words, 1).ravel()[:count] >> np.uint64(8)).astype(np.float64) / 2**24
    bound = np.float32(1) / np.sqrt(np.float32(32))
    expected = (bound * (2 * unit - 1).astype(np.float32)).astype(np.float32)
    assert same_bits(initial_parameters(count, 32, seed), torch.from_numpy(expected))


def test_model_has_51265_parameters():
    shapes = parameter_shapes(features=4, hidden=64, layers=2)
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 51265
    assert [*shapes] == [name for name, _ in Network(4).named_parameters()]


def plain_training(data, layers, seed, steps, rate):
    """The same training, without dropout, written with torch.nn and torch.optim."""
    features, targets, windows = data
    network = nn.ModuleDict(
        {
            "lstm": nn.LSTM(4, 32, layers),
            "norm": nn.BatchNorm1d(32, affine=False),
            "head": nn.Linear(32, 1),
        }
    )
    flat = initial_parameters(sum(p.numel() for p in network.parameters()), 32, seed)
    nn.utils.vector_to_parameters(flat, network.parameters())
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    per_epoch, losses = -(-len(windows) // 16), []
    for step in range(steps):
        order = random_reference.order(len(windows), seed, step // per_epoch)
        chosen = windows.long()[torch.from_numpy(order)][step % per_epoch * 16 :][:16]
        input = torch.stack([features[end - TIME_STEPS + 1 : end + 1] for end in chosen], 1)
        _, (hidden, _) = network["lstm"](input)
        output = network["head"](nn.functional.leaky_relu(network["norm"](hidden[-1]), 0.01))
        loss = (output[:, 0] - targets[chosen]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, network


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_training_without_dropout_equals_plain_pytorch(data, layers):
    trainer = Trainer(*data, seeds=[7], layers=layers, dropout=0.0, learning_rates=3e-3, **SMALL)
    assert trainer.fused == (layers <= 4), trainer.reason  # what the CPU's kernel takes
    losses = trainer.run(9)[0]
    expected, network = plain_training(data, layers, 7, 9, 3e-3)
    # Other operators add the same float32 terms in another order, nine steps long; Adam magnifies
    # small gradients: a hundredth of a step is allowed.
    torch.testing.assert_close(losses, torch.tensor(expected), rtol=1e-5, atol=0)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(trainer.state_dict()[name][0], tensor, rtol=1e-4, atol=3e-5)


def test_dropout_changes_the_training_and_follows_the_seed(data):
    def losses(seed, dropout):
        return Trainer(*data, seeds=[seed], dropout=dropout, **SMALL).run(3)

    assert same_bits(losses(1, 0.5), losses(1, 0.5))
    assert not same_bits(losses(1, 0.5), losses(1, 0.0))


def test_loss_falls_on_data_that_can_be_learned(data):
    trainer = Trainer(*data, learning_rates=1e-2, **SMALL)
    losses = trainer.run(40 * trainer.steps_per_epoch)[0]
    assert losses[-3:].mean() < 0.3 * losses[:3].mean()


def test_run_in_parts_or_restored_equals_one_run(data):
    whole, parts, resumed = (Trainer(*data, seeds=[1, 2], **SMALL) for _ in range(3))
    whole.run(5)
    parts.run(2)
    resumed.restore(parts.save())
    parts.run(3)
    resumed.run(3)
    for other in (parts, resumed):
        assert other.step == 5
        assert all_same_bits(other.state_dict().values(), whole.state_dict().values())


def test_module_computes_the_network_in_eval_mode(data):
    trainer = Trainer(*data, seeds=[1, 2], **SMALL)
    trainer.run(3)
    network = trainer.module(1)
    assert not network.training and network.norm.num_batches_tracked == 3
    assert same_bits(network.head.weight.detach(), trainer.state_dict()["head.weight"][1])
    features, _, windows = data
    inputs = torch.stack([features[end - TIME_STEPS + 1 : end + 1] for end in windows])
    assert network(inputs).shape == (44,)


def test_many_models_equal_each_trained_alone(data):
    features, targets, windows = data
    sets, seeds, rates = [windows, windows[:20], windows[10:30]], [5, 9], [1e-3, 2e-3] * 3
    seen = []
    state = train_many(
        features,
        targets,
        sets,
        seeds,
        epochs=2,
        learning_rates=rates,
        progress=lambda done, total, losses: seen.append((done, total, len(losses))),
        **SMALL,
    )
    assert seen == [(8, 28, 4), (16, 28, 4), (22, 28, 2), (28, 28, 2)]
    for index in range(6):
        part, seed = sets[index // 2], seeds[index % 2]
        alone = Trainer(features, targets, part, seeds=[seed], learning_rates=rates[index], **SMALL)
        alone.run(2 * alone.steps_per_epoch)
        for name, tensor in alone.state_dict().items():
            assert same_bits(tensor[0], state[name][index]), (index, name)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"features": torch.randn(90)}, r"features must be float32 \[N, F\]"),
        ({"features": torch.randn(90, 4).double()}, "not torch.float64"),
        ({"targets": torch.randn(89)}, r"targets must be float32 \[90\], one per row"),
        ({"windows": torch.zeros(0, dtype=torch.int32)}, "at least one"),
        ({"windows": torch.tensor([4, 5, 6])}, "windows end at rows 4 to 6; of 90 rows"),
        ({"windows": torch.tensor([5, 90])}, "windows end at rows 5 to 90"),
        ({"windows": torch.arange(5, 38)}, "33 windows in batches of 16, so a batch of one"),
        ({"seeds": []}, "0 seeds, but 0 ranges"),
        ({"seeds": [1, 2], "ranges": [(0, 10)]}, "2 seeds, but 1 ranges"),
        ({"ranges": [(40, 5)]}, "model 0 has windows 40 to 45 of 44"),
    ],
)
def test_unusable_arguments_are_refused(data, change, message):
    arguments = dict(zip(("features", "targets", "windows"), data)) | SMALL | change
    with pytest.raises(ValueError, match=message):
        Trainer(**arguments)


def test_restore_of_another_shape_is_refused_and_changes_nothing(data):
    trainer = Trainer(*data, **SMALL)
    before = trainer.save()
    with pytest.raises(ValueError, match="parameters was saved with shape"):
        trainer.restore(Trainer(*data, **SMALL | {"layers": 1}).save())
    assert all_same_bits(
        [t for t in trainer.save().values() if isinstance(t, torch.Tensor)],
        [t for t in before.values() if isinstance(t, torch.Tensor)],
    )


def test_precision_without_the_kernel_warns(data):
    with pytest.warns(UserWarning, match="precision bf16 is not used: the CPU trains in fp32"):
        Trainer(*data, precision="bf16", **SMALL)
