"""What is downloaded is named by version and hash."""

import re

import pytest
from repository import ROOT

LISTS = sorted((ROOT / "python" / "requirements").glob("*.txt"))


def unpinned(text):
    """Requirements of a pip list that lack an exact version or a SHA-256 hash."""
    requirements = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*$", "", text, flags=re.M)).splitlines()
    return [
        line for line in map(str.strip, requirements)
        if line and not re.match(r"[\w.\[\],-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)
    ]  # fmt: skip


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_python_parts_are_pinned_with_hashes(path):
    assert unpinned(path.read_text()) == []


@pytest.mark.parametrize("line", ["numpy", "numpy==2.0", "numpy>=2 --hash=sha256:" + "0" * 64])
def test_a_part_that_is_not_pinned_is_found(line):
    assert unpinned(line) == [line]


def test_setting_up_asks_pip_for_the_hashes():
    lines = [line for line in (ROOT / "dev").read_text().splitlines() if "pip install --python" in line
             or re.search(r"-m pip install\b.* -r ", line)]  # fmt: skip
    assert lines and all("--require-hashes" in line for line in lines)
