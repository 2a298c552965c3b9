"""The report's verdicts on markets whose truth is known.

    python tests/benchmarks/verdicts.py [--seeds 20] [--signals 0 0.01 0.03] [--epochs 2]
        [--tickers 50] [--days 2516] [--folder out/verdicts] [--out results/verdicts.json]

For each signal S and each seed a synthetic market is made, the default model trained and its report
written. S is the R2 of the best forecast possible: without a signal the verdict should be "no
skill", with one "skill", and the model's R2 against the train mean can come near S and, but for
chance, no higher. The file is written after every market, and markets that it holds, of the same commit
and sizes, are not made again. The small form of this is in tests/driver/test_leaks.py.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess

import result_file

ROOT, PROGRAM = result_file.ROOT, result_file.PROGRAM


def done(*arguments):
    command = [PROGRAM, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def verdict(signal, seed, arguments):
    folder = arguments.folder / f"{signal}.{seed}"
    market, model, report = folder / "market", folder / "model.safetensors", folder / "report.json"
    folder.mkdir(parents=True, exist_ok=True)
    done("synthesize", "--out", market, "--tickers", arguments.tickers, "--days", arguments.days,
         "--seed", seed, "--signal", signal)  # fmt: skip
    done("train", "--prices", market, "--checkpoint", model, "--epochs", arguments.epochs,
         "--configuration", "cpu-fused", "--seed", seed, "--quiet")  # fmt: skip
    done("evaluate", "--prices", market, "--checkpoint", model, "--out", report)
    found = json.loads(report.read_text())
    shutil.rmtree(folder)
    row = {"signal": signal, "seed": seed, "verdict": found["verdict"]["kind"]}
    row["alarms"] = [alarm["name"] for alarm in found["verdict"]["alarms"] if alarm["raised"]]
    row["r2_train_mean"] = found["models"][0]["statistics"]["r2_train_mean"]
    row["r2_train_mean_95"] = found["models"][0]["interval_95"]["r2_train_mean"]
    ridge = next(line for line in found["baselines"] if line["name"] == "ridge_last_row")
    row["ridge_r2_train_mean"] = ridge["statistics"]["r2_train_mean"]
    print(row, flush=True)
    return row


def summary(signal, rows):
    return {
        "signal": signal,
        "markets": len(rows),
        "verdicts": {
            kind: sum(row["verdict"] == kind for row in rows)
            for kind in ("no skill", "ranking skill", "skill")
        },
        "mean_r2_train_mean": statistics.mean(row["r2_train_mean"] for row in rows),
        "mean_ridge_r2_train_mean": statistics.mean(row["ridge_r2_train_mean"] for row in rows),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--signals", type=float, nargs="+", default=[0, 0.01, 0.03])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--tickers", type=int, default=50)
    parser.add_argument("--days", type=int, default=2516)
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "out/verdicts")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/verdicts.json")
    arguments = parser.parse_args()
    protocol = {name: getattr(arguments, name) for name in ("epochs", "tickers", "days")}
    old = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    same = (old.get("commit"), old.get("protocol")) == (result_file.commit(), protocol)
    rows = {(row["signal"], row["seed"]): row for row in (old["rows"] if same else [])}
    for signal in arguments.signals:
        for seed in range(1, arguments.seeds + 1):
            if (signal, seed) not in rows:
                rows[signal, seed] = verdict(signal, seed, arguments)
                write(arguments.out, protocol, [rows[key] for key in sorted(rows)])


def write(path, protocol, rows):
    signals = sorted({row["signal"] for row in rows})
    content = {
        "protocol": protocol,
        "signals": [summary(s, [row for row in rows if row["signal"] == s]) for s in signals],
        "rows": rows,
    }
    result_file.write(path, content)


if __name__ == "__main__":
    main()
