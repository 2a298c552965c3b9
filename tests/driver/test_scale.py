"""Memory and time of a report grow no faster than its market. The whole size, 5,000 tickers x 5,000
days within 1 GB, is tests/benchmarks/universe.py's."""

import json
import subprocess
import sys

import pytest

from program import PROGRAM, synthesize, train, trainer

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built")

# 1 GB / 25 million rows. Held are 8 bytes of price, 4 of volume, 4 x 4 of features, 4 of target and
# 4 of window; then, in the room that the last two and the volume leave, the test period's rows.
BYTES_A_ROW = 40
DAYS, FEW, MANY = 1500, 50, 400

# By a small process, because a child's peak begins at its parent's size.
MEASURE = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024,
                  usage.ru_utime + usage.ru_stime]))
"""


def measured(*arguments):
    command = [sys.executable, "-S", "-c", MEASURE, PROGRAM, *map(str, arguments)]
    status, peak, seconds = json.loads(subprocess.check_output(command))
    assert status == 0
    return peak, seconds


def test_memory_and_time_of_a_report_grow_with_its_market(tmp_path):
    if trainer()[0] is None:
        pytest.skip(f"nothing here can train: {trainer()[1]}")
    market = synthesize(tmp_path / "market", tickers=MANY, days=DAYS)
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(market.glob("*.csv"))[:FEW]:
        (few / path.name).symlink_to(path)
    model = train(few, tmp_path / "model.safetensors", epochs=1, hidden=32, layers=1)
    peak, seconds = {}, {}
    for folder in (few, market):
        report = ("--out", tmp_path / "report.json", "--html", tmp_path / "report.html")
        arguments = ("--prices", folder, "--checkpoint", model, "--threads", 1, *report)
        peak[folder], seconds[folder] = measured("evaluate", *arguments)
    assert (peak[market] - peak[few]) / ((MANY - FEW) * DAYS) < BYTES_A_ROW
    # Processor time, half as much again for what else the machine does.
    assert seconds[market] / seconds[few] < 1.5 * MANY / FEW
