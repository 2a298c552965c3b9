"""Loads librp_ops.so: the one named by RP_OPS_LIBRARY, else the newest build under build/."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def library_path():
    named = os.environ.get("RP_OPS_LIBRARY")
    if named:
        return Path(named)
    built = sorted(ROOT.glob("build/*/lib/librp_ops.so"), key=lambda p: p.stat().st_mtime)
    if not built:
        pytest.exit("librp_ops.so is not built: run ./dev build, or set RP_OPS_LIBRARY", 2)
    return built[-1]


torch.ops.load_library(str(library_path()))
