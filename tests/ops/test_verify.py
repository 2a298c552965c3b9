"""return-predictor verify: one line a case, JSON, and exit 1 when a bit differs."""

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build/default")) / "bin/return-predictor"


def verify(*arguments):
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built")
    return subprocess.run(
        [PROGRAM, "verify", "--device", "cpu", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_verify_on_the_cpu_finds_no_difference_and_writes_every_case(tmp_path):
    path = tmp_path / "verify.json"
    result = verify("--json", path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "max difference 0.00e+00"
    written = json.loads(path.read_text())
    assert len(written["cases"]) == len(lines) - 2 >= 500
    assert written["differing_elements"] == 0 and written["max_difference"] == 0
    assert written["gpu"] is None
    assert {c["path"] for c in written["cases"]} == {"composed"}


def test_verify_perturbed_finds_the_difference_and_fails():
    result = verify("--perturb", "--quiet")
    assert result.returncode == 1
    assert "DIFF" in result.stdout
    assert not result.stdout.splitlines()[-1].endswith(" 0.00e+00")
