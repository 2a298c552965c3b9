#!/usr/bin/env python3
"""Merges the rows of campaigns into results/reliability.json.

A campaign (fuzzing, kill -9, mutations, ...) runs for minutes or hours and writes one row a target
into out/reliability/ by write_row(), or a file of rows, a line each, that is named here:

    tests/reliability/record.py [FILE...]

This program replaces the rows of results/reliability.json that have the same "what" and "target"
and keeps the others.
"""

import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = ROOT / "out" / "reliability"
RESULT = ROOT / "results" / "reliability.json"


def printed_by(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit():
    return os.environ.get("RP_COMMIT") or printed_by("git", "rev-parse", "HEAD") or "0" * 40


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def machine():
    model = re.search(r"model name\s*: (.+)", pathlib.Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "gpu": printed_by("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or None,
        "compiler": printed_by("c++", "--version").splitlines()[0],
    }


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def write_row(what, target, executions, seconds, found, **more):
    """`found`: how many defects; `executions`: inputs, kills, requests, or mutations tried."""
    row = {
        "what": what,
        "target": target,
        "executions": executions,
        "seconds": round(seconds, 1),
        "found": found,
        "command": " ".join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit(),
        "date": now(),
        **more,
    }
    name = re.sub(r"[^A-Za-z0-9]+", "_", f"{what}_{target}")
    write_json(ROWS / f"{name}.json", row)
    return row


def main():
    rows = {}
    if RESULT.exists():
        rows = {(r["what"], r["target"]): r for r in json.loads(RESULT.read_text())["campaigns"]}
    new = [json.loads(path.read_text()) for path in sorted(ROWS.glob("*.json"))]
    for path in map(pathlib.Path, sys.argv[1:]):
        new += [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    rows |= {(row["what"], row["target"]): row for row in new}
    write_json(
        RESULT,
        {
            "schema": 1,
            "command": "tests/reliability/record.py",
            "commit": commit(),
            "date": now(),
            "machine": machine(),
            "campaigns": [rows[key] for key in sorted(rows)],
        },
    )
    print(f"{RESULT.relative_to(ROOT)}: {len(rows)} campaigns")


if __name__ == "__main__":
    main()
