"""Finds librp_ops.so and loads its operators into torch.

The library is taken from, in this order: ``RP_OPS_LIBRARY`` (a path), the package's own folder (an
installed wheel), and the newest ``build/*/lib/librp_ops.so`` of the repository that the package lies
in. ``librp_ops.json`` beside it names the torch that it was built for: C++ has no stable interface
across torch's releases, so any other torch is refused rather than tried.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

NAME = "librp_ops.so"


def find() -> Path:
    """Return the path of ``librp_ops.so``.

    Raises:
        ImportError: there is none; the message says how to build one.
    """
    asked = os.environ.get("RP_OPS_LIBRARY")
    if asked:
        if not Path(asked).is_file():
            raise ImportError(f"RP_OPS_LIBRARY names {asked}, which is no file")
        return Path(asked)
    package = Path(__file__).resolve().parent
    if (package / NAME).is_file():
        return package / NAME
    built = package.parents[1].glob(f"build/*/lib/{NAME}")
    newest = max(built, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise ImportError(
            f"{NAME} is neither in {package} nor in {package.parents[1]}/build/*/lib; "
            "build it with ./dev build, or install the wheel with pip install ./python"
        )
    return newest


def built_for(library: Path) -> dict:
    """Return what ``library`` was built for: ``{"torch", "cuda", "commit"}``, or ``{}`` if unknown."""
    try:
        return json.loads(library.with_suffix(".json").read_text())
    except FileNotFoundError:
        return {}


def load() -> Path:
    """Load the operators, once, and return the library's path.

    Raises:
        ImportError: torch or the library is missing, or they don't fit together.
    """
    import torch

    library = find()
    wanted = built_for(library).get("torch", torch.__version__)
    if wanted != torch.__version__:
        raise ImportError(
            f"{library} was built for torch {wanted}, but this is torch {torch.__version__}; "
            f"install torch=={wanted.partition('+')[0]}, or build the library again for this torch "
            "(./dev build in the repository; pip install --force-reinstall --no-deps ./python for "
            "the wheel)"
        )
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise ImportError(f"{library} can't be loaded into torch {torch.__version__}: {error}")
    return library
