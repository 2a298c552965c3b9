"""Writes README's tables from the files in results/, between markers that name the table:

    <!-- benchmark-table:begin -->
    <!-- benchmark-table:end -->

`python -m return_predictor.benchmark_table [--check] [README.md] [--results DIR]`; `--check` writes
nothing and fails if a table is not what the files say. Tables: benchmark, verify, bn-leaky-relu,
training-speed, precision, fuse-networks, cpu-lstm, evaluation, universe, serving, walk-forward.
Everything outside the markers is left as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from . import results
from .results import ResultError, magnitude, provenance, read, sizes


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; a column whose head ends in ``:`` is set to the right.

    >>> print(table(["name", "n:"], [["a", "1"]]))
    | name | n |
    |---|---:|
    | a | 1 |
    """
    right = [name.endswith(":") for name in head]
    lines = [[name.rstrip(":") for name in head], *rows]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join(
        [text[0], "|" + "|".join("---:" if r else "---" for r in right) + "|", *text[1:]]
    )


def benchmark(result: dict) -> str:
    rows = []
    for row in result["configurations"]:
        name = f"`{row['name']}`"
        if row["status"] == "skipped":
            rows.append([name, "", f"skipped: {row.get('reason', '')}", "", "", "", ""])
            continue
        ratio = row.get("speedup_over_cpu")
        times = row["train_seconds"]
        rows.append(
            [
                name,
                row.get("precision", ""),
                f"{row['median_seconds']:.4g} s",
                f"{min(times):.4g} to {max(times):.4g} s",
                magnitude(row["samples_per_second"]),
                f"{ratio:,.1f}" if ratio else "",
                f"{row['test_mse']:.5e}" + (" **void**" if row["status"] == "void" else ""),
            ]
        )
    protocol = result["protocol"]
    head = [
        "configuration",
        "precision",
        "training, median:",
        "spread:",
        "samples/s:",
        "times cpu:",
        "test MSE:",
    ]
    note = (
        f"{protocol['samples_trained']:,} samples ({protocol['epochs']} epochs), "
        f"batch {protocol['batch']}, {protocol['parameters']:,} parameters, seed {protocol['seed']}."
    )
    return f"{table(head, rows)}\n\n{note}"


def verify(result: dict) -> str:
    counts: dict[tuple[str, str], list[int]] = {}
    for case in result["cases"]:
        path = case.get("path", "")
        count = counts.setdefault((case["dtype"], path), [0, 0])
        outputs = case["outputs"]
        count[0] += 1
        count[1] += sum(bad or 0 for bad in outputs.values())
    rows = [[dtype, path, str(n), str(bad)] for (dtype, path), (n, bad) in counts.items()]
    return (
        f"{table(['dtype', 'computed', 'cases:', 'differing elements:'], rows)}\n\n"
        f"{len(result['cases'])} cases, {result['differing_elements']} differing elements, "
        f"max difference {result['max_difference']:.2e}."
    )


def bn_leaky_relu(result: dict) -> str:
    candidates = list(dict.fromkeys(row["candidate"] for row in result["rows"]))
    cells: dict[tuple, dict[str, str]] = {}
    for row in result["rows"]:
        shape = f"({', '.join(map(str, sizes(row['shape'])))})"
        key = (shape, row["dtype"], row["layout"], "yes" if row["graph"] else "no")
        times = [row.get("forward_us"), row.get("forward_backward_us"), row.get("eval_forward_us")]
        text = " / ".join("-" if time is None else f"{time:.4g}" for time in times)
        cells.setdefault(key, {})[row["candidate"]] = text
    rows = [[*key, *(own.get(name, "-") for name in candidates)] for key, own in cells.items()]
    head = ["shape", "dtype", "layout", "CUDA graph", *(f"{name}:" for name in candidates)]
    return (
        f"{table(head, rows)}\n\nMicroseconds: training forward / forward + backward / eval forward. "
        f"A copy runs at {result['copy_bandwidth_tb_s']:.2f} TB/s."
    )


