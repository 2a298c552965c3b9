"""The service under stress: 1,000 connections, slow and half-closed clients, reload under load,
kill -9 and restart, bounded memory over many requests. No wrong answer, ever.

    tests/serve/stress.py --checkpoint FILE --prices DIR [--requests 10000000] [--out FILE]

RP_BUILD chooses the build. Needs wrk. Each part is a row of --out, a JSON line: what, target,
executions, seconds, found (the number of wrong answers and broken promises). Exit 1 if any.
"""

import argparse
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import conftest

GROWTH_MOST = 16 << 20  # bytes of resident memory after the first tenth of the requests
P99_MOST_MS = 50  # of the requests after all else; generous, for machines that do other things


class Client:
    """One keep-alive connection that asks for one ticker's latest day."""

    def __init__(self, port, ticker):
        body = json.dumps({"ticker": ticker}).encode()
        self.bytes = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.bytes += body
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)

    def receive(self):
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.more()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        while len(body) < length:
            body += self.more()
        return json.loads(body)

    def more(self):
        chunk = self.socket.recv(65536)
        if not chunk:
            raise ConnectionError("closed in the middle of an answer")
        return chunk

    def ask(self):
        self.socket.sendall(self.bytes)
        return self.receive()


def value(answer):
    return answer.get("model_version"), answer.get("predicted_return")


def resident(service):
    status = pathlib.Path(f"/proc/{service.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


class Stress:
    def __init__(self, options):
        self.options, self.rows = options, []
        self.start()
        names = self.service.get("/tickers").json()["tickers"]
        self.tickers = [t["ticker"] if isinstance(t, dict) else t for t in names]
        self.expected = {t: value(Client(self.port, t).ask()) for t in self.tickers}

    def start(self):
        self.service = conftest.Service(
            self.options.checkpoint, self.options.prices, "--access-log", "off",
            "--max-connections", 1200, "--max-connections-per-ip", 1200, "--request-timeout", 5,
        )  # fmt: skip
        self.port = self.service.port

    def row(self, what, executions, began, found, **more):
        seconds = round(time.monotonic() - began, 2)
        self.rows.append({"what": what, "target": "serve", "executions": executions,
                          "seconds": seconds, "found": found, **more})  # fmt: skip
        print(json.dumps(self.rows[-1]), flush=True)

    def ticker(self, i):
        return self.tickers[i % len(self.tickers)]

    def thousand_connections(self):
        began, found = time.monotonic(), 0
        clients = [Client(self.port, self.ticker(i)) for i in range(1000)]
        for _ in range(5):
            for client in clients:
                client.socket.sendall(client.bytes)
            for i, client in enumerate(clients):
                found += value(client.receive()) != self.expected[self.ticker(i)]
        for client in clients:
            client.socket.close()
        self.row("1,000 connections at once", 5000, began, found)

    def slow_and_half_closed(self):
        began, found = time.monotonic(), 0
        slow = [Client(self.port, self.ticker(i)) for i in range(50)]
        for round_ in range(30):
            for client in slow:
                client.socket.sendall(client.bytes[round_ : round_ + 1])
            half = Client(self.port, self.ticker(round_))
            half.socket.sendall(half.bytes)
            half.socket.shutdown(socket.SHUT_WR)
            found += value(half.receive()) != self.expected[self.ticker(round_)]
            time.sleep(0.05)
        for client in slow:  # they are cut off after --request-timeout, with an answer
            found += "error" not in client.receive()
        self.row("slow clients, half-closed sockets", 80, began, found)

    def reload_under_load(self, reloads=8):
        began, found, asked, stop = time.monotonic(), [], [0], threading.Event()

        def load(i):
            try:
                client = Client(self.port, self.ticker(i))
                while not stop.is_set():
                    answer = value(client.ask())
                    asked[0] += 1
                    if answer[0] != self.expected[self.ticker(i)][0] or answer[1] is None:
                        found.append(answer)
            except (OSError, ValueError) as problem:
                found.append(problem)

        threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(reloads):
            self.service.process.send_signal(signal.SIGHUP)
            time.sleep(0.4)
        stop.set()
        for thread in threads:
            thread.join()
        self.row("reload under load", asked[0], began, len(found))

    def kill_and_restart(self, times=3):
        began, found = time.monotonic(), 0
        for i in range(times):
            self.service.process.kill()
            self.service.process.communicate()
            self.start()
            found += value(Client(self.port, self.ticker(i)).ask()) != self.expected[self.ticker(i)]
        self.row("kill -9 and restart", times, began, found)

    def memory_over_many(self):
        """By wrk; then p99 after all of this."""
        began, done, found, first = time.monotonic(), 0, 0, None
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder) / "post.lua"
            script.write_text(
                f"""wrk.method = "POST"
wrk.body = '{json.dumps({"ticker": self.tickers[0]})}'
function done(s, latency)
  local e = s.errors
  print(string.format("RESULT %d %d %d", s.requests, latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
            )
            while done < self.options.requests:
                output = subprocess.run(
                    ["wrk", "-t1", "-c64", f"-d{self.options.slice}s", "-s", script,
                     self.service.url + "/predict"], capture_output=True, text=True, check=True,
                ).stdout  # fmt: skip
                requests, p99, errors = map(int, re.search(r"RESULT (.*)", output)[1].split())
                done, found = done + requests, found + errors
                if first is None or done < self.options.requests / 10:
                    first = resident(self.service)
        found += resident(self.service) - first > GROWTH_MOST
        found += p99 > P99_MOST_MS * 1000
        self.row(
            "memory and p99 over many requests", done, began, found, resident_mib_early=first >> 20,
            resident_mib_end=resident(self.service) >> 20, p99_ms_at_the_end=p99 / 1000,
        )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--prices", required=True)
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--slice", type=int, default=10, help="seconds of one run of wrk")
    parser.add_argument("--out")
    options = parser.parse_args()
    stress = Stress(options)
    try:
        stress.thousand_connections()
        stress.slow_and_half_closed()
        stress.reload_under_load()
        stress.kill_and_restart()
        stress.memory_over_many()
    finally:
        with stress.service:
            pass
    if options.out:
        pathlib.Path(options.out).write_text("".join(json.dumps(r) + "\n" for r in stress.rows))
    return int(any(row["found"] for row in stress.rows))


if __name__ == "__main__":
    sys.exit(main())
