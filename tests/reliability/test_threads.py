"""Some seconds of threads.py: the service under load and reload has no race."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RP_TSAN_BUILD", ROOT / "build/tsan"))


def test_service_under_load_and_reload_has_no_race():
    if not (BUILD / "bin/return-predictor").exists():
        pytest.skip(f"{BUILD} is not built (./dev build tsan)")
    done = subprocess.run(
        [sys.executable, ROOT / "tests/reliability/threads.py", "--seconds", "4", "--no-row"],
        capture_output=True, text=True, timeout=300, env=os.environ | {"RP_BUILD": str(BUILD)},
    )  # fmt: skip
    if "unexpected memory mapping" in done.stdout + done.stderr:
        pytest.skip("ThreadSanitizer can't run with this kernel's address layout")
    assert done.returncode == 0, done.stdout + done.stderr
