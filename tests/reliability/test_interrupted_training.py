"""Training that is ended, or whose disk fails, at every moment that matters."""

import json
import os
import signal
import struct
import subprocess

import kill9
import pytest
import training

pytestmark = pytest.mark.skipif(
    not training.FAULTS.exists(), reason=f"{training.FAULTS} is not built (needs GoogleTest)"
)


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    return training.make_prices(tmp_path_factory.mktemp("market") / "prices")


@pytest.fixture(scope="module")
def whole(prices, tmp_path_factory):
    return training.whole_run(prices, tmp_path_factory.mktemp("whole") / "model")


def step(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return int(json.loads(data[8 : 8 + length])["__metadata__"]["training.step"])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def in_save(save, call, effect):
    """The fault that meets the file's `call` in that save; its folder is synced and closed next."""
    number = 2 * save - 1 if call in ("fsync", "close") else save
    return f"{call}:{number}:{effect}"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_signals_at_random_moments_lose_nothing(tmp_path, name):
    chain = kill9.campaign(tmp_path, 8, signal.Signals[name], seed=2)
    assert chain.problems == []


@pytest.mark.parametrize("call", ["open", "write", "fsync", "linkat", "close", "rename"])
@pytest.mark.parametrize("save", [1, 2, 5])
def test_kill_inside_a_save_leaves_the_one_before(prices, whole, tmp_path, call, save):
    model = tmp_path / "model"
    killed = training.train(prices, model, fault=in_save(save, call, "kill"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert set(names(tmp_path)) <= {"model"}
    # Once the file has its first name, its second follows.
    done = save if call in ("linkat", "rename", "close") else save - 1
    if done > 0:
        assert step(model) == done * training.EVERY
    assert training.train(prices, model).returncode == 0
    assert model.read_bytes() == whole
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("every", [1, 5, 7])
def test_resume_at_any_step_equals_uninterrupted(prices, whole, tmp_path, every):
    """Killed before the fourth save: the third, wherever in an epoch, stays."""
    model = tmp_path / "model"
    killed = training.train(prices, model, fault="open:4:kill", every=every)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert step(model) == 3 * every
    assert training.train(prices, model).returncode == 0
    assert model.read_bytes() == whole


@pytest.mark.parametrize(
    "call, error, said",
    [
        ("open", "EROFS", "Read-only file system"),
        ("open", "EACCES", "Permission denied"),
        ("write", "ENOSPC", "No space left on device"),
        ("write", "EIO", "Input/output error"),
        ("fsync", "EIO", "Input/output error"),
        ("linkat", "EIO", "Input/output error"),
        ("close", "EIO", "Input/output error"),
        ("rename", "EIO", "Input/output error"),
    ],
)
def test_disk_fault_keeps_the_old_checkpoint_and_says_why(prices, whole, tmp_path, call, error, said):
    model = tmp_path / "model"
    failed = training.train(prices, model, fault=in_save(3, call, error))
    assert failed.returncode == 1
    assert said in failed.stderr and str(model) in failed.stderr
    assert names(tmp_path) == ["model"]
    # An error of close comes when all is written and named.
    assert step(model) == (3 if call == "close" else 2) * training.EVERY
    assert training.train(prices, model).returncode == 0
    assert model.read_bytes() == whole


@pytest.mark.parametrize("effect", ["short", "EINTR"])
def test_short_and_interrupted_writes_are_completed(prices, whole, tmp_path, effect):
    model = tmp_path / "model"
    done = training.train(prices, model, fault=f"write:1:{effect}")
    assert done.returncode == 0, done.stderr
    assert model.read_bytes() == whole


def test_save_is_on_disk_before_it_takes_the_name(prices, tmp_path):
    """A crash of the machine keeps the old file or the new one: data, then name, then folder."""
    model, log = tmp_path / "models" / "model", tmp_path / "log"
    model.parent.mkdir()
    done = training.train(prices, model, epochs=1, every=1000, log=log, path=str(model.parent))
    assert done.returncode == 0, done.stderr
    calls = [line.split(maxsplit=1)[0] for line in log.read_text().splitlines()]
    assert calls == ["open", "write", "fsync", "linkat", "rename", "close", "fsync", "close"]


@pytest.mark.parametrize("call, error, before", [
    ("open", "EOPNOTSUPP", ["open"]),  # a file system without nameless files
    ("linkat", "ENOENT", ["open", "write", "fsync", "linkat", "close"]),  # no /proc
])  # fmt: skip
def test_save_where_files_need_a_name(prices, whole, tmp_path, call, error, before):
    model, log = tmp_path / "models" / "model", tmp_path / "log"
    model.parent.mkdir()
    done = training.train(
        prices, model, every=1000, fault=f"{call}:1:{error}", log=log, path=str(model.parent)
    )
    assert done.returncode == 0, done.stderr
    assert model.read_bytes() == whole
    calls = [line.split(maxsplit=1)[0] for line in log.read_text().splitlines()]
    assert calls == before + ["open", "write", "fsync", "rename", "close", "fsync", "close"]


def test_read_only_folder_is_a_clear_error(prices, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("root may write everywhere; open:1:EROFS above stands for it")
    failed = training.train(prices, folder / "model")
    assert failed.returncode == 1
    assert "Permission denied" in failed.stderr


@pytest.mark.parametrize("call, error", [("write", "ENOSPC"), ("fsync", "EIO"), ("rename", "EIO")])
def test_disk_fault_keeps_the_old_report(prices, tmp_path, call, error):
    model, out = tmp_path / "model", tmp_path / "report.json"
    assert training.train(prices, model, epochs=1).returncode == 0
    out.write_text("old")
    environment = os.environ | {
        "LD_PRELOAD": str(training.FAULTS), "RP_FAULT": f"{call}:1:{error}", "RP_FAULT_PATH": "report.json",
    }  # fmt: skip
    failed = subprocess.run(
        [training.PROGRAM, "evaluate", "--prices", prices, "--checkpoint", model, "--out", out],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    assert failed.returncode == 1
    assert "report.json" in failed.stderr
    assert out.read_text() == "old"
    assert names(tmp_path) == ["model", "report.json"]


@pytest.mark.parametrize("name", ["model", "SYN0003.csv"])
def test_file_that_can_not_be_read_is_named(prices, tmp_path, name):
    model = tmp_path / "model"
    assert training.train(prices, model, epochs=1).returncode == 0
    command = [training.PROGRAM, "predict", "--prices", prices, "--checkpoint", model]
    environment = os.environ | {"LD_PRELOAD": str(training.FAULTS), "RP_FAULT_PATH": f"/{name}"}
    run = {"capture_output": True, "text": True, "timeout": 120}
    whole = subprocess.run(command, **run)
    slow = subprocess.run(command, **run, env=environment | {"RP_FAULT": "read:1:short"})
    broken = subprocess.run(command, **run, env=environment | {"RP_FAULT": "read:1:EIO"})
    assert (slow.returncode, slow.stdout) == (0, whole.stdout)
    assert broken.returncode == 1
    assert name in broken.stderr and "Input/output error" in broken.stderr


def test_driver_that_is_too_old_is_a_clear_error(prices, tmp_path):
    model = tmp_path / "model"
    old = training.whole_run(prices, model, epochs=1)
    environment = os.environ | {
        "LD_PRELOAD": str(training.FAULTS), "RP_FAULT": "cudaGetDeviceCount:1:35",
    }  # fmt: skip
    command = ["gpu" if part == "cpu-fused" else part for part in training.command(prices, model)]
    failed = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment
    )
    assert failed.returncode == 1
    if "no CUDA kernels" in failed.stderr or "without libtorch" in failed.stderr:
        pytest.skip("this build has no CUDA")
    assert "CUDA driver version is insufficient for CUDA runtime version" in failed.stderr
    assert model.read_bytes() == old
