"""evaluate and predict as a user runs them: files, exit codes, bad input, grown price files."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest

from program import PROGRAM, REAL, checkpoint_parts, done, evaluate, run, synthesize, train, trainer

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built")

SMALL = dict(epochs=1, hidden=32, layers=1, batch=256)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Prices, and two checkpoints that differ in their seed, trained without the last 60 days."""
    name, reason = trainer()
    if name is None:
        pytest.skip(f"nothing here can train: {reason}")
    folder = tmp_path_factory.mktemp("evaluate")
    synthesize(folder / "grown", tickers=24, days=360, seed=2)
    (folder / "prices").mkdir()
    for path in (folder / "grown").glob("*.csv"):
        lines = path.read_text().splitlines(keepends=True)
        (folder / "prices" / path.name).write_text("".join(lines[:-60]))
    train(folder / "prices", folder / "model.safetensors", seeds=2, **SMALL)
    return folder


def models(made, count=2):
    return [made / f"model.seed{k + 1}.safetensors" for k in range(count)]


@pytest.fixture(scope="module")
def report(made):
    arguments = ("--html", made / "report.html", "--forecasts", made / "forecasts.csv")
    both = ",".join(map(str, models(made)))
    return evaluate(made / "prices", both, made / "report.json", *arguments)


def test_report_says_where_it_comes_from(report):
    assert report["schema"] == 1
    assert report["command"].startswith("return-predictor evaluate --prices")
    assert len(report["commit"]) == 40
    assert report["machine"]["cores"] >= 1
    assert report["data"]["tickers"] == 24
    assert report["verdict"]["scaler_and_split_checked"] is True


def test_verdict_is_the_first_sentence_on_the_terminal_and_on_the_page(made, report):
    table = done("evaluate", "--prices", made / "prices", "--checkpoint", models(made, 1)[0])
    first = json.loads((made / "report.json").read_text())["verdict"]["sentence"].split(":")[0]
    assert table.stdout.startswith(first + ":")
    page = (made / "report.html").read_text()
    assert page.index('class="sentence">' + first) < page.index("<table>")


def test_loss_chart_counts_epochs_in_whole_numbers(made, report):
    page = (made / "report.html").read_text()
    chart = page[page.index('aria-label="Mean squared error by epoch"') :].split("</svg>")[0]
    below = re.findall(r'text-anchor="middle">([\d.]+)<', chart)
    assert below == ["1", "2"]  # of one epoch, too


def test_several_checkpoints_are_averaged_over_seeds(report):
    values = [m["statistics"]["r2_zero"] for m in report["models"]]
    assert [m["seed"] for m in report["models"]] == ["1", "2"]
    assert len(set(m["model_version"] for m in report["models"])) == 2
    assert report["seeds"]["count"] == 2
    np.testing.assert_allclose(report["seeds"]["mean"]["r2_zero"], np.mean(values), rtol=1e-12)
    deviation = np.std(values, ddof=1)
    np.testing.assert_allclose(report["seeds"]["standard_deviation"]["r2_zero"], deviation)


def test_statistics_follow_from_the_forecasts_that_were_written(made, report):
    table = pd.read_csv(made / "forecasts.csv")
    assert len(table) == report["data"]["test_windows"]
    assert table["date"].min() == report["data"]["test_first_date"]
    for k, model in enumerate(report["models"]):
        error = table["actual"] - table[f"model_{k + 1}"]
        np.testing.assert_allclose(model["statistics"]["mse"], (error**2).mean(), rtol=1e-9)


def test_returns_follow_from_the_price_files(made, report):
    table = pd.read_csv(made / "forecasts.csv").set_index(["ticker", "date"])
    for path in list((made / "prices").glob("*.csv"))[:3]:
        prices = pd.read_csv(path).set_index("date")["adj_close"]
        mine = table.loc[path.stem]
        expected = (prices.shift(-1) / prices - 1).loc[mine.index]
        np.testing.assert_allclose(mine["actual"], expected, rtol=1e-12, atol=1e-15)
        traded = (prices.shift(-2) / prices.shift(-1) - 1).loc[mine.index]
        np.testing.assert_allclose(mine["tradeable"], traded, rtol=1e-12, atol=1e-15)


def predict(made, *more, prices="prices"):
    result = done(
        "predict", "--prices", made / prices, "--checkpoint", models(made)[0], "--json", *more
    )
    return json.loads(result.stdout)


def test_prediction_has_the_agreed_keys_and_the_report_s_number(made, report):
    row = list(csv.DictReader((made / "forecasts.csv").open()))[5]
    (said,) = predict(made, "--ticker", row["ticker"], "--date", row["date"])
    assert list(said) == [
        "ticker",
        "date",
        "prediction",
        "interval_80",
        "interval_95",
        "actual",
        "model_version",
    ]
    # One window and many go through kernels that add in different orders, in single precision.
    np.testing.assert_allclose(said["prediction"], float(row["model_1"]), rtol=1e-5, atol=1e-8)
    assert said["actual"] == float(row["actual"])
    assert said["model_version"] == report["models"][0]["model_version"]
    assert len(said["model_version"]) == 12
    metadata, _ = checkpoint_parts(models(made)[0])
    for level in ("80", "95"):
        half = float(metadata[f"interval.quantile_{level}"]) * float(row["vol20"])
        expected = [said["prediction"] - half, said["prediction"] + half]
        np.testing.assert_allclose(said[f"interval_{level}"], expected, rtol=1e-12)


