"""The linters find nothing in the driver."""

import shutil
import subprocess

import pytest
from repository import BUILD, ROOT


@pytest.mark.parametrize("tool", ["clang-tidy", "cppcheck"])
def test_linter_finds_nothing(tool):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not here: apt-get install {tool}")
    if not (BUILD / "compile_commands.json").exists() or BUILD != ROOT / "build" / "default":
        pytest.skip("build/default is not what is under test")
    done = subprocess.run([ROOT / "dev", "lint", tool], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
