"""import return_predictor: where the library comes from, what is said when it doesn't fit, examples."""

import doctest
import importlib
import inspect
import json
import shutil

import pytest
import torch

import return_predictor
from return_predictor import library

IMPORT = "import return_predictor"


@pytest.mark.parametrize(
    "name",
    ["return_predictor"]
    + [f"return_predictor.{m}" for m in ("nn", "functional", "fusion", "results", "charts", "benchmark_table")],
)
def test_examples_of_docstrings_run(name):
    if name.endswith("charts"):
        pytest.importorskip("matplotlib")
    torch.manual_seed(0)
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0 and result.attempted > 0


@pytest.mark.parametrize(
    "layer", ["BatchNormLeakyReLU1d", "BatchNormLeakyReLU2d", "BatchNormLeakyReLU3d"]
)
def test_example_of_layer_runs(layer):
    examples = doctest.DocTestFinder().find(
        getattr(return_predictor.nn, layer), globs=vars(return_predictor.nn).copy()
    )
    runner = doctest.DocTestRunner()
    assert sum(len(example.examples) for example in examples) >= 5
    assert sum(runner.run(example).failed for example in examples) == 0


def test_every_public_name_has_a_docstring_and_every_module_a_purpose():
    for module in (return_predictor, return_predictor.nn, library):
        assert module.__doc__
    for name in return_predictor.nn.__all__:
        shape = "[T, B" if name == "LSTM" else "[N, C"
        assert shape in getattr(return_predictor.nn, name).__doc__
    assert "[N, C" in return_predictor.bn_leaky_relu.__doc__
    assert return_predictor.fuse.__doc__ and return_predictor.unfuse.__doc__


def test_typed_function_names_the_arguments_of_batch_norm():
    mine = inspect.signature(return_predictor.bn_leaky_relu, eval_str=True).parameters
    theirs = inspect.signature(torch.nn.functional.batch_norm, eval_str=True).parameters
    assert list(mine) == [*theirs, "negative_slope"]
    assert all(mine[name].default == theirs[name].default for name in theirs)
    assert all(parameter.annotation is not parameter.empty for parameter in mine.values())


@pytest.mark.parametrize(
    "x,statistics,error,words",
    [
        ((1, 3), 3, ValueError, "more than 1 value per channel"),
        ((4, 3), 5, RuntimeError, "running_mean should contain 3 elements not 5"),
    ],
)
def test_typed_function_raises_what_eager_raises(x, statistics, error, words):
    arguments = [torch.randn(x), torch.zeros(statistics), torch.ones(statistics)]
    for function in (return_predictor.bn_leaky_relu, torch.nn.functional.batch_norm):
        with pytest.raises(error, match=words):
            function(*arguments, training=True)


def test_import_loads_the_operators_without_library_path(run, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    done = run("-c", f"{IMPORT}, torch; print(torch.ops.rp.bn_leaky_relu.default)", cwd="/")
    assert done.stdout == "rp.bn_leaky_relu.default\n", done.stderr


def test_import_with_library_for_another_torch_names_both_and_the_cure(run, monkeypatch, tmp_path):
    shutil.copy(library.find(), tmp_path / library.NAME)
    (tmp_path / "librp_ops.json").write_text(json.dumps({"torch": "1.2.3+cpu"}))
    monkeypatch.setenv("RP_OPS_LIBRARY", str(tmp_path / library.NAME))
    done = run("-c", IMPORT)
    assert done.returncode == 1
    assert f"was built for torch 1.2.3+cpu, but this is torch {torch.__version__}" in done.stderr
    assert "install torch==1.2.3" in done.stderr


def test_import_with_library_that_is_none_says_so(run, monkeypatch, tmp_path):
    path = tmp_path / library.NAME
    monkeypatch.setenv("RP_OPS_LIBRARY", str(path))
    assert f"RP_OPS_LIBRARY names {path}, which is no file" in run("-c", IMPORT).stderr
    path.write_text("no library")
    assert f"{path} can't be loaded into torch" in run("-c", IMPORT).stderr


def test_import_without_any_library_says_how_to_build_it(run, monkeypatch, tmp_path):
    shutil.copytree(
        library.__file__.rpartition("/")[0],
        tmp_path / "a" / "return_predictor",
        ignore=shutil.ignore_patterns("librp_ops*"),
    )
    monkeypatch.delenv("RP_OPS_LIBRARY", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "a"))
    done = run("-c", IMPORT, cwd="/")
    assert done.returncode == 1 and "build it with ./dev build" in done.stderr


def test_import_without_torch_works_until_torch_is_needed(run, monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcusparse.so.12: cannot open')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{library.__file__.rpartition('/')[0]}/..")
    done = run("-c", f"{IMPORT}.results; return_predictor.fuse")
    assert "return_predictor.fuse needs torch: libcusparse.so.12: cannot open" in done.stderr


@pytest.mark.parametrize("program", ["charts", "benchmark_table"])
def test_program_starts_without_torch(run, monkeypatch, tmp_path, program):
    pytest.importorskip("matplotlib")
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{library.__file__.rpartition('/')[0]}/..")
    done = run("-m", f"return_predictor.{program}", "--help")
    assert done.returncode == 0 and "--results" in done.stdout, done.stderr
