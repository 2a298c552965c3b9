"""No command but ./dev fetch, and serve where it listens, opens a connection to the network."""

import re
import shutil
import subprocess

import pytest
import training

pytestmark = [
    pytest.mark.skipif(not training.PROGRAM.exists(), reason=f"{training.PROGRAM} is not built"),
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here: apt-get install strace"),
]
INTERNET = re.compile(r"\b(?:socket|connect|sendto|bind)\(.*AF_INET6?")


def internet_calls(log, *command):
    """Lines of system calls on internet sockets that the command and its children made."""
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=%network", "-o", log, *map(str, command)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if "ptrace" in done.stderr and "Operation not permitted" in done.stderr:
        pytest.skip("this container forbids ptrace")
    assert done.returncode == 0, done.stderr
    return [line for line in log.read_text().splitlines() if INTERNET.search(line)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    prices = training.make_prices(folder / "prices")
    assert training.train(prices, folder / "model", epochs=1).returncode == 0
    return folder


@pytest.mark.parametrize("name", ["synthesize", "inspect", "train", "evaluate", "predict"])
def test_command_opens_no_internet_socket(files, tmp_path, name):
    prices, model = ("--prices", files / "prices"), ("--checkpoint", files / "model")
    arguments = {
        "synthesize": ("--out", tmp_path / "made", "--tickers", "2", "--days", "60"),
        "inspect": (*prices, "--ticker", "SYN0001", "--date", "2014-05-01"),
        "train": training.command(files / "prices", tmp_path / "model", epochs=1)[2:],
        "evaluate": (*prices, *model, "--out", tmp_path / "report.json"),
        "predict": (*prices, *model),
    }[name]
    assert internet_calls(tmp_path / "log", training.PROGRAM, name, *arguments) == []


def test_an_internet_socket_is_found(tmp_path):
    program = "import socket; socket.socket(socket.AF_INET).close()"
    assert internet_calls(tmp_path / "log", "python3", "-c", program)
