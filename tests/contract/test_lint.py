"""clang-format, clang-tidy and cppcheck find nothing, with the versions that the rules are for."""

import re
import shutil
import subprocess

import pytest
from repository import ROOT

KNOWN = {  # Debian 12's
    "clang-format": r"version 14\.",
    "clang-tidy": r"version 14\.",
    "cppcheck": r"Cppcheck 2\.10",
}


@pytest.mark.parametrize("tool", KNOWN)
def test_tool_finds_nothing(tool):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not here: apt-get install {tool}")
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    if not re.search(KNOWN[tool], version):
        pytest.skip(f"another {tool} has other rules: {' '.join(version.split()[:6])}")
    done = subprocess.run(
        [ROOT / "dev", "lint", tool], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
