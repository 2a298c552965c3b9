"""Adds up JUnit reports: failures, skips with their reasons, and one closing line.

The closing line, `N passed, N failed, N skipped`, is what a CI reads; a report that is missing or
unreadable counts as a failure, so that a runner that died is not taken for one that passed.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]


def outcome(case):
    """("passed" | "failed" | "skipped", reason) of one testcase element."""
    for kind in ("failure", "error"):
        element = case.find(kind)
        if element is not None:
            return "failed", element.get("message") or kind
    skipped = case.find("skipped")
    if skipped is not None or case.get("status") in ("notrun", "disabled"):
        return "skipped", skip_reason(case, skipped)
    return "passed", ""


def skip_reason(case, skipped):
    """Without the place on this machine of the file that skips."""
    message = skipped.get("message") or "" if skipped is not None else ""
    for pattern, text in (
        (r": Skipped\n(.+)", case.findtext("system-out")),  # CTest's report of what GoogleTest prints
        (r"^\S+:\d+\n(.+)", message),  # GoogleTest's own: file:line, the reason beneath
        (r"'Skipped: (.+)'\)$", case.findtext("skipped")),  # pytest's, of a whole file
    ):
        if found := re.search(pattern, text or ""):
            return found.group(1)
    return message or "no reason was given"


def read(path):
    """[(suite, test, outcome, reason, seconds)] of one report."""
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        return [(path.stem, "report", "failed", f"{path}: {error}", 0.0)]
    results = []
    for case in cases:
        name = case.get("name", "?")
        suite = case.get("classname", "")
        label = f"{suite}::{name}" if suite and suite != name else name
        results.append((path.stem, label, *outcome(case), float(case.get("time") or 0)))
    return results


def print_summary(results):
    counts = collections.Counter(result[2] for result in results)
    skips = collections.Counter((r[0], r[3].strip().splitlines()[0]) for r in results if r[2] == "skipped")
    if skips:
        print("\nskipped:")
    for (suite, reason), count in sorted(skips.items()):
        print(f"  {count:5d}  {suite}: {reason}")
    failures = [result for result in results if result[2] == "failed"]
    if failures:
        print("\nfailed:")
    for suite, name, _, reason, _ in failures:
        print(f"  {suite}: {name}: {reason.strip().splitlines()[0] if reason.strip() else ''}")
    print(f"\n{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts


def printed_by(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine():
    import torch

    gpu = torch.cuda.is_available()
    return {
        "cpu": re.search(r"model name\s*: (.+)", pathlib.Path("/proc/cpuinfo").read_text()).group(1),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "driver": printed_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()),
        "torch": torch.__version__,
        "compiler": printed_by("c++", "--version").splitlines()[0],
    }


def write_json(path, results, counts):
    record = {
        "schema": 1,
        "command": "./dev gpu-test",
        "commit": os.environ.get("RP_COMMIT") or printed_by("git", "rev-parse", "HEAD") or "0" * 40,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "passed": counts["passed"],
        "failed": counts["failed"],
        "skipped": counts["skipped"],
        "tests": [
            {"suite": suite, "test": name, "outcome": outcome, "reason": reason, "seconds": seconds}
            for suite, name, outcome, reason, seconds in results
        ],
    }
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="+", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, help="record what ran, where, and what it found")
    arguments = parser.parse_args()
    results = [result for path in arguments.reports for result in read(path)]
    counts = print_summary(results)
    if arguments.json:
        write_json(arguments.json, results, counts)
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
