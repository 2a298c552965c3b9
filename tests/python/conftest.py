"""Makes the repository's package importable, here and in the programs that tests start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python"
sys.path.insert(0, str(Path(__file__).parent))  # bits.py
# The wheel's own tests run against what is installed.
if not os.environ.get("RP_INSTALLED"):
    sys.path.insert(0, str(PACKAGE))
    os.environ["PYTHONPATH"] = f"{PACKAGE}:{os.environ.get('PYTHONPATH', '')}"


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: builds or installs something")


@pytest.fixture
def run():
    """Run this Python with arguments; return the finished process with its output as text."""

    def start(*arguments, python=sys.executable, **options):
        command = [str(python), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)

    return start


@pytest.fixture
def made_up_results():
    """A folder with a small result file of every kind, its numbers made up."""
    return Path(__file__).parent / "made_up_results"
