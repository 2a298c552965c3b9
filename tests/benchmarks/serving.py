"""Measures the HTTP service and its peers and writes results/serving.json.

One wrk thread with 16 connections on the machine that serves, each server alone while it is
measured, all servers in turns, medians over the turns. The peers are ONNX Runtime behind FastAPI
(uvicorn, httptools) and behind gunicorn + Flask, one worker a core; libmicrohttpd alone with a
constant answer (serving_bare.c); and ONNX Runtime alone, without HTTP.

    tests/benchmarks/serving.py --program build/default/bin/return-predictor \\
        --checkpoint FILE --prices DIR [--seconds 5] [--turns 5] [--out results/serving.json]
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
BATCH = 50
MODEL = "/v2/models/FinancialLSTM"


def export_onnx(checkpoint, path):
    import torch
    from safetensors.torch import load_file

    state = load_file(checkpoint)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 64, 2, batch_first=True)
            self.norm = torch.nn.BatchNorm1d(64, affine=False)
            self.head = torch.nn.Linear(64, 1)

        def forward(self, x):
            last = self.lstm(x)[0][:, -1]
            return self.head(torch.nn.functional.leaky_relu(self.norm(last)))[:, 0]

    network = Network().eval()
    network.load_state_dict({k: v for k, v in state.items() if k in network.state_dict()})
    torch.onnx.export(
        network, (torch.zeros(1, 20, 4),), path, input_names=["features"],
        output_names=["returns"], dynamo=False,
        dynamic_axes={"features": {0: "n"}, "returns": {0: "n"}},
    )  # fmt: skip


def bodies(prices):
    """Request name -> path, body, headers."""
    draw = random.Random(1)
    window = [[round(draw.gauss(0, 1), 6) for _ in range(4)] for _ in range(20)]
    name = sorted(pathlib.Path(prices).glob("*.csv"))[0]
    date = name.read_text().split("\n")[120].split(",")[0]
    numbers = struct.pack(f"<{BATCH * 80}f", *(draw.gauss(0, 1) for _ in range(BATCH * 80)))
    head = json.dumps({
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [BATCH, 20, 4],
                    "parameters": {"binary_data_size": len(numbers)}}],
        "outputs": [{"name": "predicted_return", "parameters": {"binary_data": True}}],
    }).encode()  # fmt: skip
    return {
        "POST /predict, one 20x4 window": (
            "/predict", json.dumps({"sequence": window}).encode(), {}),
        "POST /predict, ticker and date": (
            "/predict", json.dumps({"ticker": name.stem, "date": date}).encode(), {}),
        f"OIP infer, {BATCH} windows, binary": (
            MODEL + "/infer", head + numbers, {"Inference-Header-Content-Length": len(head)}),
    }  # fmt: skip


def wrk(url, body, headers, seconds, connections=16):
    """requests/s, p50 ms, p99 ms, errors."""
    with tempfile.TemporaryDirectory() as folder:
        body_file = pathlib.Path(folder) / "body"
        body_file.write_bytes(body)
        script = pathlib.Path(folder) / "post.lua"
        lines = [
            'wrk.method = "POST"',
            f'wrk.body = io.open("{body_file}", "rb"):read("*a")',
            'wrk.headers["Content-Type"] = "application/json"',
            *(f'wrk.headers["{k}"] = "{v}"' for k, v in headers.items()),
            "function done(summary, latency)",
            "  local e = summary.errors",
            '  print(string.format("RESULT %d %d %d %d %d", summary.requests, summary.duration,',
            "    latency:percentile(50), latency:percentile(99),",
            "    e.connect + e.read + e.write + e.status + e.timeout))",
            "end",
        ]
        script.write_text("\n".join(lines))
        output = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, url],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    requests, duration, p50, p99, errors = map(int, re.search(r"RESULT (.*)", output)[1].split())
    return requests / duration * 1e6, p50 / 1000, p99 / 1000, errors


class Server:
    """A server process that is started for its turn and stopped after it."""

    def __init__(self, command, port, environment=None, ready="/predict"):
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})}, cwd=HERE,
        )  # fmt: skip
        for _ in range(400):
            try:
                urllib.request.urlopen(self.url + ready, timeout=5)
                return
            except urllib.error.HTTPError:
                return  # it answers
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{command[0]} does not answer at {self.url}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=30)


def ours(options, port=18200):
    return Server(
        [options.program, "serve", "--checkpoint", options.checkpoint, "--prices", options.prices,
         "--port", port, "--access-log", "off"], port, ready="/healthz",
    )  # fmt: skip


def peer(name, onnx, port=18201):
    workers = str(os.cpu_count())
    command = {
        "fastapi": [sys.executable, "-m", "uvicorn", "serving_peers:app", "--port", str(port),
                    "--workers", workers, "--no-access-log", "--log-level", "warning"],
        "flask": [sys.executable, "-m", "gunicorn", "serving_peers:app", "-w", workers,
                  "-b", f"127.0.0.1:{port}", "--log-level", "warning"],
    }[name]  # fmt: skip
    return Server(command, port, {"RP_PEER": name, "RP_ONNX": str(onnx), "OMP_NUM_THREADS": "1"})


def bare(folder, port=18202):
    program = pathlib.Path(folder) / "serving_bare"
    source = HERE / "serving_bare.c"
    subprocess.run(["cc", "-O2", source, "-o", program, "-lmicrohttpd"], check=True)
    return Server([program, port, os.cpu_count()], port)


def onnx_microseconds(onnx, windows, threads):
    """One run of ONNX Runtime over this many windows, without HTTP."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    x = numpy.random.default_rng(1).standard_normal((windows, 20, 4)).astype(numpy.float32)
    times = []
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end or len(times) < 20:
        began = time.perf_counter()
        session.run(None, {"features": x})
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def model_seconds(url):
    text = urllib.request.urlopen(url + "/metrics").read().decode()
    return [
        float(re.search(rf"^{name} (\S+)", text, re.M)[1])
        for name in ("rp_model_seconds_total", "rp_batch_windows_sum")
    ]


