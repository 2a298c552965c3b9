"""Downloads daily prices into price files that the program reads.

    ./dev fetch                               the 50 companies of the published figures
    ./dev fetch AAPL MSFT --start 2014-01-01 --end 2024-01-01 --out prices
    ./dev fetch AAPL --source csv-url 'https://example.org/{ticker}.csv?from={start}&to={end}'

Yahoo Finance (the default) is asked through yfinance; its data are for personal use, by its terms.
A ticker that fails is tried again with growing pauses, then fails alone; a second run continues
where the first stopped, because a file is written whole or not at all and a list beside them
(.fetch.json) says what each one holds. Needs yfinance, which ./dev fetch installs.
"""

from __future__ import annotations

import argparse
import datetime
import email.utils
import io
import json
import os
import re
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

SP500_50 = """
AAPL ABT ADBE AMGN AMT AMZN AXP BA BAC CAT CMCSA COST CSCO CVX DIS FCX GE GOOGL GS HD HON IBM INTC
JNJ JPM KO LLY LOW MA MCD META MRK MSFT NEE NKE NVDA ORCL PEP PFE PG SBUX T TXN UNH UNP V VZ WFC
WMT XOM
""".split()
COLUMNS = ["date", "open", "high", "low", "close", "adj_close", "volume"]


class Refused(Exception):
    """The provider's answer is final: asking again would not help."""


class Failed(Exception):
    """The provider failed for now. `wait`: seconds that it asked to be left alone, if it did."""

    def __init__(self, message, wait=None):
        super().__init__(message)
        self.wait = wait


def checked(frame, ticker):
    """Rows in date order, without days that the provider left empty; how many those were."""
    import pandas as pd

    frame = frame[[c for c in COLUMNS if c in frame.columns]]
    numbers = frame.columns[1:]
    values = {c: pd.to_numeric(frame[c], errors="coerce") for c in numbers}
    for column in numbers:
        bad = frame[values[column].isna() & frame[column].notna()]
        if not bad.empty:
            day, value = bad[["date", column]].iloc[0]
            raise Refused(f"{ticker}: on {day} the {column} is '{value}', not a number")
    frame = frame.assign(**values)
    whole = frame.dropna()
    if whole.empty:
        raise Failed("the answer has no rows")
    whole = whole.sort_values("date")
    if whole["date"].duplicated().any():
        raise Failed(f"the day {whole['date'][whole['date'].duplicated()].iloc[0]} is there twice")
    prices = whole[[c for c in numbers if c != "volume"]]
    if (prices <= 0).to_numpy().any() or (whole["volume"] < 0).any():
        day = whole["date"][(prices <= 0).any(axis=1) | (whole["volume"] < 0)].iloc[0]
        raise Refused(f"{ticker} has a price that is not positive on {day}")
    if (whole["volume"] % 1 == 0).all():
        whole = whole.astype({"volume": "int64"})
    return whole, len(frame) - len(whole)


class Yahoo:
    """yfinance. RP_YAHOO_URL sends its requests elsewhere: to a mirror, or to a test's server."""

    name = "yahoo"

    def __init__(self):
        try:
            import yfinance
            from yfinance import exceptions
            from yfinance.config import YfConfig
        except ImportError as error:
            sys.exit(f"fetch needs yfinance: pip install yfinance ({error})")
        self.yfinance, self.exceptions = yfinance, exceptions
        YfConfig.debug.hide_exceptions = False
        # Time zones and cookies are asked for anew: an old cookie is a frequent reason for a 401.
        self.cache = tempfile.TemporaryDirectory(prefix="return-predictor-fetch-")
        yfinance.set_tz_cache_location(self.cache.name)
        elsewhere = os.environ.get("RP_YAHOO_URL")
        self.session = redirected_session(elsewhere) if elsewhere else None

    def fetch(self, ticker, start, end):
        self.yfinance.data.YfData.cache_get.cache_clear()  # it keeps bad answers too
        try:
            source = self.yfinance.Ticker(ticker, session=self.session)
            frame = source.history(
                start=start.isoformat(),
                end=(end + datetime.timedelta(days=1)).isoformat(),
                auto_adjust=False,
                actions=False,
                keepna=True,
            )
        except self.exceptions.YFTickerMissingError as error:
            raise Refused(f"{error}") from error
        except self.exceptions.YFRateLimitError as error:
            raise Failed("too many requests (429)", wait=30) from error
        except Exception as error:  # yfinance passes on what its parsers and libraries raise
            raise Failed(f"{type(error).__name__}: {str(error)[:200]}") from error
        frame = frame.reset_index().rename(columns=lambda c: c.lower().replace(" ", "_"))
        if "date" not in frame or "adj_close" not in frame:
            raise Failed("the answer has no rows")
        frame["date"] = frame["date"].dt.strftime("%Y-%m-%d")
        return frame


