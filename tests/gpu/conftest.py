"""Loads librp_ops.so: the one named by RP_OPS_LIBRARY, else the newest build under build/."""

import os
import pathlib

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]


def library_path():
    named = os.environ.get("RP_OPS_LIBRARY")
    built = sorted(ROOT.glob("build/*/lib/librp_ops.so"), key=lambda p: p.stat().st_mtime)
    if not named and not built:
        pytest.exit("librp_ops.so is not built: run ./dev build, or set RP_OPS_LIBRARY", 2)
    return named or str(built[-1])


torch.ops.load_library(library_path())
