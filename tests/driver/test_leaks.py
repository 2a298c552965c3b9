"""No leak, and an alarm when there is one. The seven tests of the design are, by letter:

a  features from data cut at t are the full run's    Features.cut_after_any_day_are_bit_identical
b  prices after t change nothing up to t             Features.changed_future_changes_nothing_...
c  test data change neither scaler (Dataset.changed_test_prices_...) nor weights (here)
d  shuffled targets teach nothing                    here
e  a planted signal is found                         here
f  windows against a brute-force loop                Dataset.windows_equal_the_brute_force_loop
g  a leaky data set trips the alarm, in three ways   here
"""

import json

import numpy as np
import pytest

from program import BIN, PROGRAM, checkpoint_parts, done, evaluate, run, synthesize, train, trainer

pytestmark = [
    pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built"),
    pytest.mark.skipif(not (BIN / "leak_probe").exists(), reason="leak_probe is not built"),
]


@pytest.fixture(autouse=True, scope="module")
def something_trains():
    if PROGRAM.exists() and trainer()[0] is None:
        pytest.skip(f"nothing here can train: {trainer()[1]}")


def probe(leak, prices, out, epochs):
    done(leak, prices, trainer()[0], epochs, out, program=BIN / "leak_probe")
    return out


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("market"), tickers=30, days=220, seed=1)


def raised(report):
    return {alarm["name"] for alarm in report["verdict"]["alarms"] if alarm["raised"]}


def test_changed_test_prices_leave_the_weights_unchanged(market, tmp_path):
    small = dict(epochs=2, hidden=32, layers=1, batch=256)
    metadata, weights = checkpoint_parts(train(market, tmp_path / "a.safetensors", **small))
    rng = np.random.default_rng(5)
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in market.glob("*.csv"):
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines[1:], 1):
            date, *prices, volume = line.split(",")
            if date > metadata["split.test_first_date"]:
                factor = rng.uniform(0.5, 2)
                prices = [f"{float(price) * factor:.6f}" for price in prices]
                lines[i] = ",".join([date, *prices, volume])
        (changed / path.name).write_text("\n".join(lines) + "\n")
    other, same_weights = checkpoint_parts(train(changed, tmp_path / "b.safetensors", **small))
    assert other["data.sha256"] != metadata["data.sha256"]
    for key in ("scaler.mean", "scaler.sd", "interval.quantile_80", "interval.quantile_95"):
        assert other[key] == metadata[key], key
    assert same_weights == weights


def test_shuffled_targets_teach_nothing(tmp_path):
    market = synthesize(tmp_path / "market", tickers=30, days=400, seed=4, signal=0.03)
    report = json.loads(probe("shuffled", market, tmp_path / "report.json", 4).read_text())
    found = report["models"][0]["statistics"]
    assert found["r2_train_mean"] <= 0
    assert abs(found["ic_t"]) < 2
    assert report["verdict"]["kind"] == "no skill"


def test_planted_signal_is_found_with_the_r2_of_theory(tmp_path):
    signal = 0.03
    market = synthesize(tmp_path / "market", tickers=40, days=1000, seed=1, signal=signal)
    model = train(market, tmp_path / "model.safetensors", epochs=6, hidden=32, layers=1)
    report = evaluate(market, model, tmp_path / "report.json")
    assert report["verdict"]["kind"] == "skill"
    low, high = report["models"][0]["interval_95"]["r2_train_mean"]
    assert low < signal < high
    ridge = next(b for b in report["baselines"] if b["name"] == "ridge_last_row")
    low, high = ridge["interval_95"]["r2_train_mean"]
    assert low < signal < high


def test_without_a_signal_the_verdict_is_no_skill(tmp_path):
    """At least 19 of 20 markets."""
    kinds = []
    for seed in range(1, 21):
        folder = tmp_path / str(seed)
        market = synthesize(folder, tickers=20, days=400, seed=seed, signal=0)
        model = train(market, tmp_path / "model.safetensors", epochs=2, hidden=32, layers=1)
        report = evaluate(market, model, tmp_path / "report.json")
        kinds.append(report["verdict"]["kind"])
    assert kinds.count("no skill") >= 19, kinds


def test_honest_data_set_raises_no_alarm(market, tmp_path):
    report = json.loads(probe("none", market, tmp_path / "report.json", 2).read_text())
    assert raised(report) == set()


def test_shifted_target_raises_the_alarms_of_error_and_direction(market, tmp_path):
    report = json.loads(probe("shifted", market, tmp_path / "report.json", 4).read_text())
    assert {"r2_zero", "direction", "ic"} <= raised(report)
    assert report["verdict"]["sentence"].startswith("Possible leakage")


def test_random_split_raises_the_alarm_of_error(tmp_path):
    """Short and with one strong factor, so that the neighbours of a test window tell its day."""
    market = tmp_path / "market"
    market.mkdir()
    rng = np.random.default_rng(3)
    factor = rng.normal(0, 0.02, 90)
    dates = np.arange("2020-01-01", "2020-03-31", dtype="datetime64[D]")
    for ticker in range(20):
        price = 50 * np.cumprod(1 + factor + rng.normal(0, 0.002, 90))
        volume = rng.integers(10**6, 10**7, 90)
        lines = ["date,open,high,low,close,adj_close,volume"]
        lines += [f"{d},{p},{p},{p},{p},{p},{v}" for d, p, v in zip(dates, price, volume)]
        (market / f"T{ticker}.csv").write_text("\n".join(lines) + "\n")
    report = json.loads(probe("random", market, tmp_path / "report.json", 40).read_text())
    assert "r2_zero" in raised(report)
    honest = json.loads(probe("none", market, tmp_path / "honest.json", 40).read_text())
    assert "r2_zero" not in raised(honest)


def test_scaler_of_all_rows_raises_the_alarm_of_the_audit_and_strict_exits_3(market, tmp_path):
    model = probe("scaler", market, tmp_path / "model.safetensors", 1)
    arguments = ("evaluate", "--prices", market, "--checkpoint", model)
    result = run(*arguments, "--out", tmp_path / "report.json", "--strict")
    assert result.returncode == 3
    assert "scaler" in raised(json.loads((tmp_path / "report.json").read_text()))
    assert result.stdout.startswith("Possible leakage: the scaler was not fitted on the training")
    assert run(*arguments).returncode == 0  # not strict: said, not punished
