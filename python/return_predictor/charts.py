"""Draws the files in results/: `python -m return_predictor.charts [--results DIR] [--out DIR]`.

| chart | drawn from |
|---|---|
| charts.png | benchmark.json: the losses and the speed of each configuration |
| predicted_vs_actual.png | forecasts.csv and evaluation.json, of `return-predictor evaluate` |
| bn_leaky_relu_bandwidth.png | bn_leaky_relu.json |
| training_speed.png | training_speed.json |

A chart whose source is absent is left out, and said so. Needs matplotlib, not torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.ticker import FuncFormatter, NullFormatter

from . import results
from .results import ResultError, magnitude, provenance, read, sizes

# Okabe and Ito's colours, told apart with any colour vision.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000 #E69F00 #56B4E9 #009E73 #0072B2 #D55E00 #CC79A7".split()
)
GREY = "#767676"
CONFIGURATION_COLOURS = {
    "cpu": GREY,
    "cpu-fused": BLACK,
    "gpu": ORANGE,
    "gpu-kernel": SKY,
    "gpu-graph": BLUE,
    "gpu-fused": GREEN,
}
CANDIDATE_COLOURS = {"rp": GREEN, "eager": GREY, "inductor": ORANGE, "inplace_abn": PURPLE}
SPARE_COLOURS = [VERMILION, PURPLE, BLUE, SKY, ORANGE, BLACK]
LAYOUTS = {  # name of a layout in the file: marker, name in the legend
    "contiguous": ("o", "[N, C] contiguous"),
    "nchw": ("s", "[N, C, H, W] contiguous"),
    "channels_last": ("^", "[N, C, H, W] channels_last"),
}
ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.08,
}


def colour(name: str, known: dict[str, str], seen: list[str]) -> str:
    """Return the colour of `name`: the known one, or the next spare one in order of `seen`."""
    if name in known:
        return known[name]
    others = list(dict.fromkeys([*(other for other in seen if other not in known), name]))
    return SPARE_COLOURS[others.index(name) % len(SPARE_COLOURS)]


def configuration_colour(name: str, names: list[str]) -> tuple[float, ...]:
    """Return the configuration's colour, paler for another precision, as gpu-fused:bf16."""
    base, _, precision = name.partition(":")
    variants = [other for other in names if other.startswith(f"{base}:")]
    full = np.array(to_rgb(colour(base, CONFIGURATION_COLOURS, names)))
    if not precision:
        return tuple(full)
    share = 0.65 * (variants.index(name) + 1) / len(variants)
    return tuple(full + (1 - full) * share)


def tick_label(value: float, _=None) -> str:
    """Return the label of a tick at a power of ten.

    >>> tick_label(100), tick_label(10_000), tick_label(1_000_000)
    ('100', '10 k', '1 M')
    """
    return magnitude(value).replace(".00", "").replace(".0", "")


def subtitle(axes, text: str) -> None:
    axes.set_title(axes.get_title(loc="left"), pad=20)
    axes.annotate(text, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=8.5, color=GREY)


def sign(figure, text: str) -> None:
    """Write where the figures come from in the lower right corner."""
    figure.supxlabel(text, x=0.995, ha="right", fontsize=7.5, color=GREY)