def training_speed(result: dict) -> str:
    batches = sorted({row["batch"] for row in result["rows"]})
    cells: dict[tuple, dict[int, str]] = {}
    for row in result["rows"]:
        text = f"{row['step_us']:.4g} us ({magnitude(row['samples_per_second'])}/s)"
        cells.setdefault((row["configuration"], row["precision"]), {})[row["batch"]] = text
    rows = [[*key, *(own.get(batch, "-") for batch in batches)] for key, own in cells.items()]
    command = result["train_command"]
    return (
        f"{table(['configuration', 'precision', *(f'batch {batch}:' for batch in batches)], rows)}\n\n"
        f"`train --configuration gpu-fused`, ten epochs at batch 512, from the start of the process "
        f"to its end: {command['seconds']:.2f} s, of which {command['read']:.3f} s to read the "
        f"prices, {command['start']:.2f} s to start, {command['training']:.3f} s of training, "
        f"{command['check_and_save']:.3f} s to check and save the checkpoint, and the rest to load "
        f"and leave the process."
    )


def evaluation(result: dict) -> str:
    seeds = result["seeds"]
    models = [(f"LSTM, mean of {seeds['count']} seeds", seeds["mean"])]
    models += [(baseline["label"], baseline["statistics"]) for baseline in result["baselines"]]
    rows = [
        [
            label,
            f"{statistics['r2_zero']:+.2%}",
            *(
                "" if statistics[name] is None else form.format(statistics[name])
                for name, form in (("direction", "{:.1%}"), ("ic", "{:+.3f}"))
            ),
        ]
        for label, statistics in models
    ]
    head = ["forecast", "R2 against zero:", "direction right:", "mean daily IC:"]
    verdict = result["verdict"]
    return f"**{verdict['sentence']}** {verdict['comparison']}\n\n{table(head, rows)}"


def universe(result: dict) -> str:
    rows = [
        [
            f"{row['rows']:,}",
            f"{row['network']['layers']} x {row['network']['hidden']}",
            *(
                f"{row[part]['seconds']:.1f} s, {row[part]['peak_memory_bytes'] / 2**20:,.0f} MiB"
                for part in ("prepare", "evaluate")
            ),
        ]
        for row in result["rows"]
    ]
    return table(["rows of prices:", "LSTM layers x units:", "prepare:", "evaluate:"], rows)


def serving(result: dict) -> str:
    rows = [
        [
            row["request"],
            row["server"],
            f"{row['requests_per_second']:,.0f}",
            f"{row['p50_ms']:.3g}",
            f"{row['p99_ms']:.3g}",
            str(row["errors"]),
        ]
        for row in result["rows"]
    ]
    return table(["request", "server", "requests/s:", "p50, ms:", "p99, ms:", "errors:"], rows)


def walk_forward(result: dict) -> str:
    return table(
        ["models:", "samples a model:", "training:", "models/s:"],
        [
            [
                f"{result['models']:,}",
                f"{result['samples_per_model']:,}",
                f"{result['train_seconds']:.3g} s",
                f"{result['models_per_second']:.3g}",
            ]
        ],
    )


def cpu_lstm(result: dict) -> str:
    """Training on the most threads that were measured."""
    training = [row for row in result["rows"] if row["what"] == "training"]
    threads = max(row["threads"] for row in training)
    cells: dict[str, list[str]] = {}
    batches = []
    for row in training:
        if row["threads"] != threads:
            continue
        if row["batch"] not in batches:
            batches.append(row["batch"])
        times = row["speedup_over_PyTorch"]["median"]
        cells.setdefault(row["candidate"], []).append(
            f"{magnitude(row['samples_per_second'])} ({times:.2f} x)"
        )
    head = [f"{threads} threads", *(f"batch {batch}:" for batch in batches)]
    return table(head, [[candidate, *cells[candidate]] for candidate in cells])


