"""Several processes: walk-forward writes the files of one, train the losses; dead ranks are noticed."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import program
from ranked import files, finish, free_port, losses, start, train, wait_until

pytest.importorskip("torch.distributed.run")

SMALL = (
    "--train-years=2", "--test-months=3", "--step-months=3", "--hidden=8", "--layers=1",
    "--batch=64", "--epochs=1", "--seeds=2",
)  # fmt: skip
LONG = (*SMALL[:-2], "--epochs=2000", "--seeds=2")  # minutes: until something is killed


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    return program.synthesize(tmp_path_factory.mktemp("prices"), tickers=6, days=840, signal=0.3)


@pytest.fixture(scope="module")
def alone(prices, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    program.done("walk-forward", "--prices", prices, "--out", out, *SMALL)
    return files(out)


def torchrun(prices, out, *options, restarts=0, count=2):
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "--no-python",
        f"--max-restarts={restarts}", f"--master-port={free_port()}", program.PROGRAM,
        "walk-forward", f"--prices={prices}", f"--out={out}", *options,
    ]  # fmt: skip
    return subprocess.Popen(
        [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def rank_processes(out):
    """Process of each rank that works on the folder `out`, from /proc."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        rank = re.search(rb"(?:^|\0)RANK=(\d+)", environment)
        if command.startswith(bytes(program.PROGRAM)) and str(out).encode() in command and rank:
            found[int(rank[1])] = int(folder.name)
    return found


def test_four_processes_write_the_files_of_one(prices, alone, tmp_path):
    port = free_port()
    processes = [start(prices, tmp_path / "run", SMALL, rank, 4, port) for rank in range(4)]
    messages = finish(processes)
    assert [process.returncode for process in processes] == [0] * 4, messages
    assert "10 models trained" in messages[0] and messages[1:] == ["", "", ""]
    assert files(tmp_path / "run") == alone


def test_torchrun_writes_the_files_of_one_process(prices, alone, tmp_path):
    process = torchrun(prices, tmp_path / "run", *SMALL)
    (messages,) = finish([process])
    assert process.returncode == 0, messages
    assert files(tmp_path / "run") == alone


@pytest.mark.parametrize("victim, how", [(0, signal.SIGSTOP), (2, signal.SIGKILL)])
def test_dead_rank_is_noticed_and_named(prices, tmp_path, victim, how):
    port = free_port()
    processes = [
        start(prices, tmp_path / "run", LONG, rank, 4, port, "--rank-silence=2")
        for rank in range(4)
    ]
    wait_until(lambda: (tmp_path / "run/settings.json").exists())
    time.sleep(1)
    assert all(process.poll() is None for process in processes)
    killed = time.monotonic()
    processes[victim].send_signal(how)
    others = [process for process in processes if process is not processes[victim]]
    messages = [process.communicate(timeout=100)[1] for process in others]
    assert time.monotonic() - killed < 30  # by default it is noticed 13 s later than here
    processes[victim].kill()
    assert all(process.returncode == 1 for process in others)
    host = socket.gethostname()
    named = f"rank 2 ({host}, process {processes[2].pid}) has been silent for 2 s"
    for message in messages:
        # Rank 0 holds the store: when it is killed, that is what the others miss.
        assert (named if victim == 2 else f"the store at 127.0.0.1:{port}, which rank 0") in message


def test_rank_started_anew_alone_makes_all_start_again(prices, tmp_path):
    """As Kubernetes does it: a container that ends is started again by itself."""
    port, folder = free_port(), tmp_path / "run"
    processes = [start(prices, folder, LONG, rank, 2, port) for rank in range(2)]
    wait_until(lambda: (folder / "settings.json").exists())
    processes[1].kill()
    again = start(prices, folder, LONG, 1, 2, port)
    messages = finish([processes[0], again], timeout=60)
    assert f"process {processes[1].pid}) was started anew" in messages[0] + messages[1] or (
        "has been here before" in messages[1] and "rank 1 (" in messages[0]
    )
    assert processes[0].returncode == again.returncode == 1


def test_restart_by_torchrun_goes_on_with_the_finished_models(prices, alone, tmp_path):
    out = tmp_path / "run"
    process = torchrun(prices, out, *SMALL[:-2], "--epochs=30", "--seeds=2", restarts=1)
    models = lambda: [*(out / "models").glob("*.safetensors")]  # noqa: E731
    wait_until(lambda: len(models()) >= 2)
    os.kill(rank_processes(out)[1], signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in models()}
    (messages,) = finish([process])
    assert process.returncode == 0, messages
    assert re.search(r"10 models of 30 epochs by cpu-fused, of which [2-9] are finished", messages)
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    one = tmp_path / "one"
    program.done("walk-forward", "--prices", prices, "--out", one, *SMALL[:-2], "--epochs=30", "--seeds=2")
    assert files(out) == files(one)


