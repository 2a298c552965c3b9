"""Prices at the edge of sense: finite numbers everywhere, or a clear refusal."""

import json
import math
import re

import numpy as np
import pytest

from program import PROGRAM, done, evaluate, run, train, trainer

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built")

SMALL = dict(epochs=1, hidden=32, layers=1, batch=64)


def weekdays(count, first="2015-01-01"):
    days = np.arange(np.datetime64(first), np.datetime64(first) + 2 * count)
    return days[np.is_busday(days)][:count]


def walk(days, ticker):
    rng = np.random.default_rng(ticker)
    return 50 * np.cumprod(1 + rng.normal(0, 0.02, days))


def write(folder, ticker, dates, price, volume):
    lines = ["date,close,volume"]
    lines += [f"{d},{p:.17g},{v:.17g}" for d, p, v in zip(dates, price, volume)]
    (folder / f"T{ticker}.csv").write_text("\n".join(lines) + "\n")


def jumps(days, ticker):
    """From the least price that is allowed to the largest, and back."""
    return np.where(np.arange(days) % 7 == ticker, 1e12, 1e-8)


MARKETS = {
    "prices that never move": (lambda days, k: np.full(days, 10.0), lambda days, k: 1e6 + walk(days, k)),
    "nothing ever moves": (lambda days, k: np.full(days, 10.0), lambda days, k: np.full(days, 5.0)),
    "no volume": (walk, lambda days, k: np.zeros(days)),
    "prices of 1e-8": (lambda days, k: 1e-9 * walk(days, k), walk),
    "prices of 1e12": (lambda days, k: 1e10 * np.minimum(walk(days, k), 99), walk),
    "volumes of 1e18": (walk, lambda days, k: 1e16 * np.minimum(walk(days, k), 99)),
    "prices that jump": (jumps, walk),
}  # fmt: skip


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, float) else []


def check_everything(folder, tmp_path, last, **options):
    window = done("inspect", "--prices", folder, "--ticker", "T1", "--date", last, "--json")
    found = json.loads(window.stdout)
    assert all(None not in row for row in found["raw"] + found["scaled"])
    assert all(math.isfinite(number) for number in numbers(found))
    model = train(folder, tmp_path / "model.safetensors", **SMALL | options)
    page = tmp_path / "report.html"
    report = evaluate(folder, model, tmp_path / "report.json", "--html", page)
    assert all(math.isfinite(number) for number in numbers(report))
    assert report["verdict"]["kind"] == "no skill"
    table = done("evaluate", "--prices", folder, "--checkpoint", model).stdout
    for said in (page.read_text(), table):
        assert not re.search(r"\b(nan|inf)\b", said), re.findall(r".*\b(?:nan|inf)\b.*", said)
    said = done("predict", "--prices", folder, "--checkpoint", model, "--json")
    for one in json.loads(said.stdout):
        assert math.isfinite(one["prediction"])
        assert all(math.isfinite(x) for x in one["interval_80"] + one["interval_95"])


@pytest.mark.parametrize("name", MARKETS)
def test_extreme_market_gives_finite_numbers(name, tmp_path):
    if trainer()[0] is None:
        pytest.skip(f"nothing here can train: {trainer()[1]}")
    price, volume = MARKETS[name]
    folder = tmp_path / "market"
    folder.mkdir()
    dates = weekdays(150)
    for ticker in range(5):
        write(folder, ticker, dates, price(150, ticker), volume(150, ticker))
    check_everything(folder, tmp_path, dates[-2])


def test_hundred_years_give_finite_numbers(tmp_path):
    if trainer()[0] is None:
        pytest.skip(f"nothing here can train: {trainer()[1]}")
    folder = tmp_path / "market"
    folder.mkdir()
    days = 25500
    dates = weekdays(days, "1920-01-01")
    assert dates[-1] > np.datetime64("2017-01-01")
    for ticker in range(2):
        rng = np.random.default_rng(ticker)
        price = np.cumprod(1 + rng.normal(0.0002, 0.01, days))
        write(folder, ticker, dates, price, rng.integers(1, 10**6, days))
    check_everything(folder, tmp_path, dates[-2], batch=2048)


@pytest.mark.parametrize(
    "price, message",
    [(1e-10, "is too small for a price"), (1e13, "is too large for a price")],
)
def test_price_beyond_all_bounds_is_refused(price, message, tmp_path):
    dates, prices = weekdays(60), walk(60, 1)
    prices[30] = price
    write(tmp_path, 1, dates, prices, walk(60, 2))
    result = run("inspect", "--prices", tmp_path, "--ticker", "T1", "--date", dates[-2])
    assert result.returncode == 1
    assert message in result.stderr and "line 32" in result.stderr