def save(figure, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.png")
    try:
        figure.savefig(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        plt.close(figure)


def draw_benchmark(folder: Path):
    result = read(folder, "benchmark.json", "configurations", "protocol")
    if result is None:
        return None
    rows = result["configurations"]
    measured = [row for row in rows if row["status"] != "skipped"]
    if not measured:
        raise ResultError(f"{folder / 'benchmark.json'}: no configuration ran")
    figure = plt.figure(figsize=(13, 6))
    grid = figure.add_gridspec(2, 2, height_ratios=[3, 1.3], width_ratios=[1, 1.15])
    losses = figure.add_subplot(grid[0, 0])
    differences = figure.add_subplot(grid[1, 0], sharex=losses)
    draw_losses(losses, differences, measured)
    draw_throughput(figure.add_subplot(grid[:, 1]), rows, result["protocol"])
    sign(figure, provenance("benchmark.json", result))
    return figure


def draw_losses(losses, differences, rows) -> None:
    names = [row["name"] for row in rows]
    reference = np.array(rows[0]["epoch_loss"], dtype=float)
    epochs = np.arange(1, len(reference) + 1)
    for place, row in enumerate(rows):
        # Curves that agree lie on each other: the ones below are drawn wider.
        width = 1.5 + 1.2 * (len(rows) - 1 - place)
        shade = configuration_colour(row["name"], names)
        loss = np.array(row["epoch_loss"], dtype=float)
        losses.plot(
            epochs, loss * 1e4, color=shade, lw=width, label=row["name"], marker="o", ms=width
        )
        if place > 0:
            differences.plot(
                epochs, (loss / reference - 1) * 100, color=shade, lw=1.5, marker="o", ms=3
            )
    losses.set_title("Training loss")
    losses.set_ylabel("mean squared error, %²")
    low, high = losses.get_ylim()
    if high - low < 0.01 * high:  # nearly equal, as after one epoch, should look so
        losses.set_ylim(low - 0.005 * high, high + 0.005 * high)
    losses.legend(ncols=2 if len(rows) > 4 else 1, fontsize=9)
    losses.tick_params(labelbottom=False)
    differences.axhline(0, color=GREY, lw=1)
    differences.set_ylabel(f"difference\nfrom {names[0]}, %")
    differences.set_xlabel("epoch")
    differences.set_xticks(epochs)
    differences.margins(y=0.2)


def draw_throughput(axes, rows, protocol) -> None:
    names = [row["name"] for row in rows]
    speeds = [row.get("samples_per_second") or np.nan for row in rows]
    least, most = np.nanmin(speeds), np.nanmax(speeds)
    left = 10 ** np.floor(np.log10(least) - 0.3)
    axes.set_xscale("log")
    axes.set_xlim(left, most * 12)
    for place, (row, speed) in enumerate(zip(rows, speeds)):
        shade = configuration_colour(row["name"], names)
        if row["status"] == "skipped":
            axes.text(
                left * 1.1,
                place,
                f"skipped: {row.get('reason', '')}",
                va="center",
                color=GREY,
                fontsize=8,
            )
            continue
        axes.barh(place, speed - left, left=left, color=shade, height=0.62)
        samples, times = speed * row["median_seconds"], row["train_seconds"]
        slowest, fastest = samples / max(times), samples / min(times)
        if len(times) > 1:
            axes.plot([slowest, fastest], [place, place], color="white", lw=4)
            axes.plot([slowest, fastest], [place, place], color="black", lw=1.5)
        label = f"{magnitude(speed)}/s"
        if row.get("speedup_over_cpu") and row["name"] != "cpu":
            ratio = row["speedup_over_cpu"]
            label += f"  ({ratio:,.0f} × cpu)" if ratio >= 10 else f"  ({ratio:.1f} × cpu)"
        if row["status"] == "void":
            label += "  void: its losses differ"
        axes.text(fastest * 1.12, place, label, va="center")
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(FuncFormatter(tick_label))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("samples per second (log scale)")
    repeats = max(len(row.get("train_seconds", [])) for row in rows)
    axes.set_title(f"Training speed, batch {protocol['batch']}")
    note = f"{protocol['samples_trained']:,} samples in {protocol['epochs']} epoch"
    note += "s" if protocol["epochs"] != 1 else ""
    note += f"; median of {repeats}, line: fastest to slowest" if repeats > 1 else "; one timing"
    subtitle(axes, note)


def draw_predicted_vs_actual(folder: Path):
    path = folder / "forecasts.csv"
    if not path.is_file():
        return None
    evaluation = read(folder, "evaluation.json") or {}
    actual, predicted = read_forecasts(path)
    figure, axes = plt.subplots(figsize=(7.6, 6.4))
    limit = [float(np.quantile(np.abs(values), 0.995)) * 100 for values in (predicted, actual)]
    shown = axes.hexbin(
        np.clip(predicted * 100, -limit[0], limit[0]),
        np.clip(actual * 100, -limit[1], limit[1]),
        gridsize=(60, 40),
        bins="log",
        cmap=ListedColormap(plt.get_cmap("Blues")(np.linspace(0.25, 1, 256))),
        mincnt=1,
        linewidths=0.1,
    )
    axes.axhline(0, color=GREY, lw=0.8)
    axes.axvline(0, color=GREY, lw=0.8)
    reach = min(limit)
    axes.plot(
        [-reach, reach], [-reach, reach], color=GREY, ls="--", lw=1, label="actual = predicted"
    )
    centres, means, errors = bin_means(predicted * 100, actual * 100)
    axes.errorbar(
        centres,
        means,
        2 * errors,
        color=VERMILION,
        marker="o",
        ms=4,
        lw=1.2,
        capsize=2,
        label="mean actual per tenth of the predictions ± 2 s.e.",
    )
    axes.set(xlim=(-limit[0], limit[0]), ylim=(-limit[1], limit[1]))
    axes.set_xlabel("predicted return of the next day, %")
    axes.set_ylabel("actual return, %")
    correlation = np.corrcoef(predicted, actual)[0, 1]
    r2 = 1 - np.mean((actual - predicted) ** 2) / np.mean(actual**2)
    axes.set_title(f"Predicted and actual return, {len(actual):,} test windows")
    subtitle(
        axes,
        f"correlation {correlation:+.4f}; R² against the zero forecast {r2:+.5f}; "
        "the outermost 0.5 % lie on the edge",
    )
    axes.legend(loc="upper left", fontsize=8.5)
    figure.colorbar(shown, ax=axes, label="windows per cell (log scale)", pad=0.01, format="%d")
    sign(figure, provenance("evaluation.json", evaluation) if evaluation else "forecasts.csv")
    return figure


def read_forecasts(path: Path):
    with path.open() as lines:
        columns = lines.readline().strip().split(",")
        if "actual" not in columns or "model_1" not in columns:
            raise ResultError(f"{path}: no columns actual and model_1 in its first line")
        wanted = (columns.index("actual"), columns.index("model_1"))
        table = np.genfromtxt(lines, delimiter=",", usecols=wanted, ndmin=2)
    table = table[np.isfinite(table).all(axis=1)]
    if len(table) < 2:
        raise ResultError(f"{path}: no forecast in it has an actual return")
    return table[:, 0], table[:, 1]


def bin_means(x, y, bins: int = 10):
    """Return, per quantile bin of x: mean x, mean y and the standard error of mean y."""
    parts = [part for part in np.array_split(np.argsort(x, kind="stable"), bins) if len(part) > 1]
    errors = [y[part].std(ddof=1) / np.sqrt(len(part)) for part in parts]
    return [x[part].mean() for part in parts], [y[part].mean() for part in parts], np.array(errors)


def draw_bandwidth(folder: Path):
    result = read(folder, "bn_leaky_relu.json", "rows", "copy_bandwidth_tb_s")
    if result is None:
        return None
    rows = [row for row in result["rows"] if row["graph"]]
    figure, panels = plt.subplots(1, 2, figsize=(13, 5.4), sharex=True, sharey=True)
    # Least traffic of a training step without on-chip reuse: statistics and transform read x and
    # write y (3 passes); backward reads x and dy twice and writes dx (5 more).
    draw_bandwidth_panel(panels[0], rows, "forward_us", 3, "Forward: 3 passes over the tensor")
    draw_bandwidth_panel(panels[1], rows, "forward_backward_us", 8, "Forward + backward: 8 passes")
    for axes in panels:
        axes.axhline(result["copy_bandwidth_tb_s"], color=BLACK, ls="--", lw=1)
        axes.annotate(
            f"copy: {result['copy_bandwidth_tb_s']:.2f} TB/s",
            (0.01, result["copy_bandwidth_tb_s"]),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize=9,
        )
    panels[0].set_ylabel("passes × bytes / time, TB/s")
    panels[0].set_ylim(bottom=0)
    subtitle(
        panels[0],
        "above the copy's line: part of the tensor is not read again, but kept on the chip",
    )
    legend(panels[1])
    sign(figure, provenance("bn_leaky_relu.json", result) + " · inside a CUDA graph")
    return figure


def layout_of(row) -> str:
    dimensions = len(sizes(row["shape"]))
    return "nchw" if row["layout"] == "contiguous" and dimensions > 2 else row["layout"]


def draw_bandwidth_panel(axes, rows, key: str, passes: int, title: str) -> None:
    candidates = list(dict.fromkeys(row["candidate"] for row in rows))
    for candidate in candidates:
        shade = colour(candidate, CANDIDATE_COLOURS, candidates)
        own = [row for row in rows if row["candidate"] == candidate and row.get(key)]
        line = []
        for row in own:
            size = float(np.prod(sizes(row["shape"]))) * ITEM_BYTES[row["dtype"]]
            point = (size / 1e6, passes * size / row[key] / 1e6)
            filled = row["dtype"] == "float32"
            axes.plot(
                *point,
                marker=LAYOUTS[layout_of(row)][0],
                color=shade,
                ms=7,
                mfc=shade if filled else "white",
            )
            if layout_of(row) == "contiguous" and filled:
                line.append(point)
        if line:
            axes.plot(*zip(*sorted(line)), color=shade, lw=1.5, label=candidate)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("size of the input, MB (log scale)")
    axes.set_title(title)


def legend(axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    for marker, label in LAYOUTS.values():
        handles += axes.plot([], [], marker=marker, color=GREY, ls="", ms=6)
        labels.append(label)
    handles += axes.plot([], [], marker="o", color=GREY, mfc="white", ls="", ms=6)
    labels.append("hollow: 16-bit")
    axes.legend(handles, labels, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_training_speed(folder: Path):
    result = read(folder, "training_speed.json", "rows")
    if result is None:
        return None
    curves: dict[tuple[str, str], list] = {}
    for row in result["rows"]:
        point = (row["batch"], row["samples_per_second"])
        curves.setdefault((row["configuration"], row["precision"]), []).append(point)
    names = list(dict.fromkeys(name for name, _ in curves))
    styles = dict(
        zip(dict.fromkeys(precision for _, precision in curves), ("-", "--", ":", "-.") * 2)
    )
    figure, axes = plt.subplots(figsize=(9, 6))
    labelled: list[tuple[float, float]] = []
    for (name, precision), points in curves.items():
        x, y = zip(*sorted(points))
        axes.plot(
            x,
            y,
            color=colour(name, CONFIGURATION_COLOURS, names),
            ls=styles[precision],
            marker="o",
            ms=4,
            lw=1.8,
            label=f"{name}, {precision}",
        )
        if all(x[-1] != at or abs(y[-1] / speed - 1) > 0.1 for at, speed in labelled):
            axes.annotate(f" {magnitude(y[-1])}", (x[-1], y[-1]), va="center", fontsize=8.5)
            labelled.append((x[-1], y[-1]))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(tick_label))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("batch")
    axes.set_ylabel("samples per second (log scale)")
    axes.set_title("Training speed by batch and precision")
    axes.margins(x=0.08)
    axes.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=3)
    sign(figure, provenance("training_speed.json", result))
    return figure


CHARTS = {
    "charts.png": ("benchmark.json", draw_benchmark),
    "predicted_vs_actual.png": ("forecasts.csv", draw_predicted_vs_actual),
    "bn_leaky_relu_bandwidth.png": ("bn_leaky_relu.json", draw_bandwidth),
    "training_speed.png": ("training_speed.json", draw_training_speed),
}


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        prog="return_predictor.charts", description="Draws result files."
    )
    parser.add_argument(
        "--results", type=Path, default=results.DEFAULT_FOLDER, help="folder of the result files"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the charts (default: that of the results)"
    )
    options = parser.parse_args(arguments)
    out = options.out or options.results
    drawn = 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, (source, draw) in CHARTS.items():
            with plt.rc_context(STYLE):
                figure = draw(options.results)
                if figure is None:
                    print(
                        f"charts: {options.results / source} is not there, so no {name}",
                        file=sys.stderr,
                    )
                    continue
                save(figure, out / name)
            print(out / name)
            drawn += 1
    except (ResultError, OSError) as error:
        print(f"charts: {error}", file=sys.stderr)
        return 1
    except (KeyError, TypeError, ValueError) as error:
        print(
            f"charts: {options.results / source}: {type(error).__name__}: {error}", file=sys.stderr
        )
        return 1
    if drawn == 0:
        print(
            f"charts: nothing to draw in {options.results}; run return-predictor benchmark",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
