"""The fused operators as typed functions, with the arguments of ``torch.nn.functional``."""

from __future__ import annotations

import torch
from torch import Tensor

from . import library

library.load()

__all__ = ["bn_leaky_relu"]


def bn_leaky_relu(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    negative_slope: float = 0.01,
) -> Tensor:
    """Return ``leaky_relu(batch_norm(input, ...), negative_slope)``, in one pass each way.

    Args:
        input: ``[N, C]`` or ``[N, C, ...]``, of any floating type, layout and device.
        running_mean, running_var: ``[C]``, updated in place in training; needed in evaluation.
        weight, bias: ``[C]``, or None for ones and zeros.
        momentum: of the running statistics.
        eps: added to the variance.
        negative_slope: of the LeakyReLU.

    Returns:
        A tensor of ``input``'s shape, type and layout. Values, gradients and running statistics
        equal those of the two functions bit for bit (on CUDA: with ``torch.backends.cudnn`` off).
        ``input`` and the parameters must not be modified in place before the backward pass.

    Raises:
        ValueError: one value per channel in training, or ``eps`` not positive.
        RuntimeError: the channels, types or devices don't fit, or evaluation without statistics.

    >>> import torch.nn.functional as F
    >>> x, mean, var = torch.randn(8, 3), torch.zeros(3), torch.ones(3)
    >>> pair = F.leaky_relu(F.batch_norm(x, mean.clone(), var.clone(), training=True), 0.2)
    >>> torch.equal(bn_leaky_relu(x, mean, var, training=True, negative_slope=0.2), pair)
    True
    """
    if eps <= 0:
        raise ValueError(f"batch_norm eps must be positive, but got {eps}")
    return torch.ops.rp.bn_leaky_relu(
        input, weight, bias, running_mean, running_var, training, momentum, eps, negative_slope
    )
