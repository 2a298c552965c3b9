"""The report's numbers against scipy, scikit-learn, statsmodels and pandas.

report_probe runs the report over rows made here; everything it prints is computed again.
"""

import json
import os
import pathlib
import subprocess

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.linear_model
import statsmodels.api as sm

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBE = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build" / "default")) / "bin/report_probe"

pytestmark = [
    pytest.mark.skipif(not PROBE.exists(), reason=f"{PROBE} is not built"),
    # A forecast that trades nothing has no Sharpe ratio: 0 / 0.
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]

STEPS = 20
TRAIN_LAST, TEST_FIRST = 18201, 18203  # day numbers; labels are known before the test period
QUANTILES = (1.3, 2.1)
FEATURES = ["x0", "x1", "x2", "x3"]
EQUAL = dict(rtol=1e-9, atol=1e-14)  # other orders of summation in double precision


WARM_UP = 20  # days before a ticker's first row


def make_rows(seed=7, tickers=47, days=420, forecasts=2):
    """One line a day, with what real prices have: ties, days without a move, tickers that come
    late or miss days."""
    rng = np.random.default_rng(seed)
    frames = []
    market = rng.standard_t(4, days) * 0.006
    for ticker in range(tickers):
        date = 18000 + np.arange(days) + 2 * (np.arange(days) // 5)  # weekends
        returns = np.clip(market + rng.standard_t(3, days) * 0.01, -0.3, 0.3)
        if ticker == 5:
            returns[200:] = 0.0  # a price that stands still has vol20 = 0
        frame = pd.DataFrame({"ticker": ticker, "date": date})
        frame["adj_close"] = np.round(20 * np.cumprod(1 + returns), 2)
        for name in FEATURES:
            frame[name] = np.clip(rng.normal(size=days), -5, 5).astype(np.float32)
        for k in range(forecasts):
            signal = 0.02 * np.append(returns[1:], 0) + 0.001 * rng.normal(size=days)
            frame[f"model_{k + 1}"] = np.round(signal, 4 + 8 * k)  # the first has ties
        if ticker % 9 == 0:
            frame = frame.iloc[ticker * 3 + 30 :]
        if ticker % 7 == 0:
            frame = frame.drop(frame.index[150:160])
        if ticker % 8 == 0:  # the last training label lies beyond the first test day
            frame = frame[(frame["date"] < TEST_FIRST) | (frame["date"] > TEST_FIRST + 5)].copy()
        price = frame["adj_close"]
        frame["return"] = price.shift(-1) / price - 1
        frame["tradeable"] = frame["return"].shift(-1)
        window = np.lib.stride_tricks.sliding_window_view(price / price.shift(1) - 1, 20)
        frame["vol20"] = np.append(np.full(19, np.nan), window.std(axis=1, ddof=1))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def run_probe(rows, folder, steps=STEPS):
    source, out = folder / "rows.csv", folder / "report"
    written = rows.drop(columns=["return", "tradeable", "vol20"])
    written.to_csv(source, header=False, index=False, na_rep="nan", float_format="%.17g")
    arguments = [PROBE, source, steps, TRAIN_LAST, TEST_FIRST, *QUANTILES, out]
    subprocess.run([str(a) for a in arguments], check=True)
    return json.loads(out.with_suffix(".json").read_text()), pd.read_csv(
        out.with_suffix(".csv"), parse_dates=["date"]
    )


def windows_of(rows):
    """The rows that end labelled windows."""
    place = rows.groupby("ticker").cumcount() - WARM_UP
    return rows[(place >= STEPS - 1) & rows["return"].notna()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rows = make_rows()
    report, forecasts = run_probe(rows, tmp_path_factory.mktemp("report"))
    windows = windows_of(rows)
    label_date = rows.groupby("ticker")["date"].shift(-1).loc[windows.index]
    return {
        "rows": rows,
        "report": report,
        "forecasts": forecasts,
        "train": windows[(windows["date"] <= TRAIN_LAST) & (label_date <= TEST_FIRST)],
        "test": windows[windows["date"] >= TEST_FIRST].sort_values(["date", "ticker"]),
    }


def long_short(test, forecast):
    """Daily gross return and turnover of the ten highest against the ten lowest."""
    gross, turnover, held = [], [], {}
    for _, day in test.assign(forecast=forecast).groupby("date"):
        day = day[day["tradeable"].notna()].sort_values(["forecast", "ticker"])
        if day.empty:
            gross.append(np.nan), turnover.append(np.nan)
            continue
        side = min(10, len(day) // 2) if day["forecast"].nunique() > 1 else 0
        weights = {t: -1 / side for t in day["ticker"].iloc[:side]} if side else {}
        weights |= {t: 1 / side for t in day["ticker"].iloc[len(day) - side :]} if side else {}
        returns = day.set_index("ticker")["tradeable"]
        gross.append(sum(w * returns[t] for t, w in weights.items()))
        both = set(weights) | set(held)
        turnover.append(sum(abs(weights.get(t, 0) - held.get(t, 0)) for t in both))
        held = weights
    return np.array(gross), np.array(turnover)


def drawdown(returns):
    curve = np.cumprod(1 + pd.Series(np.append(0.0, returns)).dropna())
    return (1 - curve / curve.cummax()).max()


def newey_west_t(series):
    series = pd.Series(series).dropna()
    if series.empty:  # a constant forecast has no correlation
        return np.nan
    fit = sm.OLS(series, np.ones(len(series))).fit(cov_type="HAC", cov_kwds={"maxlags": 5})
    return fit.tvalues.iloc[0]


def gain(day, rows):
    gains = pd.Series(rows).groupby(day).sum()
    return gains if gains.abs().max() > 0 else pd.Series(dtype=float)


def expected_statistics(test, forecast, train_mean):
    forecast = np.asarray(forecast)
    actual = test["return"].to_numpy()
    day = test["date"].to_numpy()
    error = actual - forecast
    right = ((forecast > 0) == (actual > 0)).astype(float)
    clustered = sm.OLS(right, np.ones(len(right))).fit(cov_type="cluster", cov_kwds={"groups": day})
    frame = pd.DataFrame({"day": day, "forecast": forecast, "actual": actual})
    ic, rank_ic = [], []
    for _, one in frame.groupby("day"):
        constant = one["forecast"].nunique() == 1 or one["actual"].nunique() == 1
        ic.append(np.nan if constant else scipy.stats.pearsonr(one["forecast"], one["actual"])[0])
        rank_ic.append(
            np.nan if constant else scipy.stats.spearmanr(one["forecast"], one["actual"])[0]
        )
    ic, rank_ic = pd.Series(ic), pd.Series(rank_ic)
    gross, turnover = long_short(test, forecast)
    net = gross - 0.0005 * turnover
    return {
        "mse": np.mean(error**2),
        "mae": np.mean(np.abs(error)),
        "r2_zero": 1 - np.sum(error**2) / np.sum(actual**2),
        "r2_train_mean": 1 - np.sum(error**2) / np.sum((actual - train_mean) ** 2),
        "r2_zero_t": newey_west_t(gain(day, actual**2 - error**2)),
        "r2_train_mean_t": newey_west_t(gain(day, (actual - train_mean) ** 2 - error**2)),
        "direction": right.mean(),
        "direction_se": clustered.bse[0],
        "base_rate": np.mean(actual > 0),
        "ic": ic.mean(),
        "icir": ic.mean() / ic.std(),
        "ic_t": newey_west_t(ic),
        "rank_ic": rank_ic.mean(),
        "rank_icir": rank_ic.mean() / rank_ic.std(),
        "rank_ic_t": newey_west_t(rank_ic),
        "return_gross": np.nanmean(gross),
        "return_net": np.nanmean(net),
        "sharpe_gross": np.nanmean(gross) / np.nanstd(gross, ddof=1) * np.sqrt(252),
        "sharpe_net": np.nanmean(net) / np.nanstd(net, ddof=1) * np.sqrt(252),
        "turnover": np.nanmean(turnover),
        "drawdown_gross": drawdown(gross),
        "drawdown_net": drawdown(net),
    }


@pytest.mark.parametrize("model", [0, 1])
def test_statistics_of_a_model_equal_other_programs(made, model):
    expected = expected_statistics(
        made["test"], made["test"][f"model_{model + 1}"], made["train"]["return"].mean()
    )
    found = made["report"]["models"][model]["statistics"]
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, err_msg=name, **EQUAL)


def baseline_forecasts(made):
    rows, train, test = made["rows"], made["train"], made["test"]
    last = rows.groupby("ticker")["return"].shift(1)
    lagged = {lag: rows.groupby("ticker")[FEATURES].shift(lag) for lag in range(STEPS)}
    window = pd.concat(lagged, axis=1)

    def ridge(inputs):
        model = sklearn.linear_model.Ridge(alpha=1.0, solver="cholesky")
        model.fit(inputs.loc[train.index].to_numpy(float), train["return"])
        return model.predict(inputs.loc[test.index].to_numpy(float))

    mean = train["return"].mean()
    return {
        "zero": np.zeros(len(test)),
        "train_mean": np.full(len(test), mean),
        "ticker_mean": test["ticker"].map(train.groupby("ticker")["return"].mean()).fillna(mean),
        "last_return": last.loc[test.index],
        "minus_last_return": -last.loc[test.index],
        "ridge_last_row": ridge(rows[FEATURES]),
        "ridge_window": ridge(window),
    }


def test_forecasts_of_the_baselines_equal_scikit_learn_and_pandas(made):
    table = made["forecasts"]
    assert len(table) == len(made["test"])
    np.testing.assert_array_equal(table["actual"], made["test"]["return"])
    np.testing.assert_allclose(table["vol20"], made["test"]["vol20"], **EQUAL)
    np.testing.assert_array_equal(table["model_2"], made["test"]["model_2"])
    for name, forecast in baseline_forecasts(made).items():
        np.testing.assert_allclose(table[name], forecast, err_msg=name, **EQUAL)


# A forecast that is the same for all stocks ranks and trades nothing, the zero forecast has no
# direction, and neither gains on itself.
CONSTANT = {"ic", "icir", "ic_t", "rank_ic", "rank_icir", "rank_ic_t"} | {
    f"{name}_{kind}" for name in ("return", "sharpe", "drawdown") for kind in ("gross", "net")
}
UNDEFINED = {
    "zero": CONSTANT | {"direction", "direction_se", "r2_zero_t"},
    "train_mean": CONSTANT | {"r2_train_mean_t"},
}


def test_statistics_of_the_baselines_equal_other_programs(made):
    mean = made["train"]["return"].mean()
    for line in made["report"]["baselines"]:
        # The forecasts are equal to 1e-9, so their ranks are those of the program's own.
        expected = expected_statistics(made["test"], made["forecasts"][line["name"]], mean)
        undefined = UNDEFINED.get(line["name"], set())
        for name, value in expected.items():
            found = line["statistics"][name]
            if name in undefined:
                assert found is None, f"{line['name']} {name}"
            else:
                np.testing.assert_allclose(found, value, err_msg=f"{line['name']} {name}", **EQUAL)


def test_seeds_are_averaged_over_the_models(made):
    report = made["report"]
    values = pd.DataFrame([m["statistics"] for m in report["models"]])
    assert report["seeds"]["count"] == 2
    for name in values:
        np.testing.assert_allclose(report["seeds"]["mean"][name], values[name].mean(), **EQUAL)
        np.testing.assert_allclose(
            report["seeds"]["standard_deviation"][name], values[name].std(), **EQUAL
        )


def split_mix(state, count):
    """floor(count * next / 2^64), as documented in bootstrap.h."""
    mask = 2**64 - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield (count * (z ^ (z >> 31))) >> 64


def test_bootstrap_intervals_equal_numpy_quantiles_of_the_same_draws(made):
    daily = pd.DataFrame(made["report"]["daily"])
    test = made["test"]
    error = (test["return"] - test["model_1"]) ** 2
    squared_error = error.groupby(test["date"]).sum().to_numpy()
    squared_return = (test["return"] ** 2).groupby(test["date"]).sum().to_numpy()
    ic = daily["ic"].to_numpy(float)
    net = daily["return_net"].to_numpy(float)
    days = len(daily)
    start = split_mix(20, days)
    draws = {"r2_zero": [], "ic": [], "sharpe_net": []}
    for _ in range(2000):
        blocks = [(next(start) + np.arange(20)) % days for _ in range(-(-days // 20))]
        index = np.concatenate(blocks)[:days]
        draws["r2_zero"].append(1 - squared_error[index].sum() / squared_return[index].sum())
        draws["ic"].append(np.nanmean(ic[index]))
        drawn = net[index]
        draws["sharpe_net"].append(np.nanmean(drawn) / np.nanstd(drawn, ddof=1) * np.sqrt(252))
    found = made["report"]["models"][0]["interval_95"]
    for name, values in draws.items():
        expected = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose(found[name], expected, err_msg=name, **EQUAL)


def test_coverage_is_the_share_of_returns_inside(made):
    test = made["test"]
    scale = np.maximum(test["vol20"], 1e-4)
    for level, quantile in zip(made["report"]["prediction_intervals"], QUANTILES):
        inside = (np.abs(test["return"] - test["model_1"]) <= quantile * scale).astype(float)
        clustered = sm.OLS(inside.to_numpy(), np.ones(len(inside))).fit(
            cov_type="cluster", cov_kwds={"groups": test["date"].to_numpy()}
        )
        np.testing.assert_allclose(level["measured"], inside.mean(), **EQUAL)
        np.testing.assert_allclose(level["standard_error"], clustered.bse[0], **EQUAL)
        np.testing.assert_allclose(level["mean_width"], (2 * quantile * scale).mean(), **EQUAL)


def test_equal_weight_is_the_mean_of_what_can_be_traded(made):
    expected = made["test"].groupby("date")["tradeable"].mean()
    found = pd.Series(made["report"]["daily"]["equal_weight"], dtype=float)
    np.testing.assert_allclose(found, expected, **EQUAL)


def test_few_tickers_make_smaller_sides(tmp_path):
    rows = make_rows(seed=3, tickers=5, days=300)
    report, _ = run_probe(rows, tmp_path)
    windows = windows_of(rows)
    test = windows[windows["date"] >= TEST_FIRST].sort_values(["date", "ticker"])
    gross, _ = long_short(test, test["model_1"])
    found = pd.Series(report["daily"]["return_gross"], dtype=float)
    np.testing.assert_allclose(found, gross, **EQUAL)


def test_too_few_days_give_no_interval_and_no_skill(tmp_path):
    rows = make_rows(seed=2, tickers=20, days=420)
    cut = rows["date"] < TEST_FIRST + 40  # 30 trading days or fewer
    report, _ = run_probe(rows[cut].reset_index(drop=True), tmp_path)
    assert report["data"]["test_days"] < 40
    assert report["models"][0]["interval_95"] == {}
    assert report["verdict"]["kind"] == "no skill"


def test_page_needs_no_network_and_has_every_figure(made, tmp_path):
    run_probe(make_rows(seed=1, tickers=30, days=300), tmp_path)
    page = (tmp_path / "report.html").read_text()
    for word in ("http:", "https:", "<script", "@import", "url(", "src="):
        assert word not in page, word
    assert page.count("<svg ") == page.count("</svg>") == 11
    assert "nan" not in page.replace("finance", "")
