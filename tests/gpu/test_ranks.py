"""Ranks that have a GPU each: models shared among them, and the batches of one model, over NCCL."""

import re
import time

import pytest

import program
from ranked import files, finish, free_port, losses, start, train, wait_until

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.device_count() < 2, reason=f"{torch.cuda.device_count()} GPUs; this needs 2"
    ),
]

# 3,840 windows: the last batch of 100 has 40 rows.
SHARED = ("--configuration=gpu", "--precision=fp32", "--batch=100", "--epochs=2")


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    return program.synthesize(tmp_path_factory.mktemp("prices"), tickers=6, days=840, signal=0.3)


def test_batches_shared_by_two_gpus_give_the_losses_of_one(prices, tmp_path):
    one = train(prices, tmp_path / "one", 1, SHARED)
    # The gradients' terms are added in another order, 78 steps long.
    assert train(prices, tmp_path / "two", 2, SHARED) == pytest.approx(one, rel=1e-5)
    assert train(prices, tmp_path / "again", 2, SHARED) == losses(tmp_path / "two/log")
    assert (tmp_path / "two/model").read_bytes() == (tmp_path / "again/model").read_bytes()


def test_tensors_travel_by_nccl(prices, tmp_path, monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("NCCL_DEBUG_FILE", str(tmp_path / "nccl.%p"))
    train(prices, tmp_path / "two", 2, SHARED)
    said = [path.read_text() for path in tmp_path.glob("nccl.*")]
    assert len(said) == 2 and all("nranks 2" in text for text in said)


def test_dead_rank_ends_shared_training_with_its_name(prices, tmp_path):
    port = free_port()
    options = (*SHARED[:-1], "--epochs=100000", "--rank-silence=3", f"--log={tmp_path}/log")
    processes = [
        start(prices, tmp_path / "model", options, rank, 2, port, command="train")
        for rank in range(2)
    ]
    wait_until(lambda: (tmp_path / "log").exists() and losses(tmp_path / "log"))
    killed = time.monotonic()
    processes[1].kill()
    message = processes[0].communicate(timeout=100)[1]
    assert time.monotonic() - killed < 30
    assert processes[0].returncode == 1
    assert re.search(r"rank 1 \(.*silent for 3 s", message)


def test_walk_forward_over_two_gpus_writes_the_files_of_one(prices, tmp_path):
    options = ("--train-years=2", "--test-months=3", "--step-months=3", "--epochs=2", "--seeds=2",
               "--configuration=gpu-fused")  # fmt: skip
    program.done("walk-forward", "--prices", prices, "--out", tmp_path / "one", *options)
    port = free_port()
    processes = [start(prices, tmp_path / "two", options, rank, 2, port) for rank in range(2)]
    messages = finish(processes)
    assert [process.returncode for process in processes] == [0, 0], messages
    assert files(tmp_path / "two") == files(tmp_path / "one")