def redirected_session(base):
    from curl_cffi import requests

    class Session(requests.Session):
        def request(self, method, url, *arguments, **options):
            parts = urllib.parse.urlsplit(url)
            if parts.netloc.endswith("yahoo.com"):
                url = base + parts.path + (f"?{parts.query}" if parts.query else "")
            return super().request(method, url, *arguments, **options)

    return Session()


class CsvUrl:
    """One CSV file a ticker from an address with {ticker}, {start} and {end} in it."""

    name = "csv-url"

    def __init__(self, template):
        if "{ticker}" not in template:
            sys.exit(f"fetch: --source csv-url: the address has no {{ticker}} in it: {template}")
        self.template = template
        self.name = f"csv-url {template}"

    def fetch(self, ticker, start, end):
        address = self.template.format(ticker=urllib.parse.quote(ticker), start=start, end=end)
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            if error.code in (400, 401, 403, 404, 410):
                raise Refused(f"{address}: {error.code} {error.reason}") from error
            wait = error.headers.get("Retry-After")
            raise Failed(f"{address}: {error.code} {error.reason}", wait_seconds(wait)) from error
        except (OSError, ValueError, urllib.error.URLError) as error:
            raise Failed(f"{address}: {error}") from error
        except Exception as error:  # http.client.IncompleteRead and its like
            raise Failed(f"{address}: {type(error).__name__}: {error}") from error
        if content and not content.endswith(b"\n"):
            print(f"\n{ticker}: the last line has no line end; was it cut?", file=sys.stderr)
        return self.table(content, address, start, end)

    def table(self, content, address, start, end):
        import pandas as pd

        if content.lstrip()[:1] in (b"<", b"{", b""):
            raise Failed(f"{address}: not a CSV file: {content[:40]!r}")
        try:
            frame = pd.read_csv(io.BytesIO(content), dtype=str, skipinitialspace=True)
        except (ValueError, UnicodeDecodeError) as error:
            raise Failed(f"{address}: {error}") from error
        names = {
            "closelast": "close",
            "adjclose": "adj_close",
            "adjustedclose": "adj_close",
            "vol": "volume",
        }
        plain = ["".join(ch for ch in c.lower() if ch.isalpha()) for c in frame.columns]
        frame.columns = [names.get(c, c) for c in plain]
        if not {"date", "close", "volume"} <= set(frame.columns):
            raise Refused(f"{address}: no columns date, close and volume, but {list(frame)}")
        for column in [c for c in COLUMNS[1:] if c in frame.columns]:
            frame[column] = frame[column].str.replace(DOLLARS, plain_number, regex=True)
        days = frame["date"].str.contains("/").fillna(False)
        form = "%m/%d/%Y" if days.any() else "%Y%m%d" if frame["date"].str.isdigit().all() else None
        try:
            dates = pd.to_datetime(frame["date"].str.slice(0, 10), format=form or "%Y-%m-%d")
        except ValueError as error:
            raise Refused(f"{address}: {error}") from error
        frame["date"] = dates.dt.strftime("%Y-%m-%d")
        if "adj_close" not in frame.columns:
            frame["adj_close"] = frame["close"]
        return frame[(frame["date"] >= str(start)) & (frame["date"] <= str(end))]


# Commas separate thousands; elsewhere (10,51) they are decimal points, which is not guessed.
DOLLARS = re.compile(r"^(-?)\$?(\d{1,3}(?:,\d{3})+|\d+)(\.\d*)?$")


def plain_number(found):
    sign, whole, decimals = found.groups()
    return sign + whole.replace(",", "") + (decimals or "")


