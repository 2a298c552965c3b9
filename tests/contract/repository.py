"""What the tests of the repository's rules share: where things are, and which files are ours."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build" / "default"))
PROGRAM = BUILD / "bin" / "return-predictor"
ROOMS = ("ops", "shim", "driver", "python", "tests", "cmake", "deploy")


def files(*suffixes, rooms=ROOMS):
    """Our files with one of the suffixes; without git, which a fresh machine may not have."""
    found = []
    for room in rooms:
        for folder, folders, names in os.walk(ROOT / room):
            folders[:] = [name for name in folders if not name.startswith((".", "__", "build"))]
            found += [pathlib.Path(folder, name) for name in names if name.endswith(suffixes)]
    return sorted(found)


def relative(path):
    return str(path.relative_to(ROOT))
