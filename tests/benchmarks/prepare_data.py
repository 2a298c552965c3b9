"""Price files to ready windows: this program against the same work in polars.

    python tests/benchmarks/prepare_data.py [--prices DIR] [--repeats 15] [--out results/prepare_data.json]

Ours is a whole process, `return-predictor inspect`: start, read, check and hash every file, compute
features, split, fit the scaler, scale, list the windows, print one of them. polars gets the best
case: it is imported and its thread pool runs already, it trusts the files, and it computes the same
features (RSI by its exponential average), split, scaler and window ends. Runs alternate, so that
what else the machine does weighs on both. A larger market: universe.py.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

import polars

import result_file

ROOT, PROGRAM = result_file.ROOT, result_file.PROGRAM
REAL = pathlib.Path(os.environ.get("RP_MARKET", ROOT.parent / "shared/market/sp500-50"))
FEATURES = ["ret5", "vol20", "rsi14", "volz20"]


def by_program(prices, ticker, date):
    """Wall and processor seconds, and the counts that it prints."""
    before = time.perf_counter()
    process = subprocess.Popen(
        [PROGRAM, "inspect", "--prices", prices, "--ticker", ticker, "--date", date],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    counts = process.stderr.read().strip()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"return-predictor inspect failed: {counts}")
    cpu = usage.ru_utime + usage.ru_stime
    return seconds, cpu, counts


def by_polars(prices):
    """The same features, split, scaler and windows; returns the number of windows.

    File by file and eager: twice as fast as lazy frames collected together.
    """
    pl = polars
    p, v = pl.col("adj_close"), pl.col("volume").cast(pl.Float64)
    move = p.diff()
    returns = p / p.shift(1) - 1
    wilder = {"alpha": 1 / 14, "adjust": False, "min_samples": 14}
    gain, loss = move.clip(0, None), (-move).clip(0, None)
    g, l = gain.ewm_mean(**wilder), loss.ewm_mean(**wilder)
    frames = [
        pl.read_csv(path, columns=["date", "adj_close", "volume"])
        .select(
            "date",
            pl.lit(path.stem).alias("ticker"),
            (p / p.shift(5) - 1).alias("ret5"),
            returns.rolling_std(20).alias("vol20"),
            (100 * g / (g + l)).alias("rsi14"),
            ((v - v.rolling_mean(20)) / v.rolling_std(20)).alias("volz20"),
            (p.shift(-1) / p - 1).alias("label"),
            pl.int_range(pl.len()).alias("day"),
        )
        .slice(20)
        for path in sorted(prices.glob("*.csv"))
    ]
    rows = pl.concat(frames).with_row_index("row")
    ends = rows.filter((pl.col("day") >= 39) & pl.col("label").is_not_null())
    dates = ends["date"].unique().sort()
    train = ends.filter(pl.col("date") < dates[int(0.8 * len(dates))])
    last = train.group_by("ticker").agg(pl.col("day").max().alias("last_day"))
    fitted = rows.join(last, on="ticker").filter(pl.col("day") <= pl.col("last_day"))
    scaled = rows.select(
        [
            ((pl.col(f) - fitted[f].mean()) / fitted[f].std()).clip(-5, 5).cast(pl.Float32)
            for f in FEATURES
        ]
    ).to_numpy()
    window_ends = ends["row"].to_numpy()
    assert len(scaled) == len(rows)
    return len(window_ends)


def compare(prices, repeats):
    frame = polars.read_csv(sorted(prices.glob("*.csv"))[0])
    ticker, date = sorted(prices.glob("*.csv"))[0].stem, frame["date"][-2]
    ours, cpu, theirs = [], [], []
    by_polars(prices)
    by_program(prices, ticker, date)
    for _ in range(repeats):
        seconds, cpu_seconds, counts = by_program(prices, ticker, date)
        ours.append(seconds)
        cpu.append(cpu_seconds)
        before = time.perf_counter()
        windows = by_polars(prices)
        theirs.append(time.perf_counter() - before)
    assert f"{windows:,} windows" in counts, (windows, counts)
    ratio = statistics.median(t / o for t, o in zip(theirs, ours))
    return {
        "what": "files to ready windows",
        "tickers": len(list(prices.glob("*.csv"))),
        "rows": frame.height * len(list(prices.glob("*.csv"))),
        "windows": windows,
        "seconds": ours,
        "median_seconds": statistics.median(ours),
        "median_cpu_seconds": statistics.median(cpu),
        "polars_seconds": theirs,
        "polars_median_seconds": statistics.median(theirs),
        "median_of_paired_ratios": ratio,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prices", type=pathlib.Path, default=REAL)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/prepare_data.json")
    arguments = parser.parse_args()
    if not arguments.prices.is_dir():
        sys.exit(f"no prices at {arguments.prices}: name a folder by --prices or RP_MARKET")
    row = compare(arguments.prices, arguments.repeats)
    result_file.write(arguments.out, {"rows": [row]}, polars=polars.__version__)
    print({k: v for k, v in row.items() if k not in ("seconds", "polars_seconds")})


if __name__ == "__main__":
    main()