def wait_seconds(retry_after):
    """Of a Retry-After header: seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        until = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (until - datetime.datetime.now(until.tzinfo)).total_seconds())


def write_atomically(path, text):
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Ledger:
    """.fetch.json: what each file in the folder holds, so that a second run can skip it."""

    def __init__(self, folder):
        self.path = folder / ".fetch.json"
        self.entries = {}
        if self.path.exists():
            try:
                self.entries = json.loads(self.path.read_text())
            except ValueError:
                print(f"{self.path}: damaged; everything is fetched again", file=sys.stderr)

    def holds(self, file, wanted):
        return file.exists() and self.entries.get(file.name) == wanted

    def add(self, file, wanted):
        self.entries[file.name] = wanted
        write_atomically(self.path, json.dumps(self.entries, indent=1, sort_keys=True) + "\n")


class Progress:
    """One line that is redrawn on a terminal, one line a ticker otherwise."""

    def __init__(self, total):
        self.total, self.done, self.terminal = total, 0, sys.stderr.isatty()

    def step(self, text):
        self.done += 1
        if self.terminal:
            filled = 30 * self.done // self.total
            bar = "#" * filled + "." * (30 - filled)
            print(f"\r[{bar}] {self.done}/{self.total} {text:<40.40}", end="", file=sys.stderr)
            if self.done == self.total:
                print(file=sys.stderr)
        else:
            print(f"{self.done}/{self.total} {text}", file=sys.stderr)


def fetch_ticker(source, ticker, file, arguments):
    """Fetches, checks and writes one ticker, with retries; returns what happened in words."""
    pause = arguments.pause
    for attempt in range(1, arguments.attempts + 1):
        try:
            frame, empty = checked(source.fetch(ticker, arguments.start, arguments.end), ticker)
            break
        except Failed as error:
            if attempt == arguments.attempts:
                raise
            wait = pause if error.wait is None else min(max(pause, error.wait), arguments.most_wait)
            print(f"\n{ticker}: {error}; again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)
            pause = min(2 * pause, arguments.most_wait)
    write_atomically(file, frame.to_csv(index=False))
    note = f", {empty} empty days left out" if empty else ""
    return f"{ticker}: {len(frame)} days, {frame['date'].iloc[0]} to {frame['date'].iloc[-1]}{note}"


def day(text):
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a date as YYYY-MM-DD") from None


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tickers", nargs="*", help="names, or sp500-50 (the default)")
    parser.add_argument("--start", type=day, default=datetime.date(2014, 1, 1), metavar="DAY")
    parser.add_argument("--end", type=day, default=datetime.date.today(), metavar="DAY")
    parser.add_argument("--out", type=Path, default=Path("prices"), metavar="DIR")
    parser.add_argument(
        "--source",
        nargs="+",
        default=["yahoo"],
        metavar=("NAME", "TEMPLATE"),
        help="yahoo, or csv-url and an address",
    )
    parser.add_argument("--attempts", type=int, default=5, help="for each ticker (default 5)")
    parser.add_argument(
        "--pause",
        type=float,
        default=2,
        metavar="S",
        help="before the second attempt; doubled each time (default 2)",
    )
    parser.add_argument(
        "--most-wait",
        type=float,
        default=120,
        metavar="S",
        help="longest pause, whatever the provider asks for (default 120)",
    )
    parser.add_argument("--again", action="store_true", help="fetch what is there already too")
    arguments = parser.parse_args(argv)
    takes = {"yahoo": 1, "csv-url": 2}.get(arguments.source[0])
    if takes is None or len(arguments.source) < takes:
        parser.error("--source is yahoo, or csv-url and an address with {ticker} in it")
    arguments.tickers += arguments.source[takes:]  # `--source yahoo AAPL`
    arguments.source = arguments.source[:takes]
    names = []
    for ticker in arguments.tickers or ["sp500-50"]:
        names += SP500_50 if ticker == "sp500-50" else [ticker]
    arguments.tickers = list(dict.fromkeys(names))
    for ticker in arguments.tickers:
        if not ticker or ticker.startswith(".") or "/" in ticker or len(ticker) > 31:
            parser.error(f"'{ticker}' is not a ticker")
    if arguments.start > arguments.end:
        parser.error(f"--start {arguments.start} is after --end {arguments.end}")
    if arguments.attempts < 1 or arguments.pause < 0:
        parser.error("--attempts is at least 1 and --pause not negative")
    return arguments


def main(argv=None):
    arguments = parse(argv)
    source = CsvUrl(arguments.source[1]) if arguments.source[0] == "csv-url" else Yahoo()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"fetch: {arguments.out}: {error.strerror}")
    ledger, progress, failed = Ledger(arguments.out), Progress(len(arguments.tickers)), {}
    wanted = {"source": source.name, "start": str(arguments.start), "end": str(arguments.end)}
    for ticker in arguments.tickers:
        file = arguments.out / f"{ticker}.csv"
        if ledger.holds(file, wanted) and not arguments.again:
            progress.step(f"{ticker}: already there")
            continue
        try:
            said = fetch_ticker(source, ticker, file, arguments)
            ledger.add(file, wanted)
        except (Refused, Failed) as error:
            failed[ticker] = error
            said = f"{ticker}: failed"
        except OSError as error:
            sys.exit(f"\nfetch: {file}: can't be written: {error.strerror}")
        except KeyboardInterrupt:
            sys.exit("\nfetch: interrupted; the same command continues")
        progress.step(said)
    for ticker, error in failed.items():
        print(f"fetch: {ticker}: {error}", file=sys.stderr)
    print(
        f"{len(arguments.tickers) - len(failed)} of {len(arguments.tickers)} tickers are in "
        f"{arguments.out}; the prices are their provider's, under its terms"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