def measure(options, onnx):
    """(request, server) -> results of every turn; and the model's microseconds for one window."""
    requests = bodies(options.prices)
    window = next(iter(requests))
    found, alone = {}, []
    for _ in range(options.turns):
        with ours(options) as server:
            time.sleep(2)  # the table of predictions is being filled
            for name, (path, body, headers) in requests.items():
                key = (name, "return-predictor serve")
                found.setdefault(key, []).append(
                    wrk(server.url + path, body, headers, options.seconds)
                )
            before = model_seconds(server.url)
            path, body, headers = requests[window]
            wrk(server.url + path, body, headers, options.seconds, connections=1)
            after = model_seconds(server.url)
            alone.append((after[0] - before[0]) / (after[1] - before[1]) * 1e6)
        for name, label in (
            ("fastapi", "FastAPI + ONNX Runtime"),
            ("flask", "gunicorn + Flask + ONNX Runtime"),
        ):
            path, body, headers = requests[window]
            with peer(name, onnx) as server:
                found.setdefault((window, label), []).append(
                    wrk(server.url + path, body, headers, options.seconds)
                )
        name = list(requests)[1]
        path, body, headers = requests[name]
        with bare(onnx.parent) as server:
            found.setdefault((name, "libmicrohttpd alone, constant answer"), []).append(
                wrk(server.url + path, body, headers, options.seconds)
            )
    return found, alone


def summary(key, turns):
    def median(i):
        return statistics.median(turn[i] for turn in turns)

    row = {"request": key[0], "server": key[1], "requests_per_second": median(0),
           "p50_ms": median(1), "p99_ms": median(2), "errors": sum(turn[3] for turn in turns),
           "requests_per_second_of_each_turn": [turn[0] for turn in turns]}  # fmt: skip
    if "windows" in key[0]:
        row["windows_per_second"] = row["requests_per_second"] * BATCH
    return row


def processor():
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found[1] if found else "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", required=True, type=os.path.abspath)
    parser.add_argument("--checkpoint", required=True, type=os.path.abspath)
    parser.add_argument("--prices", required=True, type=os.path.abspath)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", default="results/serving.json")
    options = parser.parse_args()
    version = subprocess.run([options.program, "--version"], capture_output=True, text=True).stdout
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        onnx = pathlib.Path(folder) / "model.onnx"
        export_onnx(options.checkpoint, onnx)
        found, alone = measure(options, onnx)
        one = onnx_microseconds(onnx, 1, 1)
        many = BATCH / onnx_microseconds(onnx, BATCH, os.cpu_count()) * 1e6
    result = {
        "schema": 1,
        "command": "tests/benchmarks/serving.py --seconds %d --turns %d"
        % (options.seconds, options.turns),
        "commit": re.search(r"\((\w+)\)", version)[1],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "load_before": load[0]},
        "protocol": "wrk -t1 -c16 on the same machine, servers in turns, medians; access log off",
        "model_microseconds_for_one_window": statistics.median(alone),
        "onnx_runtime_microseconds_for_one_window": one,
        f"onnx_runtime_windows_per_second_of_{BATCH}": many,
        "rows": [summary(key, turns) for key, turns in found.items()],
    }
    pathlib.Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    for row in result["rows"]:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
