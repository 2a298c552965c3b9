"""Features and labels of the program against TA-Lib, pandas and numpy."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pandas as pd
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build/default")) / "bin/return-predictor"
REAL = pathlib.Path(os.environ.get("RP_MARKET", ROOT.parent / "shared/market/sp500-50"))

talib = pytest.importorskip("talib", reason="TA-Lib is not installed")
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built")


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module", params=["synthetic", "real"])
def prices(request, tmp_path_factory):
    if request.param == "real":
        if not REAL.is_dir():
            pytest.skip(f"no real prices at {REAL} (set RP_MARKET)")
        return REAL
    folder = tmp_path_factory.mktemp("prices")
    result = run("synthesize", "--out", folder, "--tickers", 5, "--days", 700, "--seed", 3)
    assert result.returncode == 0, result.stderr
    return folder


def features(frame):
    """The definitions, by other people's code."""
    p, v = frame["adj_close"], frame["volume"].astype(float)
    returns = p / p.shift(1) - 1
    out = pd.DataFrame({"ret5": talib.ROCP(p.to_numpy(), 5)})
    out["vol20"] = [np.nan] * 20 + [
        np.std(returns.to_numpy()[t - 19 : t + 1], ddof=1) for t in range(20, len(p))
    ]
    out["rsi14"] = talib.RSI(p.to_numpy(), 14)
    window = v.rolling(20)
    out["volz20"] = (v - window.mean()) / window.std(ddof=1)
    out["label"] = p.shift(-1) / p - 1
    return out


def test_inspect_equals_talib_and_pandas(prices):
    frames = {path.stem: pd.read_csv(path) for path in sorted(prices.glob("*.csv"))}
    names = sorted(frames)
    expected = {name: features(frames[name]) for name in names}
    days = len(frames[names[0]])
    # Training windows end on the first 80 % of the days that end a window; their rows are scaled.
    train_ends = int(0.8 * (days - 40))
    rows = np.concatenate([expected[n].iloc[20 : 39 + train_ends, :4].to_numpy() for n in names])
    mean, sd = rows.mean(axis=0), rows.std(axis=0, ddof=1)
    for name, day in [(names[0], 39), (names[1], 300), (names[-1], days - 2), (names[2], days - 1)]:
        frame, want = frames[name], expected[name]
        result = run(
            "inspect", "--prices", prices, "--ticker", name, "--date", frame["date"][day], "--json"
        )
        assert result.returncode == 0, result.stderr
        got = json.loads(result.stdout)
        assert list(got) == ["ticker", "date", "dates", "raw", "scaled", "label", "label_date"]
        assert got["ticker"] == name and got["date"] == frame["date"][day]
        assert got["dates"] == list(frame["date"][day - 19 : day + 1])
        raw = want.iloc[day - 19 : day + 1, :4].to_numpy()
        np.testing.assert_allclose(np.array(got["raw"])[:, 2], raw[:, 2], rtol=1e-12, atol=0)
        np.testing.assert_allclose(got["raw"], raw, rtol=1e-10, atol=1e-12)
        scaled = np.clip((raw - mean) / sd, -5, 5)
        np.testing.assert_allclose(got["scaled"], scaled, rtol=1e-9, atol=1e-10)
        if day + 1 < days:
            assert got["label"] == want["label"][day]
            assert got["label_date"] == frame["date"][day + 1]
        else:
            assert got["label"] is None and got["label_date"] is None


def test_real_counts_are_printed():
    if not REAL.is_dir():
        pytest.skip(f"no real prices at {REAL} (set RP_MARKET)")
    result = run("inspect", "--prices", REAL, "--ticker", "AAPL", "--date", "2023-12-28")
    assert result.returncode == 0
    assert result.stderr == (
        "50 tickers, 2,495 labelled rows each, 124,750 labelled rows in all; "
        "123,800 windows: 99,000 train, 24,800 test\n"
    )
    assert "label: -0.005424, the return on 2023-12-29" in result.stdout


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["--ticker", "NONE", "--date", "2014-06-02"], 1, "'NONE' is not among the 5 tickers"),
        (["--ticker", "SYN0001", "--date", "yesterday"], 1, "'yesterday' is not a date"),
        (["--ticker", "SYN0001", "--date", "2014-06-01"], 1, "no window of SYN0001 ends on"),
        (
            ["--ticker", "SYN0001", "--date", "2014-01-03"],
            1,
            "windows end on its trading days from",
        ),
        (["--ticker", "SYN0001"], 2, "--date YYYY-MM-DD is required"),
        (["--ticker", "SYN0001", "--date", "2014-06-02", "--csv"], 2, "unknown option --csv"),
    ],
)
def test_inspect_mistakes_are_named(tmp_path, arguments, status, message):
    run("synthesize", "--out", tmp_path, "--tickers", 5, "--days", 200)
    result = run("inspect", "--prices", tmp_path, *arguments)
    assert result.returncode == status
    assert message in result.stderr
    assert result.stdout == ""


