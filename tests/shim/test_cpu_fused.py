"""librp.so's CPU kernels against PyTorch: predictions, and training with the same dropout masks."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional

import random_reference
import rp_library

ISAS = ["portable", "avx2", "avx512"]  # one that the machine has not falls back to the next below
SEED = 3
# Against the largest prediction; PyTorch's own distance from its float64 is as large.
PREDICTION_TOLERANCE = 1e-6
# Relative L2 distance of the parameters' change after three Adam steps. Adam divides by the
# gradient's size, so a relative error of the smallest gradients is one of the whole change.
CHANGE_TOLERANCE = 2e-3


class Model(nn.Module):
    """The model of rp.h as anybody would write it, but that dropout's mask is given."""

    def __init__(self, tensors, features=4, hidden=64, layers=2):
        super().__init__()
        widths = [features] + [hidden] * (layers - 1)
        self.lstm = nn.ModuleList(nn.LSTM(width, hidden, batch_first=True) for width in widths)
        self.norm = nn.BatchNorm1d(hidden, affine=False)
        self.head = nn.Linear(hidden, 1)
        state = {
            f"lstm.{name[-1]}.{name[5:-1]}0" if name.startswith("lstm.") else name: value
            for name, value in tensors.items()
            if name.split(".")[0] in ("lstm", "norm", "head")
        }
        state = {name: torch.tensor(value) for name, value in state.items()}
        missing, unexpected = self.load_state_dict(state, strict=False)
        assert missing in ([], ["norm.num_batches_tracked"]) and not unexpected

    def forward(self, x, masks=()):
        for layer, lstm in enumerate(self.lstm):
            x, _ = lstm(x)
            if layer < len(masks):
                x = x * masks[layer]
        return self.head(functional.leaky_relu(self.norm(x[:, -1]), 0.01)).squeeze(1)


def make_data(windows, time_steps=20, features=4):
    generator = np.random.default_rng(5)
    rows = windows + time_steps - 1
    values = generator.standard_normal((rows, features)).astype(np.float32)
    targets = (0.5 * values[:, 0] + generator.standard_normal(rows)).astype(np.float32)
    return values, targets, np.arange(time_steps - 1, rows, dtype=np.int32)


def sequences(features, ends, time_steps=20):
    return torch.tensor(np.stack([features[e - time_steps + 1 : e + 1] for e in ends]))


def make_trainer(data, isa, **options):
    return rp_library.Trainer(*data, isa=isa, configuration=b"cpu-fused", seed=SEED, threads=2,
                              target_unit=1.0, **options)  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("steps", [1, 100], ids=["random", "trained"])
def test_predictions_equal_pytorch(isa, steps, tmp_path):
    data = make_data(515)
    trainer = make_trainer(data, isa, batch=64)
    trainer.run(steps)
    trainer.save(tmp_path / "model")
    model = Model(load_file(tmp_path / "model")).eval()
    predictor = trainer.predictor(2, isa)
    with torch.inference_mode():
        expected = model(sequences(data[0], data[2])).numpy()
    found = predictor(data[0], data[2])
    alone = np.array([predictor(data[0], data[2][w : w + 1])[0] for w in range(64)])
    limit = PREDICTION_TOLERANCE * np.abs(expected).max()
    assert np.abs(found - expected).max() <= limit
    assert np.abs(alone - expected[:64]).max() <= limit


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("batch", [64, 50], ids=["even", "ragged"])
def test_training_equals_pytorch_in_float64(isa, batch, tmp_path):
    windows, steps = 160, 4
    data = make_data(windows)
    trainer = make_trainer(data, isa, batch=batch)
    trainer.save(tmp_path / "before")
    loss = trainer.run(1).loss
    trainer.run(steps - 1)
    trainer.save(tmp_path / "after")
    before, after = load_file(tmp_path / "before"), load_file(tmp_path / "after")

    model = Model(before).double().train()
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    x = sequences(data[0], data[2]).double()
    y = torch.tensor(data[1][data[2]]).double()
    per_epoch = -(-windows // batch)
    losses = []
    for step in range(steps):
        first = step % per_epoch * batch
        rows = random_reference.order(windows, SEED, step // per_epoch)[first : first + batch]
        mask = random_reference.dropout_mask(SEED, step, 0, 0.2, 20, len(rows), 64)
        adam.zero_grad()
        prediction = model(x[rows], [torch.tensor(mask).transpose(0, 1)])
        losses.append(functional.mse_loss(prediction, y[rows]))
        losses[-1].backward()
        adam.step()
    assert loss == pytest.approx(losses[0].item(), rel=1e-6)
    for name, expected in model.named_parameters():
        if name.startswith("lstm."):
            layer = name.split(".")[1]
            name = f"lstm.{name.split('.')[2][:-1]}{layer}"
        expected = expected.detach().numpy()
        change = expected - before[name]
        distance = np.linalg.norm(after[name] - expected) / np.linalg.norm(change)
        assert distance <= CHANGE_TOLERANCE, name
    for name in ("running_mean", "running_var"):
        expected = getattr(model.norm, name).numpy()
        assert np.abs(after[f"norm.{name}"] - expected).max() <= 1e-5, name
