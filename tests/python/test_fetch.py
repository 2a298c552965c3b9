"""fetch against a server on this machine that answers as Yahoo Finance does, well and badly."""

import datetime
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest

pytest.importorskip("yfinance", reason="yfinance is not installed")

ROOT = pathlib.Path(__file__).resolve().parents[2]
DAYS = [datetime.date(2020, 1, 2) + datetime.timedelta(days=d) for d in (0, 1, 4, 5, 6)]


def chart(ticker, empty_day=None):
    """Yahoo's answer: /v8/finance/chart/TICKER."""
    opened = datetime.timedelta(hours=14, minutes=30)  # 9:30 in New York
    stamps = [
        int(
            (
                datetime.datetime.combine(d, datetime.time(), datetime.timezone.utc) + opened
            ).timestamp()
        )
        for d in DAYS
    ]
    values = [None if i == empty_day else 10.0 + i for i in range(len(DAYS))]
    quote = {name: values for name in ("open", "high", "low", "close")}
    quote["volume"] = [None if v is None else 1000 * (i + 1) for i, v in enumerate(values)]
    meta = {
        "symbol": ticker,
        "currency": "USD",
        "instrumentType": "EQUITY",
        "exchangeTimezoneName": "America/New_York",
        "timezone": "EST",
        "gmtoffset": -18000,
        "exchangeName": "NMS",
        "firstTradeDate": stamps[0],
        "regularMarketTime": stamps[-1],
        "dataGranularity": "1d",
        "range": "",
        "priceHint": 2,
        "validRanges": ["1d", "max"],
        "hasPrePostMarketData": True,
        "currentTradingPeriod": {
            k: {"timezone": "EST", "start": stamps[-1], "end": stamps[-1] + 1, "gmtoffset": -18000}
            for k in ("pre", "regular", "post")
        },
    }
    adjusted = [None if v is None else v / 2 for v in values]
    result = {
        "meta": meta,
        "timestamp": stamps,
        "indicators": {"quote": [quote], "adjclose": [{"adjclose": adjusted}]},
    }
    return json.dumps({"chart": {"result": [result], "error": None}}).encode()


UNKNOWN = json.dumps(
    {"chart": {"result": None, "error": {"code": "Not Found", "description": "No data found"}}}
).encode()
CSV = b'Date,Close/Last,Volume\n01/03/2020,$11.00,"2,000"\n01/02/2020,$10.00,"1,000"\n'
TABLES = {
    "EUROPE": b'date,close,volume\n2020-01-02,"10,51",1000\n',
    "WORD": b"date,close,volume\n2020-01-02,ten,1000\n",
    "DAYFIRST": b"date,close,volume\n13/01/2020,10,1000\n",
    "SEMICOLON": b"date;close;volume\n2020-01-02;10;1000\n",
    "TWICE": b"date,close,volume\n2020-01-02,10,1000\n2020-01-02,10,1000\n",
    "MINUS": b"date,close,volume\n2020-01-02,-10,1000\n",
    "CUTLINE": b"date,close,volume\n2020-01-02,10,1000\n2020-01-03,11,20",
}


class Provider(http.server.BaseHTTPRequestHandler):
    """Answers by the ticker's name; BAD names fail `failures` times, then work."""

    failures = 0
    asked = []
    slow = None  # its answer never comes

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        ticker = path.rsplit("/", 1)[-1]
        if "/chart/" not in path and "/csv/" not in path:
            return self.answer(200, b"crumb", "text/plain")
        self.asked.append(ticker)
        if ticker == self.slow:
            return time.sleep(5)
        if ticker == "NONE":
            return self.answer(404, UNKNOWN)
        if self.failures > 0 and ticker.startswith("BAD"):
            Provider.failures -= 1
            return self.fail(ticker)
        if "/csv/" in path:
            return self.answer(200, TABLES.get(ticker, CSV), "text/csv")
        self.answer(200, chart(ticker, 2 if ticker == "HOLE" else None))

    def fail(self, ticker):
        if ticker == "BAD429":
            return self.answer(429, b"Too Many Requests\r\n", "text/plain", {"Retry-After": "0"})
        if ticker == "BAD500":
            return self.answer(500, b"oops", "text/plain")
        if ticker == "BADHTML":
            return self.answer(200, b"<html>we will be back</html>", "text/html")
        if ticker == "BADEMPTY":
            return self.answer(200, b"")
        if ticker == "BADSHORT":  # promises more than it sends
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(chart("BADSHORT")[:300])
            self.close_connection = True
            return None
        return self.answer(200, chart(ticker)[:300])  # BADCUT

    def answer(self, status, body, kind="application/json", headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(autouse=True)
def forget():
    Provider.failures, Provider.asked = 0, []


def start_fetch(address, out, *arguments, end="2020-01-08"):
    environment = {**os.environ, "RP_YAHOO_URL": address, "PYTHONPATH": str(ROOT / "python")}
    command = [
        sys.executable,
        "-m",
        "return_predictor.fetch",
        *arguments,
        "--out",
        str(out),
        "--start",
        "2020-01-02",
        "--end",
        end,
        "--pause",
        "0.01",
        "--most-wait",
        "0.05",
    ]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, env=environment, **pipes)


def fetch(address, out, *arguments, **options):
    process = start_fetch(address, out, *arguments, **options)
    output, messages = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, messages)


EXPECTED = "date,open,high,low,close,adj_close,volume\n" + "".join(
    f"{d},{10.0 + i},{10.0 + i},{10.0 + i},{10.0 + i},{(10.0 + i) / 2},{1000 * (i + 1)}\n"
    for i, d in enumerate(DAYS)
)


