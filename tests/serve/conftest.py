"""The real program on a small synthetic market: two checkpoints, and a service to talk to."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("RP_BUILD", ROOT / "build/default")) / "bin/return-predictor"


def run(*arguments):
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=600
    )


class Answer:
    """Status, headers and body of one response."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Service:
    """A running service; a context manager that makes sure it ends cleanly."""

    def __init__(self, checkpoint, prices, *options, stdout=None):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--checkpoint", checkpoint, "--prices", prices, "--port", "0"]
            + [str(option) for option in options],
            stdout=stdout or self.log,  # a pipe would fill up
            stderr=subprocess.PIPE,
        )
        self.events = []
        while True:
            line = self.process.stderr.readline()
            if not line:
                raise RuntimeError(f"serve did not start: {self.events} {self.process.wait()}")
            self.events.append(line.decode())
            found = re.search(r"listening on (http://127\.0\.0\.1:(\d+))/", line.decode())
            if found:
                self.url, self.port = found[1], int(found[2])
                return

    def request(self, path, body=None, headers={}, method=None):
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as answer:
            return Answer(answer.code, answer.headers, answer.read())

    def get(self, path, **headers):
        return self.request(path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path, value, headers={}):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.request(path, body, {"Content-Type": "application/json", **headers})

    def raw(self, data, timeout=5):
        """Everything the service says to these bytes until it closes or is silent."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.settimeout(timeout)
            connection.sendall(data)
            received = b""
            try:
                while chunk := connection.recv(65536):
                    received += chunk
                    connection.settimeout(0.5)
            except (TimeoutError, ConnectionResetError):
                pass
            return received

    def stop(self, timeout=20):
        """Exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=timeout)
        self.log.seek(0)
        self.out = self.log.read()
        self.events += err.decode().splitlines()
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise


@pytest.fixture(scope="session")
def start():
    """start(checkpoint, prices, options...) -> Service"""
    return Service


@pytest.fixture(scope="session")
def program():
    """program(arguments...) -> what the command said"""
    return run


@pytest.fixture(scope="session")
def prices(tmp_path_factory):
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built")
    if "no HTTP service" in run("serve").stderr:
        pytest.skip("serve was left out of this build (libmicrohttpd or jansson missing)")
    folder = tmp_path_factory.mktemp("prices")
    result = run("synthesize", "--out", folder, "--tickers", 6, "--days", 260)
    assert result.returncode == 0, result.stderr
    return folder


def train(prices, path, seed):
    # Without libtorch, so that a sanitizer's build can do it too.
    options = ("--configuration", "cpu-fused", "--epochs", 1, "--batch", 64, "--threads", 1,
               "--seed", seed, "--quiet")  # fmt: skip
    result = run("train", "--prices", prices, "--checkpoint", path, *options)
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="session")
def checkpoints(prices, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return [train(prices, folder / f"{seed}.safetensors", seed) for seed in (1, 2)]


@pytest.fixture(scope="session")
def service(checkpoints, prices):
    with Service(checkpoints[0], prices) as running:
        yield running


def predict(prices, checkpoint, *more):
    result = run("predict", "--prices", prices, "--checkpoint", checkpoint, "--json", *more)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def latest(checkpoints, prices):
    """What the command `predict` says of every ticker's latest day."""
    return predict(prices, checkpoints[0])


@pytest.fixture(scope="session")
def window(latest, checkpoints, prices):
    """A day whose outcome is known: its features as `inspect` shows them, and its prediction."""
    ticker = latest[0]["ticker"]
    dates = (prices / f"{ticker}.csv").read_text().split("\n")[1:]
    date = dates[120].split(",")[0]
    result = run("inspect", "--prices", prices, "--ticker", ticker, "--date", date, "--json")
    assert result.returncode == 0, result.stderr
    (row,) = predict(prices, checkpoints[0], "--ticker", ticker, "--date", date)
    assert row["date"] == date
    return json.loads(result.stdout), row
