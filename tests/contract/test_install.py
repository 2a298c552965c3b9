"""An installed tree serves a C program that knows nothing else of this repository."""

import json
import os
import shutil
import struct
import subprocess

import pytest
from repository import BUILD, ROOT

EXAMPLE = ROOT / "tests" / "shim" / "example"


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """An installed tree, moved after it was installed."""
    if not (BUILD / "lib" / "librp_torch.so").exists():
        pytest.skip("librp_torch.so is not built: this build is without torch")
    first = tmp_path_factory.mktemp("install") / "first"
    run("cmake", "--install", BUILD, "--prefix", first)
    return first.rename(first.with_name("moved"))


def train(program, folder):
    checkpoint = folder / "model.safetensors"
    assert "2940 samples" in run(program, checkpoint)
    data = checkpoint.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert header["head.weight"]["shape"] == [1, 64]


def test_find_package_builds_a_program_that_trains(prefix, tmp_path):
    run("cmake", "-S", EXAMPLE, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    train(tmp_path / "train", tmp_path)


def test_find_package_of_another_major_version_is_refused(prefix, tmp_path):
    project = tmp_path / "CMakeLists.txt"
    project.write_text((EXAMPLE / "CMakeLists.txt").read_text().replace("1.0", "2.0"))
    shutil.copy(EXAMPLE / "train.c", tmp_path)
    done = subprocess.run(
        ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0 and "1.0.0" in done.stderr


def test_pkg_config_builds_a_program_that_trains(prefix, tmp_path):
    if not shutil.which("pkg-config"):
        pytest.skip("pkg-config is not here: apt-get install pkg-config")
    folder = next(prefix.glob("lib*/**/pkgconfig"))
    environment = dict(os.environ, PKG_CONFIG_PATH=str(folder))
    flags = run("pkg-config", "--cflags", "--libs", "return_predictor", env=environment).split()
    program = tmp_path / "train"
    run("cc", "-std=c11", "-Wall", "-Werror", EXAMPLE / "train.c", "-o", program, *flags, "-lm")
    train(program, tmp_path)


def test_installed_program_runs(prefix):
    assert "usage: return-predictor" in run(prefix / "bin" / "return-predictor", "--help")


def test_example_is_short():
    assert len((EXAMPLE / "train.c").read_text().splitlines()) <= 50