def precision(result: dict) -> str:
    """Gradients' errors; the columns are the cases in the order of the file."""
    cells: dict[tuple, dict[str, str]] = {}
    for row in result["gradients"]:
        case = f"batch {row['batch']}, slope {row['slope']:g}:"
        times, error = row["times_cudnn_tf32"], row["times_standard_error"]
        cells.setdefault((row["implementation"], row["precision"]), {})[case] = (
            f"{row['error']:.2e} ({times:.3g} ± {error:.1g})" if error else f"{row['error']:.2e}"
        )
    cases = list(dict.fromkeys(case for own in cells.values() for case in own))
    rows = [[*key, *(own.get(case, "-") for case in cases)] for key, own in cells.items()]
    return table(["gradient's error", "precision", *cases], rows)


def fuse_networks(result: dict) -> str:
    rows = [
        [
            row["network"],
            str(row["pairs"]),
            "equal" if row["bit_equal"] else "**differ**",
            *(
                f"{row[f'plain_{what}']:{form}} to {row[f'fused_{what}']:{form}} {unit}"
                for what, form, unit in (
                    ("step_ms", ".1f", "ms"),
                    ("eval_ms", ".2f", "ms"),
                    ("saved_mb", ",.0f", "MB"),
                )
            ),
        ]
        for row in result["rows"]
    ]
    head = ["network", "pairs:", "bits", "training step:", "inference:", "kept for backward:"]
    return table(head, rows)


TABLES = {
    "benchmark": ("benchmark.json", benchmark),
    "verify": ("verify.json", verify),
    "bn-leaky-relu": ("bn_leaky_relu.json", bn_leaky_relu),
    "evaluation": ("evaluation.json", evaluation),
    "universe": ("universe.json", universe),
    "training-speed": ("training_speed.json", training_speed),
    "precision": ("precision.json", precision),
    "fuse-networks": ("fuse_networks.json", fuse_networks),
    "serving": ("serving.json", serving),
    "cpu-lstm": ("cpu_lstm.json", cpu_lstm),
    "cpu-lstm-intel": ("cpu_lstm_intel.json", cpu_lstm),
    "walk-forward": ("walk_forward.json", walk_forward),
}
MARKED = re.compile(r"(<!-- ([a-z-]+)-table:begin -->\n)(.*?)(<!-- \2-table:end -->)", re.DOTALL)


def fill(text: str, folder: Path) -> str:
    """Return ``text`` with every marked table written anew from the files in ``folder``.

    Raises:
        ResultError: a table of no known name, a marker without its partner, an unusable file.
    """
    markers = len(re.findall(r"<!-- [a-z-]+-table:(?:begin|end) -->", text))
    if markers != 2 * len(MARKED.findall(text)):
        raise ResultError("a table's begin or end marker has no partner")

    def content(match: re.Match) -> str:
        name = match[2]
        if name not in TABLES:
            raise ResultError(f"no table {name}; there are {', '.join(TABLES)}")
        source, render = TABLES[name]
        result = read(folder, source)
        if result is None:
            return f"{match[1]}Not measured yet: results/{source} is not there.\n{match[4]}"
        try:
            body = f"{render(result)}\n\n_{provenance(source, result)}_"
        except (KeyError, TypeError, ValueError) as error:
            raise ResultError(f"{folder / source}: {type(error).__name__}: {error}") from error
        return f"{match[1]}{body}\n{match[4]}"

    return MARKED.sub(content, text)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        prog="return_predictor.benchmark_table", description="Writes README's tables from results/."
    )
    parser.add_argument("readme", nargs="?", type=Path, default=results.REPOSITORY / "README.md")
    parser.add_argument("--results", type=Path, default=results.DEFAULT_FOLDER)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    options = parser.parse_args(arguments)
    try:
        before = options.readme.read_text()
        after = fill(before, options.results)
        if after == before:
            return 0
        if options.check:
            print(
                f"{options.readme}: its tables are not what {options.results} says; "
                "run ./dev benchmark-table",
                file=sys.stderr,
            )
            return 1
        temporary = options.readme.with_name(f".{options.readme.name}.{os.getpid()}")
        temporary.write_text(after)
        os.replace(temporary, options.readme)
    except (ResultError, OSError) as error:
        print(f"benchmark-table: {error}", file=sys.stderr)
        return 1
    print(options.readme)
    return 0


if __name__ == "__main__":
    sys.exit(main())