def test_synthesize_keeps_other_price_files_and_replaces_its_own(tmp_path):
    assert run("synthesize", "--out", tmp_path, "--tickers", 3, "--days", 50).returncode == 0
    first = (tmp_path / "SYN0003.csv").read_bytes()
    assert run("synthesize", "--out", tmp_path, "--tickers", 3, "--days", 50).returncode == 0
    assert (tmp_path / "SYN0003.csv").read_bytes() == first
    result = run("synthesize", "--out", tmp_path, "--tickers", 2, "--days", 50)
    assert result.returncode == 1 and "SYN0003.csv; choose an empty folder" in result.stderr
    (tmp_path / "AAPL.csv").write_text("x")
    result = run("synthesize", "--out", tmp_path, "--tickers", 3, "--days", 50)
    assert result.returncode == 1 and "AAPL.csv" in result.stderr
    assert run("synthesize", "--out", tmp_path / "AAPL.csv").returncode == 1
    assert run("synthesize", "--out", tmp_path, "--days", 40).returncode == 2
    assert run("synthesize", "--out", tmp_path, "--signal", "1").returncode == 2


def test_messy_folder_is_read_like_a_clean_one(tmp_path):
    """One market in the canonical form, and the same in six shapes that people have."""
    clean, messy = tmp_path / "clean", tmp_path / "messy"
    assert run("synthesize", "--out", clean, "--tickers", 6, "--days", 120).returncode == 0
    messy.mkdir()
    frames = [pd.read_csv(path, dtype=str) for path in sorted(clean.glob("*.csv"))]
    for frame in frames:
        frame["close"] = frame["adj_close"]  # the shapes below have one close, adjusted
    us = frames[0].iloc[::-1]
    with open(messy / "SYN0001.csv", "w") as file:
        file.write("Date,Close/Last,Volume\n")
        for row in us.itertuples():
            day = pd.Timestamp(row.date).strftime("%m/%d/%Y")
            file.write(f'{day},${row.close},"{int(row.volume):,}"\n')
    two = frames[1][["date", "close", "volume"]]
    text = "Price,Close,Volume\nTicker,SYN0002,SYN0002\nDate,,\n" + two.to_csv(
        index=False, header=False
    )
    (messy / "download.csv").write_text(text)
    three = frames[2].rename(columns={"adj_close": "Adj Close"})
    (messy / "SYN0003.csv").write_bytes(
        b"\xef\xbb\xbf" + three.to_csv(index=False, lineterminator="\r\n").encode()
    )
    four = frames[3]
    stooq = pd.DataFrame(
        {
            "<TICKER>": "SYN0004",
            "<PER>": "D",
            "<DATE>": four["date"].str.replace("-", ""),
            "<TIME>": "000000",
            "<CLOSE>": four["close"],
            "<VOL>": four["volume"],
        }
    )
    stooq.to_csv(messy / "syn0004.us.txt", index=False)
    long = pd.concat([f.assign(Symbol=f"SYN000{i}") for i, f in ((5, frames[4]), (6, frames[5]))])
    long.sort_values(["date", "Symbol"]).to_csv(messy / "long.csv.gz", index=False)
    for name in [f"SYN000{i}" for i in range(1, 7)]:
        windows = []
        for folder in clean, messy:
            result = run(
                "inspect", "--prices", folder, "--ticker", name, "--date", "2014-05-01", "--json"
            )
            assert result.returncode == 0, result.stderr
            windows.append(result.stdout)
        assert windows[0] == windows[1]
    explained = run(
        "inspect", "--prices", messy, "--ticker", "SYN0001", "--date", "2014-05-01", "--explain"
    )
    for words in (
        "newest first",
        "MM/DD/YYYY",
        "3 header lines",
        "byte-order mark",
        "YYYYMMDD",
        "2 tickers in a column",
    ):
        assert words in explained.stderr
