"""The reader of test reports, whose closing line decides whether a run passed."""

import subprocess
import sys

import pytest
from repository import ROOT

CASES = {
    "passed": ("<testcase name='a'/>", ""),
    "failed": ("<testcase name='a'><failure message='1 is not 2'/></testcase>", "1 is not 2"),
    "skipped by CTest": (
        "<testcase name='a' status='notrun'><system-out>/x/a.cpp:3: Skipped\nno GPU\n</system-out>"
        "</testcase>", "no GPU"),
    "skipped by GoogleTest": (
        "<testcase name='a'><skipped message='/x/a.cpp:3&#10;no GPU'/></testcase>", "no GPU"),
    "skipped by pytest": (
        "<testcase name='a'><skipped message='no GPU'>/x/a.py:3: no GPU</skipped></testcase>", "no GPU"),
    "skipped by pytest, the whole file": (
        "<testcase name='a'><skipped message='collection skipped'>('/x/a.py', 3, 'Skipped: no GPU')"
        "</skipped></testcase>", "no GPU"),
    "skipped without a word": ("<testcase name='a'><skipped/></testcase>", "no reason was given"),
}  # fmt: skip


def summary(report):
    done = subprocess.run(
        [sys.executable, ROOT / "tests/summary.py", report], capture_output=True, text=True
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("kind", CASES)
def test_outcome_and_reason(kind, tmp_path):
    case, reason = CASES[kind]
    report = tmp_path / "room.xml"
    report.write_text(f"<testsuites><testsuite>{case}<testcase name='b'/></testsuite></testsuites>")
    status, lines = summary(report)
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    counts[kind.split()[0]] += 1
    counts["passed"] += 1
    assert lines[-1] == ", ".join(f"{count} {name}" for name, count in counts.items())
    assert status == counts["failed"]
    if reason:
        assert any(line.endswith(f": {reason}") for line in lines)
        assert not any("/x/" in line for line in lines)


@pytest.mark.parametrize("content", [None, "", "<testsuites><testcase name='a'>"])
def test_report_that_is_missing_or_cut_short_is_a_failure(content, tmp_path):
    report = tmp_path / "room.xml"
    if content is not None:
        report.write_text(content)
    status, lines = summary(report)
    assert (status, lines[-1]) == (1, "0 passed, 1 failed, 0 skipped")


def test_nothing_that_passed_is_a_failure(tmp_path):
    report = tmp_path / "room.xml"
    report.write_text("<testsuites><testcase name='a'><skipped message='no GPU'/></testcase></testsuites>")
    assert summary(report)[0] == 1
