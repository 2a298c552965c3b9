"""A large universe on a small machine: time and memory of preparing and of evaluating it.

    python tests/benchmarks/universe.py [--tickers 625 1250 2500 5000] [--days 5000]
        [--layers 2] [--hidden 64] [--folder out/universe] [--out results/universe.json]

The markets are synthetic: the first N tickers of one that is made in the folder, once (5,000 x
5,000 takes 1.9 GB there). `inspect` stands for preparing: every file is read, checked and hashed,
features, split, scaler and windows are made. `evaluate` does that too, then forecasts every test
window (a fifth) and writes the whole report and its page. The model is the default one, trained on
ten of the tickers. Peak memory is the process's largest resident set.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import result_file

ROOT, PROGRAM = result_file.ROOT, result_file.PROGRAM

# By a small process, because a child's peak begins at its parent's size.
MEASURE = """
import json, os, subprocess, sys, time
before = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps({"status": os.waitstatus_to_exitcode(status),
                  "seconds": time.perf_counter() - before,
                  "cpu_seconds": usage.ru_utime + usage.ru_stime,
                  "peak_memory_bytes": usage.ru_maxrss * 1024}))
"""


def measured(*arguments):
    command = [sys.executable, "-S", "-c", MEASURE, PROGRAM, *map(str, arguments)]
    found = json.loads(subprocess.check_output(command))
    if found.pop("status") != 0:
        sys.exit(f"failed: {' '.join(map(str, arguments))}")
    return found


def done(*arguments):
    subprocess.run([PROGRAM, *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


def first_tickers(market, folder, count):
    """A folder of links to the first `count` files, and their total size."""
    folder.mkdir(exist_ok=True)
    files = sorted(market.glob("*.csv"))[:count]
    for path in files:
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    return sum(path.stat().st_size for path in files)


def prepare(folder, tickers, days, network):
    folder.mkdir(parents=True, exist_ok=True)
    market = folder / f"market{days}"
    model = folder / "model{}.{layers}x{hidden}.safetensors".format(days, **network)
    if not (market / f"SYN{tickers:04d}.csv").exists():
        done("synthesize", "--out", market, "--tickers", tickers, "--days", days)
    if not model.exists():
        first_tickers(market, folder / f"train{days}", 10)
        done("train", "--prices", folder / f"train{days}", "--checkpoint", model, "--epochs", 1,
             "--configuration", "cpu-fused", "--layers", network["layers"],
             "--hidden", network["hidden"])  # fmt: skip
    return market, model


def measure(folder, market, model, tickers, days, network):
    part = folder / f"{tickers}x{days}"
    size = first_tickers(market, part, tickers)
    for path in part.glob("*.csv"):  # from the disk into memory: the disk is not what is measured
        path.read_bytes()
    report = ("--out", folder / "report.json", "--html", folder / "report.html")
    row = {
        "tickers": tickers,
        "rows": tickers * days,
        "network": network,
        "bytes_read": size,
        "prepare": measured("inspect", "--prices", part, "--ticker", "SYN0001",
                            "--date", "2015-01-02"),
        "evaluate": measured("evaluate", "--prices", part, "--checkpoint", model, *report),
    }  # fmt: skip
    row["test_windows"] = json.loads((folder / "report.json").read_text())["data"]["test_windows"]
    print(row)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tickers", type=int, nargs="+", default=[625, 1250, 2500, 5000])
    parser.add_argument("--days", type=int, default=5000)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "out/universe")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/universe.json")
    parser.add_argument("--add", action="store_true",
                        help="keep the other rows that --out has of the same commit")  # fmt: skip
    arguments = parser.parse_args()
    network = {"layers": arguments.layers, "hidden": arguments.hidden}
    market, model = prepare(arguments.folder, max(arguments.tickers), arguments.days, network)
    rows = [
        measure(arguments.folder, market, model, tickers, arguments.days, network)
        for tickers in arguments.tickers
    ]
    if arguments.add and arguments.out.exists():
        old = json.loads(arguments.out.read_text())
        known = [(row["rows"], row["network"]) for row in rows]
        if old["commit"] == result_file.commit():
            rows += [row for row in old["rows"] if (row["rows"], row["network"]) not in known]
    rows.sort(key=lambda row: (row["network"]["hidden"], row["rows"]))
    result_file.write(arguments.out, {"rows": rows})


if __name__ == "__main__":
    main()
