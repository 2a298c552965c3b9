#!/usr/bin/env python3
"""The service and a training under ThreadSanitizer (after ./dev build tsan).

    tests/reliability/threads.py [--seconds 60]

Clients ask for predictions, tickers and metrics while the model is reloaded again and again over
HTTP and by SIGHUP; then the service drains. A race reported by the sanitizer, an answer that is not
200 or a number that changes without the model changing is a finding. Leaves a row for
results/reliability.json.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
os.environ.setdefault("RP_BUILD", str(pathlib.Path(__file__).resolve().parents[2] / "build/tsan"))

import record  # noqa: E402
import training  # noqa: E402

CLIENTS = 4


class Load:
    """Clients of one service, and what they found wrong."""

    def __init__(self, port, token):
        self.port, self.token = port, token
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.requests = self.reloads = 0
        self.problems = []

    def ask(self, connection, method, path, body=None, headers={}):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        with self.lock:
            self.requests += 1
            if answer.status != 200:
                self.problems.append(f"{method} {path}: {answer.status} {content[:200]}")
        return content

    def client(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        predicted = set()
        while not self.ended.is_set():
            for ticker in ("SYN0001", "SYN0002"):
                answer = self.ask(connection, "POST", "/predict", json.dumps({"ticker": ticker}))
                predicted.add((ticker, json.loads(answer)["predicted_return"]))
            self.ask(connection, "GET", "/tickers")
            self.ask(connection, "GET", "/metrics")
        if len(predicted) != 2:
            self.problems.append(f"other numbers of the same model: {predicted}")

    def reload(self, process):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.ended.is_set():
            self.ask(connection, "POST", "/admin/reload", "", {"Authorization": f"Bearer {self.token}"})
            process.send_signal(signal.SIGHUP)
            self.reloads += 2
            time.sleep(0.05)

    def run(self, process, seconds):
        threads = [threading.Thread(target=self.client) for _ in range(CLIENTS)]
        threads.append(threading.Thread(target=self.reload, args=(process,)))
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.ended.set()
        for thread in threads:
            thread.join()


def serve(folder, seconds):
    """(load, what the service and the sanitizer said, exit status)"""
    token = "a-token-of-the-tests"
    (folder / "token").write_text(token)
    log = folder / "messages"
    with log.open("w") as messages:
        process = subprocess.Popen(
            [training.PROGRAM, "serve", "--checkpoint", folder / "model", "--prices", folder / "prices",
             "--port", "0", "--threads", "2", "--admin-token-file", folder / "token",
             "--access-log", folder / "access"],
            stdout=subprocess.DEVNULL, stderr=messages,
        )  # fmt: skip
        found, deadline = None, time.monotonic() + 120
        while not found and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)/", log.read_text())
        if not found:
            process.kill()
            sys.exit(f"serve did not start: {log.read_text()}")
        load = Load(int(found[1]), token)
        load.run(process, seconds)
        process.send_signal(signal.SIGTERM)
        status = process.wait(120)
    return load, log.read_text(), status


def campaign(folder, seconds):
    """(load, problems)"""
    training.make_prices(folder / "prices")
    command = training.command(folder / "prices", folder / "model", epochs=2)
    command[command.index("--threads") + 1] = "2"
    trained = subprocess.run(command, capture_output=True, text=True)
    problems = [trained.stderr] if trained.returncode else []
    load, said, status = serve(folder, seconds)
    problems += load.problems
    if "WARNING: ThreadSanitizer" in said:
        problems.append(said[said.index("WARNING: ThreadSanitizer") :][:4000])
    if status:
        problems.append(f"serve ended with {status}")
    return load, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--no-row", action="store_true", help="leave no row: a short check")
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        load, problems = campaign(pathlib.Path(folder), arguments.seconds)
    if not arguments.no_row:
        write_row(load, time.monotonic() - start, problems)
    print(f"{load.requests} requests, {load.reloads} reloads; problems:", *problems[:20] or ["none"], sep="\n")
    return 1 if problems else 0


def write_row(load, seconds, problems):
    record.write_row(
        "ThreadSanitizer", "serve under load and reload, train on two threads", load.requests,
        seconds, len(problems), reloads=load.reloads, problems=problems[:20],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
