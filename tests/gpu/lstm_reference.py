"""One optimiser step of the model in float64 by PyTorch's own operators, with the same windows and
dropout masks as the training kernel: what its gradients and updates are compared with."""

import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "ops"))
import random_reference  # noqa: E402


def parameter_shapes(features, hidden, layers):
    shapes = []
    for layer in range(layers):
        inputs = features if layer == 0 else hidden
        shapes += [
            (f"lstm.weight_ih_l{layer}", (4 * hidden, inputs)),
            (f"lstm.weight_hh_l{layer}", (4 * hidden, hidden)),
            (f"lstm.bias_ih_l{layer}", (4 * hidden,)),
            (f"lstm.bias_hh_l{layer}", (4 * hidden,)),
        ]
    return shapes + [("head.weight", (1, hidden)), ("head.bias", (1,))]


def split(flat, features, hidden, layers):
    """The concatenated parameters [P] as a dict of named views."""
    named, at = {}, 0
    for name, shape in parameter_shapes(features, hidden, layers):
        size = torch.Size(shape).numel()
        named[name] = flat[at : at + size].view(shape)
        at += size
    assert at == flat.numel()
    return named


def initial_parameters(features, hidden, layers, seed):
    generator = torch.Generator().manual_seed(seed)
    count = sum(torch.Size(s).numel() for _, s in parameter_shapes(features, hidden, layers))
    return (torch.rand(count, generator=generator) * 2 - 1) / hidden**0.5


def lstm_layer(x, w):
    """x [T, B, F] -> h [T, B, H]; w = (weight_ih, weight_hh, bias_ih, bias_hh)."""
    hidden = w[1].shape[1]
    h = x.new_zeros(x.shape[1], hidden)
    c = h
    outputs = []
    projected = x @ w[0].T + w[2] + w[3]
    for t in range(x.shape[0]):
        i, f, g, o = (projected[t] + h @ w[1].T).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


def batch_of_step(data, seed, step, batch, time_steps):
    features, targets, ends = data
    windows = ends.shape[0]
    per_epoch = windows // batch + (windows % batch >= 2)
    first = step % per_epoch * batch
    order = random_reference.order(windows, seed, step // per_epoch)[first : first + batch]
    chosen = ends.long()[torch.from_numpy(order)]
    x = torch.stack([features[e - time_steps + 1 : e + 1] for e in chosen.tolist()], 1)
    return x.double(), targets[chosen].double()


class Model:
    """float64 parameters, Adam and running statistics of one model."""

    def __init__(self, flat, features, hidden, layers, dropout, slope, learning_rate):
        self.sizes = (features, hidden, layers)
        self.dropout, self.slope = dropout, slope
        self.flat = flat.double().clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.flat], lr=learning_rate)
        self.norm = torch.nn.BatchNorm1d(hidden, affine=False).double()

    def step(self, data, seed, step, batch, time_steps):
        """Trains one step; returns (loss, gradient [P])."""
        x, y = batch_of_step(data, seed, step, batch, time_steps)
        features, hidden, layers = self.sizes
        named = split(self.flat, *self.sizes)
        h = x
        for layer in range(layers):
            if layer > 0 and self.dropout > 0:
                mask = random_reference.dropout_mask(
                    seed, step, layer - 1, self.dropout, time_steps, x.shape[1], hidden
                )
                h = h * torch.from_numpy(mask)
            keys = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            h = lstm_layer(h, [named[f"lstm.{k}_l{layer}"] for k in keys])
        z = torch.nn.functional.leaky_relu(self.norm(h[-1]), self.slope)
        output = z @ named["head.weight"].T + named["head.bias"]
        loss = ((output[:, 0] - y) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        gradient = self.flat.grad.clone()
        self.optimizer.step()
        return loss.item(), gradient
