"""Every published figure says where it came from, and README shows what the files say."""

import datetime
import json
import re
import subprocess
import sys

import pytest
from repository import ROOT, relative

HEAD = ("schema", "command", "commit", "date", "machine")
RESULTS = sorted((ROOT / "results").glob("*.json"))


def complaints(record):
    found = [f"{key} is missing" for key in HEAD if key not in record]
    if not re.fullmatch(r"[0-9a-f]{40}", record.get("commit", "")) or set(record["commit"]) == {"0"}:
        found.append("commit is not that of a measured source")
    try:
        datetime.datetime.fromisoformat(record.get("date", "").replace("Z", "+00:00"))
    except ValueError:
        found.append("date is not ISO 8601")
    return found


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_result_says_where_it_came_from(path):
    assert complaints(json.loads(path.read_text())) == []


def test_result_without_its_origin_is_found():
    assert complaints({"schema": 1, "command": "x", "commit": "0" * 40, "date": "yesterday"})


def test_readme_tables_are_those_of_the_results():
    module = ROOT / "python" / "return_predictor" / "benchmark_table.py"
    if not module.exists():
        pytest.skip("the table writer is not in this checkout")
    done = subprocess.run(
        [sys.executable, "-m", "return_predictor.benchmark_table", "--check"],
        cwd=ROOT / "python", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_readme_figures_exist():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        if name.startswith("results/") and not RESULTS:
            pytest.skip("results/ is empty: nothing is published yet")
        assert (ROOT / name).is_file(), f"{relative(ROOT / 'README.md')} shows {name}"
