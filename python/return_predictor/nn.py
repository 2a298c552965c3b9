"""Layers over the fused operators, as drop-in replacements for those of ``torch.nn``.

Policy: a layer has its model's parameters, buffers and ``state_dict`` keys; checkpoints and
optimisers can't tell the difference. BatchNorm layers return eager PyTorch's bits, :class:`LSTM`
PyTorch's values to within its rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from . import library

library.load()
_bn_leaky_relu = torch.ops.rp.bn_leaky_relu.default
_lstm = torch.ops.rp.lstm.default

__all__ = ["BatchNormLeakyReLU1d", "BatchNormLeakyReLU2d", "BatchNormLeakyReLU3d", "LSTM"]


class _BatchNormLeakyReLU(_NormBase):
    # Not a _BatchNorm: SyncBatchNorm.convert_sync_batchnorm would drop the activation, silently.
    norm_class: type[torch.nn.Module]
    dimensions: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        negative_slope: float = 0.01,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype
        )
        self.negative_slope = negative_slope

    @classmethod
    def from_modules(cls, norm: torch.nn.Module, activation: torch.nn.LeakyReLU):
        """Return a layer that computes ``activation(norm(x))`` with the parameters of ``norm``.

        Parameters and buffers are shared with ``norm``, not copied, so that an optimiser that
        knows them goes on working.

        >>> norm, activation = torch.nn.BatchNorm2d(8), torch.nn.LeakyReLU(0.2)
        >>> layer = BatchNormLeakyReLU2d.from_modules(norm, activation)
        >>> layer.weight is norm.weight, layer.negative_slope
        (True, 0.2)

        Raises:
            TypeError: ``norm`` is not of this layer's dimension, or ``activation`` no LeakyReLU.
        """
        if not isinstance(norm, cls.norm_class) or not isinstance(activation, torch.nn.LeakyReLU):
            raise TypeError(
                f"{cls.__name__} replaces {cls.norm_class.__name__} and LeakyReLU, not "
                f"{type(norm).__name__} and {type(activation).__name__}"
            )
        layer = cls(
            norm.num_features,
            norm.eps,
            norm.momentum,
            norm.affine,
            norm.track_running_stats,
            activation.negative_slope,
            device="meta",
        )
        return layer._share(norm)

    def to_modules(self) -> tuple[torch.nn.Module, torch.nn.LeakyReLU]:
        """Return the pair ``(BatchNorm, LeakyReLU)``, which shares this layer's parameters.

        >>> norm, activation = BatchNormLeakyReLU1d(4).to_modules()
        >>> norm.num_features, activation
        (4, LeakyReLU(negative_slope=0.01))
        """
        norm = self.norm_class(
            self.num_features,
            self.eps,
            self.momentum,
            self.affine,
            self.track_running_stats,
            device="meta",
        )
        return _BatchNormLeakyReLU._share(norm, self), torch.nn.LeakyReLU(self.negative_slope)

    def _share(self, other: torch.nn.Module):
        self._parameters.update(other._parameters)
        self._buffers.update(other._buffers)
        return self.train(other.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self.dimensions:
            wanted = " or ".join(f"{n}D" for n in self.dimensions)
            raise ValueError(f"expected {wanted} input (got {input.dim()}D input)")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        use_running = not self.training or self.track_running_stats
        return _bn_leaky_relu(
            input,
            self.weight,
            self.bias,
            self.running_mean if use_running else None,
            self.running_var if use_running else None,
            self.training or (self.running_mean is None and self.running_var is None),
            momentum,
            self.eps,
            self.negative_slope,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, negative_slope={self.negative_slope}"


_DOC = """``LeakyReLU(negative_slope)`` of :class:`torch.nn.BatchNorm{n}d`, in one pass each way.

    Input and output: ``{shape}``, of any floating type, layout and device.
    Arguments, parameters, buffers and ``state_dict`` keys are those of ``BatchNorm{n}d``, so that a
    checkpoint of either loads into the other; ``negative_slope`` is ``LeakyReLU``'s. Values,
    gradients and running statistics equal those of the two layers bit for bit (on CUDA: with
    ``torch.backends.cudnn`` off); one activation is kept for the backward pass, not two.

    >>> import torch
    >>> fused = BatchNormLeakyReLU{n}d(3, negative_slope=0.2)
    >>> pair = torch.nn.Sequential(torch.nn.BatchNorm{n}d(3), torch.nn.LeakyReLU(0.2))
    >>> x = torch.randn({example})
    >>> torch.equal(fused(x), pair(x))
    True
    >>> pair[0].load_state_dict(fused.state_dict())
    <All keys matched successfully>

    Raises:
        ValueError: the input is not {dims}, or has one value per channel in training.
        RuntimeError: the channels, types or devices of input and parameters don't fit.
    """


class BatchNormLeakyReLU1d(_BatchNormLeakyReLU):
    __doc__ = _DOC.format(n=1, shape="[N, C]`` or ``[N, C, L]", example="8, 3", dims="2-D or 3-D")
    norm_class = torch.nn.BatchNorm1d
    dimensions = (2, 3)


class BatchNormLeakyReLU2d(_BatchNormLeakyReLU):
    __doc__ = _DOC.format(n=2, shape="[N, C, H, W]", example="8, 3, 5, 5", dims="4-D")
    norm_class = torch.nn.BatchNorm2d
    dimensions = (4,)


class BatchNormLeakyReLU3d(_BatchNormLeakyReLU):
    __doc__ = _DOC.format(n=3, shape="[N, C, D, H, W]", example="8, 3, 2, 5, 5", dims="5-D")
    norm_class = torch.nn.BatchNorm3d
    dimensions = (5,)


class LSTM(torch.nn.LSTM):
    """:class:`torch.nn.LSTM`, faster where this library has a faster path.

    Constructor, parameters, ``state_dict`` keys, arguments, results and errors are those of
    ``torch.nn.LSTM``. Of ``input [T, B, F]`` (``[B, T, F]`` with ``batch_first``) and optionally
    ``(h_0, c_0)``, both ``[num_layers, B, H]``, it returns ``output [T, B, H]`` (``[B, T, H]``) and
    ``(h_n, c_n)``, shaped as the initial states.

    Faster, in float32, with biases, one direction, no projection, no autocast, are

    - inference on the CPU: no gradients wanted, zero states, ``T <= 64``, ``F <= 32``, ``H <= 64``,
      ``num_layers <= 4``, AVX2. A sequence's result does not depend on what else is in its batch.
    - training on the CPU: ``H`` a multiple of 16, up to 128, AVX2.
    - GPUs of compute capability 9, inference and training, eager, compiled or in a CUDA graph:
      ``H`` 32 or 64, ``F <= 128``, ``B >= 192``, ``B T >= 2048``, where PyTorch may use cuDNN and
      TF32 for LSTMs (``torch.backends.cudnn``). The recurrence is far more exact than TF32; the
      products before and after it follow ``torch.backends.cuda.matmul``. The same inputs give the
      same bits; dropout is ``torch.nn.functional.dropout``'s.

    There results differ from PyTorch's by rounding. Everything else is PyTorch's own operator. As
    with ``torch.nn.LSTM``, ``torch.compile`` takes the layer without a graph break where
    ``torch._dynamo.config.allow_rnn`` is set, and there is no second derivative on a GPU.

    >>> import torch
    >>> lstm = LSTM(4, 64, num_layers=2, batch_first=True)
    >>> lstm.load_state_dict(torch.nn.LSTM(4, 64, num_layers=2).state_dict())
    <All keys matched successfully>
    >>> output, (h, c) = lstm(torch.randn(8, 20, 4))
    >>> output.shape, h.shape
    (torch.Size([8, 20, 64]), torch.Size([2, 8, 64]))
    """

    def forward(self, input, hx=None):
        """Return ``(output, (h_n, c_n))``."""
        plain = isinstance(input, Tensor) and input.dim() == 3
        plain = plain and (hx is None or (hx[0].dim() == 3 and hx[1].dim() == 3))
        if not plain or self.bidirectional or self.proj_size or not self.bias:
            return super().forward(input, hx)
        self._update_flat_weights()  # parameters may have been replaced, as functional_call does
        if hx is None:
            self.check_input(input, None)
        else:
            self.check_forward_args(input, hx, None)
        output, h, c = _lstm(
            input,
            () if hx is None else hx,
            self._flat_weights,
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
        )
        return output, (h, c)
