"""walk-forward as a user runs it: files, continuation, failures, and what the report says."""

import csv
import json
import math
import signal
import statistics
import subprocess
import time

import pytest

import program

SMALL = {
    "train-years": 2, "test-months": 3, "step-months": 3, "hidden": 8, "layers": 1, "batch": 64,
    "epochs": 1, "seeds": 2,
}  # fmt: skip
MODELS = 5 * 2  # the prices below have five quarters after two years


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    return program.synthesize(tmp_path_factory.mktemp("prices"), tickers=6, days=840, signal=0.3)


def command(prices, out, **more):
    more = {name.replace("_", "-"): value for name, value in more.items()}
    listed = [f"--{name}={value}" for name, value in (SMALL | more).items()]
    return ["walk-forward", f"--prices={prices}", f"--out={out}", *listed]


def walk(prices, out, **more):
    return program.run(*command(prices, out, **more), timeout=300)


@pytest.fixture(scope="module")
def whole(prices, tmp_path_factory):
    """A finished run: its folder, and what it wrote to both outputs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    result = walk(prices, out)
    assert result.returncode == 0, result.stderr
    return out, result


def models(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "models").iterdir())}


def forecasts(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def report(folder):
    return json.loads((folder / "walk_forward.json").read_text())["report"]


def test_a_model_a_window_and_seed_is_written(whole):
    out, result = whole
    names = list(models(out))
    assert len(names) == MODELS
    assert names[0] == "2016-01_rate0.001_seed1.safetensors"
    assert f"5 windows x 1 learning rates x 2 seeds = {MODELS} models" in result.stderr
    assert "0 are finished already" in result.stderr
    written = json.loads((out / "walk_forward.json").read_text())
    assert written["models"] == written["models_trained"] == MODELS
    assert written["train_seconds"] > 0 and not written["report"]["failures"]


def test_every_test_day_is_forecast_by_the_newest_model(whole, prices, tmp_path):
    out, _ = whole
    rows = forecasts(out / "forecasts.csv")
    assert rows[0]["date"] == "2016-01-01"
    for month, end, name in (("2016-01", "2016-04", "seed1"), ("2016-07", "2016-10", "seed2")):
        table = tmp_path / f"{month}.csv"
        model = out / f"models/{month}_rate0.001_{name}.safetensors"
        program.done("evaluate", "--prices", prices, "--checkpoint", model, "--forecasts", table)
        alone = [row for row in forecasts(table) if month <= row["date"] < end]
        ours = [row for row in rows if month <= row["date"] < end]
        column = "model_1" if name == "seed1" else "model_2"
        assert len(alone) > 6 * 55
        assert [(r["date"], r["ticker"]) for r in alone] == [(r["date"], r["ticker"]) for r in ours]
        # A window's last bits depend on how many are predicted in one call.
        expected = pytest.approx([float(r["model_1"]) for r in alone], abs=1e-8)
        assert [float(r[column]) for r in ours] == expected
        # Baselines are fitted again in each window, as the checkpoint's own report fits them.
        for baseline in ("train_mean", "ticker_mean", "ridge_window"):
            assert [r[baseline] for r in alone] == [r[baseline] for r in ours]


def test_windows_are_purged_embargoed_and_scaled_by_their_own_years(whole, prices, tmp_path):
    out, _ = whole
    read = lambda folder: {n: program.checkpoint_parts(folder / "models" / n)[0] for n in models(out)}
    plain = read(out)
    assert walk(prices, tmp_path / "run", embargo=20).returncode == 0
    embargoed = read(tmp_path / "run")
    for name, metadata in plain.items():
        assert metadata["split.train_last_date"] < metadata["split.test_first_date"] >= name[:7]
        months = int(name[:4]) * 12 + int(name[5:7]) - 24
        assert metadata["split.train_first_date"] == f"{(months - 1) // 12}-{(months - 1) % 12 + 1:02}-01"
        fewer = int(metadata["training.windows"]) - int(embargoed[name]["training.windows"])
        assert fewer == 20 * 6  # days times tickers
    assert len({metadata["scaler.mean"] for metadata in plain.values()}) == 5


def test_expanding_windows_begin_with_the_prices(whole, prices, tmp_path):
    assert walk(prices, tmp_path / "run", window="expanding", seeds=1).returncode == 0
    windows = report(tmp_path / "run")["windows"]
    counts = [window["train_windows"] for window in windows]
    assert counts == sorted(counts) and counts[-1] > counts[0] + 4 * 6 * 55
    assert {window["train_first_date"] for window in windows} == {"2014-01-01"}


def test_later_prices_change_no_earlier_model(whole, prices, tmp_path):
    changed = tmp_path / "prices"
    changed.mkdir()
    for path in prices.iterdir():
        lines = path.read_text().splitlines(keepends=True)
        for i, line in enumerate(lines[1:], 1):
            if line >= "2016-08":
                date, *values, volume = line.split(",")
                factor = 1 + 0.5 * math.sin(i)
                values = [f"{float(value) * factor:.6f}" for value in values]
                lines[i] = ",".join([date, *values, volume])
        (changed / path.name).write_text("".join(lines))
    assert walk(changed, tmp_path / "run", seeds=1).returncode == 0
    for month, same in (("2016-04", True), ("2016-07", True), ("2016-10", False)):
        name = f"models/{month}_rate0.001_seed1.safetensors"
        before = program.checkpoint_parts(whole[0] / name)
        after = program.checkpoint_parts(tmp_path / "run" / name)
        assert (before[1] == after[1]) == same, month
        assert (before[0]["scaler.mean"] == after[0]["scaler.mean"]) == same


def test_threads_change_no_bit(whole, prices, tmp_path):
    for threads in (1, 3):
        assert walk(prices, tmp_path / f"{threads}", threads=threads).returncode == 0
        assert models(tmp_path / f"{threads}") == models(whole[0])


def test_killed_run_goes_on_to_the_same_files(whole, prices, tmp_path):
    out = tmp_path / "run"
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen([program.PROGRAM, *command(prices, out, threads=1)], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        finished = len(models(out)) if out.exists() else 0
        while time.monotonic() < deadline and process.poll() is None:
            if out.exists() and (out / "models").exists() and len(models(out)) > finished + 1:
                break
            time.sleep(0.005)
        process.send_signal(number)
        process.communicate(timeout=60)
    kept = {path: path.stat().st_mtime_ns for path in (out / "models").iterdir()}
    assert 2 <= len(kept) < MODELS
    result = walk(prices, out)
    assert result.returncode == 0, result.stderr
    assert f"{len(kept)} are finished already" in result.stderr
    assert models(out) == models(whole[0])
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert (out / "forecasts.csv").read_bytes() == (whole[0] / "forecasts.csv").read_bytes()


def test_failed_models_are_reported_and_do_not_stop_the_others(whole, prices, tmp_path):
    out = tmp_path / "run"
    result = walk(prices, out, learning_rates="0.001,1e30")
    assert result.returncode == 0, result.stderr
    assert "2016-01_rate1e+30_seed1 failed: the loss of epoch 1" in result.stderr
    assert "Not judged: rate1e+30_seed2, without a model in 5 windows." in result.stdout
    assert models(out) == models(whole[0])
    failures = report(out)["failures"]
    assert len(failures) == MODELS and failures[0]["model"] == "2016-01_rate1e+30_seed1"


def test_other_settings_in_the_same_folder_are_refused(whole, prices):
    result = walk(prices, whole[0], epochs=2)
    assert result.returncode == 1 and "settings.json" in result.stderr


def test_report_agrees_with_its_table(whole):
    """IC, agreement of seeds and of refits, recomputed from the forecasts."""
    numpy = pytest.importorskip("numpy")
    scipy = pytest.importorskip("scipy.stats")
    out, _ = whole
    written = report(out)
    by_day = {}
    for row in forecasts(out / "forecasts.csv"):
        by_day.setdefault(row["date"], []).append(
            [float(row[c]) for c in ("actual", "model_1", "model_2")]
        )
    for window in written["windows"]:
        days = [
            numpy.array(rows).T
            for day, rows in by_day.items()
            if window["test_first_date"] <= day <= window["test_last_date"]
        ]
        ic = [
            statistics.mean(numpy.corrcoef(day[0], day[model])[0, 1] for day in days)
            for model in (1, 2)
        ]
        assert window["ic"] == pytest.approx(statistics.mean(ic), abs=1e-9)
        assert window["ic_deviation"] == pytest.approx(statistics.stdev(ic), abs=1e-9)
        agree = statistics.mean(scipy.spearmanr(day[1], day[2])[0] for day in days)
        assert window["seeds_agree"] == pytest.approx(agree, abs=1e-6)
        assert len(days) * 6 == window["test_windows"]
    assert written["windows"][0]["refits_agree"] is None
    assert all(-1 <= window["refits_agree"] <= 1 for window in written["windows"][1:])
    (mean,) = written["means_of_seeds"]
    means = [
        numpy.corrcoef(numpy.array(rows)[:, 0], numpy.array(rows)[:, 1:].mean(1))[0, 1]
        for rows in by_day.values()
    ]
    assert mean["ic"] == pytest.approx(statistics.mean(means), abs=1e-9)


@pytest.mark.parametrize(
    "options, part",
    [
        ({"step_months": 6}, "days would be left without a forecast"),
        ({"learning_rates": "0.1,x"}, '"x" is not a positive number'),
        ({"seeds": 40, "learning_rates": "0.1,0.2"}, "are more than 64"),
    ],
)
def test_usage_error_exits_2(prices, tmp_path, options, part):
    result = walk(prices, tmp_path / "run", **options)
    assert result.returncode == 2 and part in result.stderr


def test_prices_that_are_too_short_say_so(prices, tmp_path):
    result = walk(prices, tmp_path / "run", train_years=9)
    assert result.returncode == 1 and "no month is left to test" in result.stderr


def test_seed_spread_of_the_report_is_over_the_series(whole):
    written = report(whole[0])
    values = [model["statistics"]["rank_ic"] for model in written["models"]]
    assert [model["seed"] for model in written["models"]] == ["1", "2"]
    assert written["seeds"]["mean"]["rank_ic"] == pytest.approx(statistics.mean(values))
