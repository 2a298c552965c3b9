"""pip makes one wheel with the library inside, which works where the repository is not."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python"
pytestmark = pytest.mark.slow

EXAMPLE = """
import torch, return_predictor
print(return_predictor.library.find())
layer = return_predictor.nn.BatchNormLeakyReLU1d(3, negative_slope=0.2)
pair = torch.nn.Sequential(*layer.to_modules())
input = torch.randn(8, 3)
print(torch.equal(layer(input), pair(input)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    for tool in ("scikit_build_core", "pip"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed: pip install {tool.replace('_', '-')}")
    if not shutil.which("cmake") or not shutil.which("ninja"):
        pytest.skip("cmake or ninja is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    # Without the CUDA kernels, which take minutes; with ccache's objects of another build folder.
    options = {"SKBUILD_CMAKE_DEFINE": "RP_CUDA=OFF", "CCACHE_NOHASHDIR": "1"}
    environment = {**os.environ, **options}
    built = subprocess.run(
        [*command, "-w", str(folder), str(PACKAGE)], env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_package_library_and_what_it_was_built_for(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("__init__.py", "nn.py", "functional.py", "py.typed", "librp_ops.so", "librp_ops.json"):
        assert f"return_predictor/{name}" in names
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"return_predictor"}
    assert wheel.name.startswith("return_predictor-1.0.0-py3-none-linux_")


def test_library_in_wheel_has_no_run_path(wheel, tmp_path, run):
    if not shutil.which("readelf"):
        pytest.skip("readelf is not installed: apt-get install binutils")
    library = zipfile.ZipFile(wheel).extract("return_predictor/librp_ops.so", tmp_path)
    dynamic = os.popen(f"readelf -d {library}").read()
    assert "NEEDED" in dynamic and "RPATH" not in dynamic and "RUNPATH" not in dynamic


def test_wheel_works_in_fresh_environment_outside_the_repository(wheel, tmp_path, run, monkeypatch):
    for name in ("LD_LIBRARY_PATH", "PYTHONPATH", "RP_OPS_LIBRARY"):
        monkeypatch.delenv(name, raising=False)
    venv.create(tmp_path / "environment", symlinks=True)
    python = tmp_path / "environment" / "bin" / "python"
    folder = run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", python=python)
    site = folder.stdout.strip()
    # torch, 5 GB, is borrowed; nothing else of this environment is seen before it.
    with open(f"{site}/borrowed.pth", "w") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    pip = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    installed = run("-m", "pip", *pip)
    assert installed.returncode == 0, installed.stderr
    done = run("-c", EXAMPLE, python=python, cwd=tmp_path)
    assert done.stdout.split() == [f"{site}/return_predictor/librp_ops.so", "True"], done.stderr
