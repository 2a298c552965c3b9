"""The arrows: which room may include what. Nothing points up.

driver -> rp/rp.h -> nothing. shim -> ops/kernels. shim/torch -> shim, torch, ops/include.
ops/torch -> ops/kernels, torch. ops/kernels -> CUDA's runtime only. python -> torch.ops only.
"""

import re

import pytest
from repository import ROOT, files, relative

TORCH = r"(torch|ATen|c10|caffe2)/"
CUDA = r"(cuda|cub/|cooperative_groups|mma\.h|nvtx|cublas|cudnn)"

# room: (rooms it may include from, outside headers it may not)
ARROWS = {
    "shim/include": ((), rf"(?!stddef\.h$|stdint\.h$).*"),
    "shim/torch": (("shim", "shim/include", "ops/include", "ops/kernels"), None),
    "shim": (("shim/include", "ops/kernels"), rf"{TORCH}|{CUDA}"),
    "driver": (("shim/include",), rf"{TORCH}|{CUDA}"),
    "ops/include": ((), CUDA),
    "ops/kernels": ((), TORCH),
    "ops/torch": (("ops/include", "ops/kernels"), None),
    "ops/verify": (("ops/include", "ops/torch"), CUDA),
}
INCLUDE_FOLDERS = ("", "ops", "ops/include", "shim", "shim/include", "driver")


def room_of(path):
    return max((room for room in ARROWS if path.startswith(room + "/")), key=len, default=None)


def resolve(path, name):
    """The file of ours that `#include "name"` in path opens, or None for one from outside."""
    for folder in (str((ROOT / path).parent.relative_to(ROOT)), *INCLUDE_FOLDERS):
        candidate = (ROOT / folder / name).resolve()
        if candidate.is_file() and candidate.is_relative_to(ROOT):
            return relative(candidate)
    return None


def violations(path, text):
    """Includes in the file `path` (relative, of contents `text`) that its room may not have."""
    room = room_of(path)
    rooms, forbidden = ARROWS[room]
    found = []
    for name in re.findall(r'^\s*#\s*include\s+["<]([^">]+)[">]', text, re.MULTILINE):
        target = resolve(path, name)
        if target is not None:
            if room_of(target) not in (room, *rooms):
                found.append(f"{path} includes {target}, and {room} may not")
        elif forbidden and re.match(forbidden, name):
            found.append(f"{path} includes <{name}>, and {room} may not")
    return found


def test_includes_follow_the_arrows():
    found = []
    for path in files(".c", ".h", ".cpp", ".cu", ".cuh", rooms=("ops", "shim", "driver")):
        found += violations(relative(path), path.read_text())
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "path, text",
    [
        ("driver/main.c", "#include <torch/library.h>"),
        ("driver/main.c", '#include "ops/kernels/random.h"'),
        ("driver/main.c", '#include "guard.h"\n#include "../shim/backend.h"'),
        ("shim/trainer.cpp", "#include <ATen/ATen.h>"),
        ("shim/trainer.cpp", "# include <cuda_runtime_api.h>"),
        ("shim/include/rp/rp.h", "#include <stdio.h>"),
        ("shim/torch/device.cpp", '#include "ops/torch/checks.h"'),
        ("ops/kernels/gather_windows.cu", "#include <c10/cuda/CUDAStream.h>"),
        ("ops/torch/bn_leaky_relu.cpp", '#include "shim/backend.h"'),
    ],
)
def test_an_upward_include_is_found(path, text):
    assert violations(path, text)


def test_python_knows_no_shim():
    for path in files(".py", rooms=("python",)):
        assert not re.search(r"librp\.so|ctypes|librp_torch", path.read_text()), relative(path)
