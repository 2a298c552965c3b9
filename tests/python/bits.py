"""Comparison of tensors bit by bit: NaN equals NaN of the same bits, -0 differs from 0."""

import torch

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def same_bits(a, b):
    if a is None or b is None:
        return a is b
    kind = _INTEGERS[a.element_size()]
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.view(kind), b.view(kind))


def all_same_bits(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(map(same_bits, first, second))
