"""Training of the return predictor on torch tensors: :class:`Trainer` and :func:`train_many`.

The network is LSTM -> last hidden state -> BatchNorm without affine parameters -> LeakyReLU ->
Linear(H, 1), trained by Adam on the mean squared error. Where the device has the training kernel
(``torch.ops.rp.lstm_train_``), many steps of all models run in one launch; elsewhere PyTorch's own
operators train the models one after another.

Policy: which windows a step trains, what it drops and the initial weights are functions of the seed
alone, the same as in the driver; a model's result does not depend on the models beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from . import nn

_PHILOX_MULTIPLIERS, _PHILOX_KEYS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
_WEIGHTS_TAG = 0x57454947
_WORD = 0xFFFFFFFF
_CPU_KERNEL_MOST = (32, 64, 512, 4)  # features, time steps, hidden units, layers


def parameter_shapes(features: int, hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's parameters, in the order in which they are concatenated.

    >>> list(parameter_shapes(4, 64, 1).items())[:2]
    [('lstm.weight_ih_l0', (256, 4)), ('lstm.weight_hh_l0', (256, 64))]
    """
    shapes = {}
    for layer in range(layers):
        shapes[f"lstm.weight_ih_l{layer}"] = (4 * hidden, features if layer == 0 else hidden)
        shapes[f"lstm.weight_hh_l{layer}"] = (4 * hidden, hidden)
        shapes[f"lstm.bias_ih_l{layer}"] = (4 * hidden,)
        shapes[f"lstm.bias_hh_l{layer}"] = (4 * hidden,)
    return shapes | {"head.weight": (1, hidden), "head.bias": (1,)}


