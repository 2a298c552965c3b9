"""Processes of one job, started as torchrun starts them, by the variables of their environment."""

import json
import os
import socket
import subprocess
import time

import program
import pytest


def files(out):
    """What must not depend on who trained it: walk_forward.json has dates and times."""
    found = [*(out / "models").iterdir(), out / "forecasts.csv", out / "settings.json"]
    return {path.name: path.read_bytes() for path in sorted(found)}


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start(prices, out, options, rank, count, port, *more, command="walk-forward"):
    target = "--out" if command == "walk-forward" else "--checkpoint"
    environment = {
        "RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    return subprocess.Popen(
        [program.PROGRAM, command, f"--prices={prices}", f"{target}={out}", *options, *more],
        env=os.environ | {name: str(value) for name, value in environment.items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes, timeout=120):
    try:
        return [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()


def wait_until(condition, seconds=60):
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail("nothing happened")


def losses(log):
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


def train(prices, folder, count, options):
    """Epoch losses of one model whose batches `count` ranks share; the folder is made."""
    folder.mkdir()
    port = free_port()
    processes = [
        start(prices, folder / "model", options, rank, count, port, f"--log={folder}/log", command="train")
        for rank in range(count)
    ]
    messages = finish(processes)
    assert [process.returncode for process in processes] == [0] * count, messages
    assert sorted(path.name for path in folder.iterdir()) == ["log", "model"]
    return losses(folder / "log")