def test_prices_are_written_in_the_canonical_format(address, tmp_path):
    result = fetch(address, tmp_path, "AAPL", "MSFT")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "AAPL.csv").read_text() == EXPECTED
    assert (tmp_path / "MSFT.csv").read_text() == EXPECTED
    assert "under its terms" in result.stdout


def test_empty_days_are_left_out_and_counted(address, tmp_path):
    result = fetch(address, tmp_path, "HOLE")
    assert result.returncode == 0, result.stderr
    whole = [line for line in EXPECTED.splitlines() if not line.startswith(str(DAYS[2]))]
    assert (tmp_path / "HOLE.csv").read_text().splitlines() == whole
    assert "1 empty days left out" in result.stderr


@pytest.mark.parametrize(
    "ticker", ["BAD429", "BAD500", "BADHTML", "BADEMPTY", "BADCUT", "BADSHORT"]
)
def test_passing_failure_is_tried_again(address, tmp_path, ticker):
    Provider.failures = 2
    result = fetch(address, tmp_path, ticker)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / f"{ticker}.csv").read_text() == EXPECTED


def test_lasting_failure_fails_alone_and_is_named(address, tmp_path):
    Provider.failures = 10**6
    result = fetch(address, tmp_path, "AAPL", "BADHTML", "NONE", "MSFT", "--attempts", "2")
    assert result.returncode == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".fetch.json", "AAPL.csv", "MSFT.csv"]
    assert "fetch: BADHTML: " in result.stderr and "fetch: NONE: " in result.stderr
    assert "2 of 4 tickers" in result.stdout


def test_second_run_continues_and_another_range_is_fetched_again(address, tmp_path):
    Provider.failures = 10**6
    assert fetch(address, tmp_path, "AAPL", "BADHTML", "--attempts", "1").returncode == 1
    Provider.failures, Provider.asked = 0, []
    result = fetch(address, tmp_path, "AAPL", "BADHTML")
    assert result.returncode == 0 and "AAPL: already there" in result.stderr
    assert "AAPL" not in Provider.asked
    assert fetch(address, tmp_path, "AAPL", end="2020-01-07").returncode == 0
    assert "AAPL" in Provider.asked
    assert len((tmp_path / "AAPL.csv").read_text().splitlines()) < len(EXPECTED.splitlines())


def test_csv_url_is_brought_into_the_canonical_format(address, tmp_path):
    Provider.failures = 1
    template = address + "/csv/{ticker}?from={start}&to={end}"
    result = fetch(address, tmp_path, "BAD500", "--source", "csv-url", template)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "BAD500.csv").read_text() == (
        "date,close,adj_close,volume\n2020-01-02,10.0,10.0,1000\n2020-01-03,11.0,11.0,2000\n"
    )
    result = fetch(address, tmp_path, "NONE", "--source", "csv-url", template)
    assert result.returncode == 1 and "404" in result.stderr


@pytest.mark.parametrize("ticker", ["BAD429", "BAD500", "BADHTML", "BADEMPTY", "BADSHORT"])
def test_passing_failure_of_a_csv_url_is_tried_again(address, tmp_path, ticker):
    Provider.failures = 2
    result = fetch(address, tmp_path, ticker, "--source", "csv-url", address + "/csv/{ticker}")
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / f"{ticker}.csv").read_text().splitlines()) == 3
    assert Provider.asked.count(ticker) == 3


@pytest.mark.parametrize(
    "ticker, message",
    [
        ("EUROPE", "on 2020-01-02 the close is '10,51', not a number"),
        ("WORD", "on 2020-01-02 the close is 'ten', not a number"),
        ("DAYFIRST", "13/01/2020"),
        ("SEMICOLON", "no columns date, close and volume"),
        ("TWICE", "2020-01-02 is there twice"),
        ("MINUS", "a price that is not positive on 2020-01-02"),
    ],
)
def test_csv_that_can_not_be_read_for_certain_is_refused(address, tmp_path, ticker, message):
    arguments = ("--source", "csv-url", address + "/csv/{ticker}", "--attempts", "1")
    result = fetch(address, tmp_path, ticker, *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert not list(tmp_path.glob("*.csv"))


def test_csv_whose_last_line_may_be_cut_is_warned_of(address, tmp_path):
    result = fetch(address, tmp_path, "CUTLINE", "--source", "csv-url", address + "/csv/{ticker}")
    assert result.returncode == 0, result.stderr
    assert "the last line has no line end" in result.stderr


def test_interrupted_fetch_leaves_whole_files_and_continues(address, tmp_path):
    Provider.slow = "SLOW"
    process = start_fetch(address, tmp_path, "AAPL", "SLOW", "MSFT")
    deadline = time.monotonic() + 60
    while "SLOW" not in Provider.asked and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    Provider.slow = None
    assert sorted(p.name for p in tmp_path.iterdir()) == [".fetch.json", "AAPL.csv"]
    assert (tmp_path / "AAPL.csv").read_text() == EXPECTED
    Provider.asked.clear()
    result = fetch(address, tmp_path, "AAPL", "SLOW", "MSFT")
    assert result.returncode == 0, result.stderr
    assert "AAPL" not in Provider.asked
    assert all((tmp_path / f"{t}.csv").read_text() == EXPECTED for t in ("AAPL", "SLOW", "MSFT"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["../x"], "'../x' is not a ticker"),
        (["A", "--source", "csv-url"], "csv-url and an address"),
        (["A", "--source", "csv-url", "http://x/"], "no {ticker} in it"),
        (["A", "--start", "2020-13-01"], "is not a date"),
        (["A", "--start", "2021-01-01"], "is after --end"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, message):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    command = [sys.executable, "-m", "return_predictor.fetch", *arguments, "--end", "2020-02-01"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode != 0
    assert message in result.stderr
    assert not list(tmp_path.iterdir())