def initial_parameters(count: int, hidden: int, seed: int) -> Tensor:
    """Return ``[count]`` weights, uniform in ±1/sqrt(hidden): Philox4x32-10 of the seed.

    >>> initial_parameters(2, 64, seed=1).abs().max() <= 0.125
    tensor(True)
    """
    counter = torch.arange((count + 3) // 4, dtype=torch.int64)
    c0, c1, c2, c3 = counter, *(torch.zeros_like(counter) for _ in range(3))
    k0, k1 = (seed & _WORD) ^ _WEIGHTS_TAG, seed >> 32 & _WORD
    for _ in range(10):
        p0, p1 = (_PHILOX_MULTIPLIERS[0] * c0, _PHILOX_MULTIPLIERS[1] * c2)  # modulo 2^64
        c0, c1, c2, c3 = (
            (p1 >> 32) & _WORD ^ c1 ^ k0,
            p1 & _WORD,
            (p0 >> 32) & _WORD ^ c3 ^ k1,
            p0 & _WORD,
        )
        k0, k1 = (k0 + _PHILOX_KEYS[0]) & _WORD, (k1 + _PHILOX_KEYS[1]) & _WORD
    unit = (torch.stack([c0, c1, c2, c3], 1).flatten()[:count] >> 8).float() * 2.0**-24
    return torch.tensor(hidden, dtype=torch.float32).sqrt().reciprocal() * (2 * unit - 1)


class Network(torch.nn.Module):
    """The return predictor as a module: input ``[B, T, F]``, output ``[B]``.

    >>> Network(4)(torch.randn(8, 20, 4)).shape
    torch.Size([8])
    """

    def __init__(
        self,
        features: int,
        hidden: int = 64,
        layers: int = 2,
        dropout: float = 0.2,
        momentum: float = 0.1,
        norm_eps: float = 1e-5,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = torch.nn.LSTM(features, hidden, layers, batch_first=True, dropout=between)
        self.norm = nn.BatchNormLeakyReLU1d(
            hidden, norm_eps, momentum, affine=False, negative_slope=negative_slope
        )
        self.head = torch.nn.Linear(hidden, 1)

    def forward(self, input: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(input)
        return self.head(self.norm(hidden[-1])).squeeze(1)


class Trainer:
    """Trains ``M`` independent models of one shape, side by side.

    Args:
        features: ``[N, F]`` float32, the rows; a window is ``time_steps`` rows that follow on each
            other. Its device is where training happens.
        targets: ``[N]`` float32, the label of the window that ends at each row, of about unit
            variance (small ones train poorly).
        windows: ``[W]`` int32, the last row of each window, in ``[time_steps - 1, N)``.
        seeds: one per model, ``M`` in all.
        ranges: per model ``(first, count)`` of its part of ``windows``; default: all of them.
        learning_rates: one for all, or one per model.
        precision: ``fp16`` (default), ``bf16``, ``tf32`` or ``fp32`` operands of the GPU's training
            kernel; the CPU's has ``fp32``. Without a kernel PyTorch's own settings decide.

    Attributes:
        step: optimiser steps taken. steps_per_epoch: of the model with the most windows.
        fused: whether the training kernel is used; ``reason`` says why not.

    Raises:
        ValueError: sizes, types or devices don't go together; a batch of one window would remain.

    >>> rows = torch.randn(100, 4)
    >>> trainer = Trainer(rows, rows[:, 0].clone(), torch.arange(19, 99), hidden=32, batch=40)
    >>> trainer.run(4).shape, trainer.step, trainer.module()(rows[None, :20]).shape
    (torch.Size([1, 4]), 4, torch.Size([1]))
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        windows: Tensor,
        *,
        seeds: Sequence[int] = (1,),
        ranges: Sequence[tuple[int, int]] | None = None,
        learning_rates: float | Sequence[float] = 1e-3,
        time_steps: int = 20,
        hidden: int = 64,
        layers: int = 2,
        dropout: float = 0.2,
        batch: int = 512,
        precision: str | None = None,
        momentum: float = 0.1,
        norm_eps: float = 1e-5,
        negative_slope: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-8,
    ) -> None:
        self._check_data(features, targets, windows, time_steps)
        device = features.device
        self._data = (features.contiguous(), targets.contiguous(), windows.int().contiguous())
        self._seeds = [int(seed) for seed in seeds]
        models = len(self._seeds)
        self._ranges = [(0, len(windows))] * models if ranges is None else list(ranges)
        rates = torch.as_tensor(learning_rates, dtype=torch.float64, device="cpu")
        self._rates = rates.expand(models).contiguous()
        self._check_models(len(windows), batch)
        self.time_steps, self.hidden, self.layers, self.batch = time_steps, hidden, layers, batch
        self.dropout, self.momentum, self.norm_eps = dropout, momentum, norm_eps
        self.negative_slope, self.betas, self.adam_eps = negative_slope, betas, adam_eps
        self.precision = precision or ("fp16" if device.type == "cuda" else "fp32")
        self.step = 0
        self.steps_per_epoch = max(-(-count // batch) for _, count in self._ranges)

        self._shapes = parameter_shapes(features.shape[1], hidden, layers)
        total = sum(torch.Size(shape).numel() for shape in self._shapes.values())
        start = [initial_parameters(total, hidden, seed) for seed in self._seeds]
        parameters = torch.stack(start).to(device)
        self._state = {
            "parameters": parameters,
            "exp_avg": torch.zeros_like(parameters),
            "exp_avg_sq": torch.zeros_like(parameters),
            "running_mean": torch.zeros(models, hidden, device=device),
            "running_var": torch.ones(models, hidden, device=device),
            "scale_state": torch.zeros(models, 3, device=device),
        }
        self.reason = self._why_not_fused()
        self.fused = self.reason == ""
        if precision is not None and not self.fused:
            warnings.warn(f"precision {precision} is not used: {self.reason}", stacklevel=2)

    @staticmethod
    def _check_data(features, targets, windows, time_steps) -> None:
        if features.dim() != 2 or features.dtype != torch.float32:
            raise ValueError(
                f"features must be float32 [N, F], not {features.dtype} {[*features.shape]}"
            )
        if targets.shape != features.shape[:1] or targets.dtype != torch.float32:
            raise ValueError(
                f"targets must be float32 [{len(features)}], one per row of features, not "
                f"{targets.dtype} {[*targets.shape]}"
            )
        if windows.dim() != 1 or windows.is_floating_point() or len(windows) == 0:
            raise ValueError("windows must be row numbers [W], at least one")
        if not features.device == targets.device == windows.device:
            raise ValueError("features, targets and windows must be on one device")
        first, last = int(windows.min()), int(windows.max())
        if first < time_steps - 1 or last >= len(features):
            raise ValueError(
                f"windows end at rows {first} to {last}; of {len(features)} rows those from "
                f"{time_steps - 1} on end a window of {time_steps}"
            )

    def _check_models(self, total: int, batch: int) -> None:
        if not self._seeds or len(self._ranges) != len(self._seeds):
            raise ValueError(f"{len(self._seeds)} seeds, but {len(self._ranges)} ranges")
        for model, (first, count) in enumerate(self._ranges):
            if first < 0 or count < 2 or first + count > total:
                raise ValueError(
                    f"model {model} has windows {first} to {first + count} of {total}; it needs two"
                )
            if batch < 2 or count % batch == 1:
                raise ValueError(
                    f"model {model} has {count} windows in batches of {batch}, so a batch of one, "
                    "which has no variance: choose another batch or leave one window out"
                )

    def _why_not_fused(self) -> str:
        features = self._data[0]
        if features.device.type == "cpu":
            if self.precision != "fp32":
                return "the CPU trains in fp32"
            sizes = (features.shape[1], self.time_steps, self.hidden, self.layers)
            fits = all(size <= most for size, most in zip(sizes, _CPU_KERNEL_MOST))
            return "" if fits else "more features, days, units or layers than the CPU's kernel takes"
        if not features.is_cuda:
            return f"there is no training kernel for {features.device}"
        if not torch._C._dispatch_has_kernel_for_dispatch_key("rp::lstm_train_", "CUDA"):
            return "the library was built without CUDA kernels"
        return torch.ops.rp.lstm_train_unsupported(
            features.shape[1],
            self.time_steps,
            self.hidden,
            self.layers,
            self.batch,
            self.precision,
        )

    def run(self, steps: int) -> Tensor:
        """Train ``steps`` steps more and return the loss of each: ``[M, steps]``."""
        models, device = len(self._seeds), self._data[0].device
        losses = torch.zeros(models, steps, device=device)
        if self.fused:
            self._run_fused(losses, steps)
        else:
            for model in range(models):
                self._run_reference(model, losses[model], steps)
        self.step += steps
        return losses

    def _run_fused(self, losses: Tensor, steps: int) -> None:
        state = self._state
        torch.ops.rp.lstm_train_(
            state["parameters"],
            state["exp_avg"],
            state["exp_avg_sq"],
            state["running_mean"],
            state["running_var"],
            losses,
            state["scale_state"],
            *self._data,
            torch.tensor(self._ranges),
            torch.tensor(self._seeds),
            self._rates,
            self.step,
            steps,
            self.batch,
            self.time_steps,
            self.hidden,
            self.layers,
            self.dropout,
            self.momentum,
            self.norm_eps,
            self.negative_slope,
            *self.betas,
            self.adam_eps,
            self.precision,
        )

    def _run_reference(self, model: int, losses: Tensor, steps: int) -> None:
        flat = self._state["parameters"][model]
        leaves = [leaf.detach().requires_grad_() for leaf in self._views(flat).values()]
        adam_step = torch.tensor(float(self.step), device=flat.device)
        for place in range(steps):
            loss = self._loss(model, leaves, self.step + place)
            grads = torch.autograd.grad(loss, leaves)
            adam_step += 1
            torch._fused_adam_(
                [flat],
                [torch.cat([grad.flatten() for grad in grads])],
                [self._state["exp_avg"][model]],
                [self._state["exp_avg_sq"][model]],
                [],
                [adam_step],
                lr=self._rates[model].item(),
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=0.0,
                eps=self.adam_eps,
                amsgrad=False,
                maximize=False,
            )
            losses[place] = loss.detach()

    def _loss(self, model: int, leaves: list[Tensor], step: int) -> Tensor:
        features, targets, windows = self._data
        first, count = self._ranges[model]
        rows = min(self.batch, count - step % -(-count // self.batch) * self.batch)
        seed, at = self._seeds[model], torch.tensor(step, device=features.device)
        own = windows[first : first + count]
        sequence, target = torch.ops.rp.gather_windows(
            features, targets, own, at, seed, self.batch, rows, self.time_steps
        )
        zeros = features.new_zeros(1, rows, self.hidden)
        for layer in range(self.layers):
            weights = leaves[4 * layer : 4 * layer + 4]
            sequence, last, _ = torch.lstm(
                sequence, (zeros, zeros), weights, True, 1, 0.0, True, False, False
            )
            if layer + 1 < self.layers and self.dropout > 0:
                sequence = torch.ops.rp.lstm_dropout(sequence, at, seed, layer, self.dropout)
        normed = torch.ops.rp.bn_leaky_relu(
            last.squeeze(0),
            None,
            None,
            self._state["running_mean"][model],
            self._state["running_var"][model],
            True,
            self.momentum,
            self.norm_eps,
            self.negative_slope,
        )
        return F.mse_loss(F.linear(normed, *leaves[-2:]).squeeze(1), target)

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        views, at = {}, 0
        for name, shape in self._shapes.items():
            size = torch.Size(shape).numel()
            views[name] = flat[..., at : at + size].view(*flat.shape[:-1], *shape)
            at += size
        return views

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the models' tensors by the names of :class:`Network`: ``[M, ...]``."""
        state = self._views(self._state["parameters"])
        state["norm.running_mean"] = self._state["running_mean"]
        state["norm.running_var"] = self._state["running_var"]
        counter = torch.full((len(self._seeds),), self.step, device=self._data[0].device)
        return {name: tensor.clone() for name, tensor in state.items()} | {
            "norm.num_batches_tracked": counter
        }

    def module(self, model: int = 0) -> Network:
        """Return one model as a :class:`Network` with weights of its own, in eval mode."""
        network = Network(
            self._data[0].shape[1],
            self.hidden,
            self.layers,
            self.dropout,
            self.momentum,
            self.norm_eps,
            self.negative_slope,
        )
        network.load_state_dict({name: t[model] for name, t in self.state_dict().items()})
        return network.to(self._data[0].device).eval()

    def save(self) -> dict[str, Tensor | int]:
        """Return a copy of all that training goes on from; :meth:`restore` takes it."""
        return {name: tensor.clone() for name, tensor in self._state.items()} | {"step": self.step}

    def restore(self, saved: dict[str, Tensor | int]) -> None:
        """Go on from where :meth:`save` was called, to the same bits.

        Raises:
            ValueError: it was saved by a trainer of another shape.
        """
        for name, tensor in self._state.items():
            if saved[name].shape != tensor.shape:
                raise ValueError(
                    f"{name} was saved with shape {[*saved[name].shape]}, this trainer's is "
                    f"{[*tensor.shape]}"
                )
        for name, tensor in self._state.items():
            tensor.copy_(saved[name])
        self.step = int(saved["step"])


def train_many(
    features: Tensor,
    targets: Tensor,
    windows: Tensor | Sequence[Tensor],
    seeds: Sequence[int],
    *,
    epochs: int = 10,
    learning_rates: float | Sequence[float] = 1e-3,
    progress: Callable[[int, int, Tensor], None] | None = None,
    **options,
) -> dict[str, Tensor]:
    """Train one model for each set of windows and each seed, side by side on a GPU.

    Args:
        features, targets: as for :class:`Trainer`.
        windows: one tensor ``[W]`` of window ends, or one per training set; models are ordered by
            set, then by seed.
        learning_rates: one for all, or one per model.
        progress: called after every epoch with the steps done and to do, over all models, and the
            mean loss of the epoch ``[models trained in it]``.
        options: the other arguments of :class:`Trainer`.

    Returns:
        The models' state dicts, stacked: each tensor ``[sets * seeds, ...]``. Each model's bits are
        those that it has when trained alone.

    >>> rows = torch.randn(60, 3)
    >>> state = train_many(rows, rows[:, 0].clone(), torch.arange(4, 60), seeds=[1, 2, 3], epochs=1,
    ...                    time_steps=5, hidden=32, batch=28)
    >>> state["head.weight"].shape
    torch.Size([3, 1, 32])
    """
    sets = [windows] if isinstance(windows, Tensor) else list(windows)
    batch = options.get("batch", 512)
    rates = torch.as_tensor(learning_rates, dtype=torch.float64).expand(len(sets) * len(seeds))
    starts = torch.tensor([0] + [len(part) for part in sets]).cumsum(0).tolist()
    models = [
        (seed, (start, len(part)), epochs * -(-len(part) // batch))
        for start, part in zip(starts, sets)
        for seed in seeds
    ]
    total, done, states = sum(steps for *_, steps in models), 0, {}
    for steps in sorted({steps for *_, steps in models}):
        group = [index for index, model in enumerate(models) if model[2] == steps]
        trainer = Trainer(
            features,
            targets,
            torch.cat(sets),
            seeds=[models[index][0] for index in group],
            ranges=[models[index][1] for index in group],
            learning_rates=rates[group],
            **options,
        )
        for _ in range(epochs):
            losses = trainer.run(steps // epochs)
            done += losses.numel()
            if progress is not None:
                progress(done, total, losses.mean(1))
        for name, tensor in trainer.state_dict().items():
            for place, index in enumerate(group):
                states.setdefault(name, [None] * len(models))[index] = tensor[place]
    return {name: torch.stack(tensors) for name, tensors in states.items()}