def test_rank_that_fails_is_named_by_those_who_wait(prices, tmp_path):
    port = free_port()
    first = start(prices, tmp_path / "run", SMALL, 0, 2, port)
    second = start(tmp_path / "nothing", tmp_path / "run", SMALL, 1, 2, port)
    messages = finish([first, second])
    assert first.returncode == second.returncode == 1
    assert "rank 1 (" in messages[0] and "ended early" in messages[0]
    assert "nothing" in messages[1]


@pytest.mark.parametrize("name, value", [("RANK", "4"), ("WORLD_SIZE", "x"), ("MASTER_PORT", "0")])
def test_environment_that_makes_no_sense_is_refused(prices, tmp_path, name, value):
    environment = os.environ | {"RANK": "0", "WORLD_SIZE": "4", name: value}
    result = subprocess.run(
        [program.PROGRAM, "walk-forward", "--prices", prices, "--out", tmp_path / "run"],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 1 and f'the environment\'s {name} is "{value}"' in result.stderr


# 3,840 windows: the last batch of 100 has 40 rows. Three ranks take 34, 34 and 32 of the others.
SHARED = ("--configuration=cpu", "--hidden=32", "--batch=100", "--epochs=2")


def test_batches_shared_by_ranks_give_the_losses_of_one_process(prices, tmp_path):
    (tmp_path / "one").mkdir()
    program.done("train", "--prices", prices, *SHARED, "--threads=1", "--quiet",
                 f"--checkpoint={tmp_path}/one/model", f"--log={tmp_path}/one/log")  # fmt: skip
    one = losses(tmp_path / "one/log")
    # The gradients' terms are added in another order, 78 steps long.
    assert train(prices, tmp_path / "three", 3, SHARED) == pytest.approx(one, rel=1e-5)
    assert train(prices, tmp_path / "again", 3, SHARED) == losses(tmp_path / "three/log")
    assert (tmp_path / "three/model").read_bytes() == (tmp_path / "again/model").read_bytes()


def test_a_last_batch_with_fewer_rows_than_ranks_is_shared_too(prices, tmp_path):
    """3,840 windows in batches of 3,838: the last one has two rows for four ranks."""
    (tmp_path / "one").mkdir()
    program.done("train", "--prices", prices, *SHARED[:2], "--batch=3838", "--epochs=2", "--quiet",
                 f"--checkpoint={tmp_path}/one/model", f"--log={tmp_path}/one/log")  # fmt: skip
    port, folder = free_port(), tmp_path / "four"
    folder.mkdir()
    options = (*SHARED[:2], "--batch=3838", "--epochs=2", f"--log={folder}/log")
    processes = [
        start(prices, folder / "model", options, rank, 4, port, command="train") for rank in range(4)
    ]
    messages = finish(processes)
    assert [process.returncode for process in processes] == [0] * 4, messages
    assert losses(folder / "log") == pytest.approx(losses(tmp_path / "one/log"), rel=1e-5)


def test_dead_rank_ends_shared_training_with_its_name(prices, tmp_path):
    port = free_port()
    options = (*SHARED[:-1], "--epochs=100000", "--rank-silence=3", f"--log={tmp_path}/log")
    processes = [
        start(prices, tmp_path / "model", options, rank, 3, port, command="train")
        for rank in range(3)
    ]
    wait_until(lambda: (tmp_path / "log").exists() and losses(tmp_path / "log"))
    killed = time.monotonic()
    processes[2].kill()
    messages = [process.communicate(timeout=100)[1] for process in processes[:2]]
    assert time.monotonic() - killed < 30
    assert [process.returncode for process in processes[:2]] == [1, 1]
    for message in messages:  # both, or the second sees that the first has given up
        assert re.search(r"rank 2 \(.*silent for 3 s|rank [01] \(.*ended early", message)
    assert "silent for 3 s" in "".join(messages)


def test_configuration_of_one_process_is_refused(prices, tmp_path):
    port = free_port()
    processes = [
        start(prices, tmp_path / "model", ("--configuration=cpu-fused",), rank, 2, port, command="train")
        for rank in range(2)
    ]
    for message in finish(processes):
        assert "cpu-fused trains a model in one process" in message
