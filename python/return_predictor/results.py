"""Reads the files in results/, which programs write, for the charts and the tables."""

from __future__ import annotations

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_FOLDER = REPOSITORY / "results"


class ResultError(Exception):
    """A result file that is there but can't be used; the message names it and says why."""


def read(folder: Path, name: str, *required: str) -> dict | None:
    """Return the result file ``folder/name``, or None where there is none.

    Raises:
        ResultError: it is no JSON, or lacks one of the ``required`` keys.
    """
    path = folder / name
    try:
        result = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: {error}") from error
    missing = [key for key in required if key not in result]
    if missing:
        raise ResultError(f"{path}: no {', '.join(missing)} in it")
    return result


def provenance(name: str, result: dict) -> str:
    """Return one line: the source file, commit, date and machine of a result."""
    machine = result.get("machine") or {}
    parts = [f"results/{name}", f"commit {str(result.get('commit', 'unknown'))[:12]}"]
    parts += [str(result.get("date", ""))[:10], machine.get("gpu") or machine.get("cpu")]
    if machine.get("torch"):
        parts.append(f"torch {machine['torch']}")
    return " · ".join(part for part in parts if part)


def sizes(shape) -> list[int]:
    """Return the sizes of a shape, given as a list or as text.

    >>> sizes("512x64"), sizes([512, 64]), sizes("(512, 64)")
    ([512, 64], [512, 64], [512, 64])
    """
    if isinstance(shape, str):
        shape = shape.strip("()[] ").replace(",", "x").split("x")
    return [int(size) for size in shape]


def magnitude(value: float) -> str:
    """Return a number as people say it.

    >>> magnitude(950), magnitude(14_532), magnitude(1_283_000), magnitude(17_000_000)
    ('950', '14.5 k', '1.28 M', '17.0 M')
    """
    for scale, unit in ((1e6, " M"), (1e3, " k")):
        if value >= scale:
            scaled = value / scale
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{unit}"
    return f"{value:.0f}"