def test_without_a_ticker_all_latest_days_are_predicted(made):
    said = predict(made)
    assert len(said) == 24
    assert all(one["actual"] is None for one in said)
    last = [p.read_text().splitlines()[-1][:10] for p in (made / "prices").glob("*.csv")]
    assert {one["date"] for one in said} == set(last)


def test_prices_that_came_later_extend_the_test_period(made, report):
    grown = evaluate(made / "grown", models(made)[0], made / "grown.json")
    assert grown["data"]["test_first_date"] == report["data"]["test_first_date"]
    assert grown["data"]["train_last_date"] == report["data"]["train_last_date"]
    assert grown["data"]["test_days"] == report["data"]["test_days"] + 60
    assert grown["verdict"]["scaler_and_split_checked"] is False
    (before,) = predict(made, "--ticker", "SYN0003", "--date", report["data"]["test_last_date"])
    (after,) = predict(
        made, "--ticker", "SYN0003", "--date", report["data"]["test_last_date"], prices="grown"
    )
    assert before["prediction"] == after["prediction"]


def test_same_command_gives_the_same_report(made, report):
    again = evaluate(made / "prices", ",".join(map(str, models(made))), made / "again.json")
    for part in ("verdict", "data", "models", "seeds", "baselines", "daily"):
        assert again[part] == report[part], part


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--ticker", "NOBODY"], 'no ticker "NOBODY"'),
        (["--ticker", "SYN0001", "--date", "2014-01-04"], "has no prices on 2014-01-04"),
        (["--ticker", "SYN0001", "--date", "2014-01-10"], "needs 39 earlier trading days"),
        (["--date", "yesterday"], "is not a day like 2021-12-31"),
    ],
)
def test_what_can_not_be_predicted_is_refused(made, arguments, message):
    result = run(
        "predict", "--prices", made / "prices", "--checkpoint", models(made)[0], *arguments
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stdout == ""


def test_models_of_different_data_are_refused(made):
    train(made / "grown", made / "other.safetensors", **SMALL)
    both = f"{models(made)[0]},{made / 'other.safetensors'}"
    result = run("evaluate", "--prices", made / "prices", "--checkpoint", both)
    assert result.returncode == 1
    assert "different data" in result.stderr


def test_prices_that_end_before_the_test_period_are_refused(made, tmp_path):
    for path in (made / "prices").glob("*.csv"):
        lines = path.read_text().splitlines(keepends=True)
        (tmp_path / path.name).write_text("".join(lines[:100]))
    result = run("evaluate", "--prices", tmp_path, "--checkpoint", models(made)[0])
    assert result.returncode == 1
    assert "no labelled window" in result.stderr


def test_damaged_or_missing_checkpoint_is_refused_by_name(made, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(models(made)[0].read_bytes()[:-1])
    for path in (broken, tmp_path / "missing.safetensors"):
        result = run("evaluate", "--prices", made / "prices", "--checkpoint", path)
        assert result.returncode == 1
        assert path.name in result.stderr


def test_report_that_can_not_be_written_is_an_error(made, tmp_path):
    result = run(
        "evaluate",
        "--prices",
        made / "prices",
        "--checkpoint",
        models(made)[0],
        "--out",
        tmp_path / "missing" / "report.json",
    )
    assert result.returncode == 1
    assert "report.json" in result.stderr


def test_real_prices_show_no_skill_and_no_alarm(tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"no real prices at {REAL} (set RP_MARKET)")
    if trainer()[0] is None:
        pytest.skip(f"nothing here can train: {trainer()[1]}")
    model = train(REAL, tmp_path / "model.safetensors", epochs=1, hidden=32, layers=1)
    report = evaluate(REAL, model, tmp_path / "report.json", "--strict")
    assert report["data"]["test_windows"] == 24800
    assert report["verdict"]["kind"] == "no skill"
    for level in report["prediction_intervals"]:
        assert abs(level["measured"] - level["promised"]) < 0.03


def test_rows_that_were_not_used_are_counted_in_the_report(made, report, tmp_path):
    for path in (made / "prices").glob("*.csv"):
        lines = path.read_text().splitlines(keepends=True)
        if path.stem == "SYN0002":
            lines[200] = lines[200].replace(lines[200].split(",")[4], "null")
            lines[210] = lines[210].replace(lines[210].split(",")[4], "-1")
        (tmp_path / path.name).write_text("".join(lines))
    arguments = (tmp_path, models(made)[0], tmp_path / "report.json", "--skip-bad-rows")
    found = evaluate(*arguments, "--html", tmp_path / "report.html")["data"]
    assert found["bad_rows_left_out"] == 2
    assert found["ticker_days_missing"] == 2
    assert found["price_warnings"] == 2
    said = "Price files: 2 bad rows left out, 2 days missing that most tickers have, 2 warnings"
    assert said in (tmp_path / "report.html").read_text()
    assert report["data"]["bad_rows_left_out"] == 0
