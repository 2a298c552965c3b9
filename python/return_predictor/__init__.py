"""Fused operators for PyTorch: BatchNorm + LeakyReLU with eager mode's bits, and LSTM training.

>>> import torch, return_predictor
>>> layer = return_predictor.nn.BatchNormLeakyReLU1d(64)
>>> layer(torch.randn(512, 64)).shape
torch.Size([512, 64])

``import return_predictor`` loads the operators ``torch.ops.rp.*``. The programs
``python -m return_predictor.charts``, ``.benchmark_table`` and ``.fetch`` need no torch and load none.
"""

import sys

__version__ = "1.0.0"

__all__ = ["nn", "bn_leaky_relu", "fuse", "unfuse", "FuseReport", "Network", "Trainer", "train_many"]

_missing = None
# While `python -m return_predictor.charts` looks for its module, argv[0] is "-m".
if sys.argv[:1] != ["-m"]:
    try:
        import torch as _torch  # noqa: F401
    except (ImportError, OSError) as error:
        _missing = error
    else:
        from . import nn
        from .functional import bn_leaky_relu
        from .fusion import FuseReport, fuse, unfuse
        from .trainer import Network, Trainer, train_many


def __getattr__(name):
    if _missing is not None and name in __all__:
        raise ImportError(f"return_predictor.{name} needs torch: {_missing}") from _missing
    raise AttributeError(f"module 'return_predictor' has no attribute {name!r}")
