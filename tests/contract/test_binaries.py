"""What the built files show to others: symbols, needed libraries, and how fast the program starts."""

import json
import re
import subprocess
import time

import pytest
from repository import BUILD, PROGRAM, ROOT

TORCH_OR_CUDA = re.compile(r"torch|c10|cuda|cudnn|cublas|nvrtc")


def library(name):
    path = BUILD / "lib" / name
    if not path.exists():
        pytest.skip(f"{name} is not built: this build is without torch")
    return path


def exported(path):
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", "--demangle", path], capture_output=True, text=True, check=True
    )
    return [line.split(maxsplit=2)[2] for line in listing.stdout.splitlines()]


def needed(path):
    listing = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
    return re.findall(r"\(NEEDED\).*\[(.+)\]", listing.stdout)


def dynamic(path):
    return subprocess.run(["readelf", "-dlW", path], capture_output=True, text=True, check=True).stdout


def test_librp_exports_rp_names_only():
    symbols = exported(library("librp.so"))
    assert "rp_trainer_create" in symbols
    assert [name for name in symbols if not re.fullmatch(r"rp_[a-z0-9_]+", name)] == []


@pytest.mark.parametrize("name", ["librp_torch.so", "librp_nccl.so"])
def test_what_librp_loads_exports_its_entry_only(name):
    symbols = exported(library(name))
    assert symbols and all(re.fullmatch(r"rp_[a-z0-9_]+", symbol) for symbol in symbols)


def test_librp_ops_exports_rp_ops_only():
    symbols = exported(library("librp_ops.so"))
    assert symbols and [name for name in symbols if "rp_ops::" not in name] == []


@pytest.mark.parametrize("name", ["libtorch_cpu.so"])
def test_other_symbols_would_be_found(name):
    """The two tests above read real listings: another library's symbols are not ours."""
    lines = needed(library("librp_torch.so"))
    assert name in lines


def test_program_needs_no_torch():
    assert [name for name in needed(PROGRAM) if TORCH_OR_CUDA.search(name)] == []


def test_librp_needs_no_torch():
    assert [name for name in needed(library("librp.so")) if TORCH_OR_CUDA.search(name)] == []


def test_program_help_takes_under_50_ms():
    """The best of 20, so that a busy machine is not blamed on the program."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        subprocess.run([PROGRAM, "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.050


@pytest.mark.parametrize(
    "name", ["bin/return-predictor", "lib/librp.so", "lib/librp_ops.so", "lib/librp_torch.so"]
)
def test_binaries_are_hardened(name):
    path = BUILD / name
    if not path.exists():
        pytest.skip(f"{name} is not built")
    text = dynamic(path)
    assert "GNU_RELRO" in text and "BIND_NOW" in text, "relocations stay writable"
    assert re.search(r"GNU_STACK\s.* RW ", text), "the stack is executable"
    assert not re.search(r"LOAD\s.* RWE ", text), "a segment is writable and executable"
    header = subprocess.run(["readelf", "-h", path], capture_output=True, text=True, check=True).stdout
    assert "DYN" in header, "not position-independent"
    symbols = subprocess.run(["nm", "-D", path], capture_output=True, text=True, check=True).stdout
    assert "__stack_chk_fail" in symbols, "no stack protector"


@pytest.mark.parametrize("name", ["bin/return-predictor", "lib/librp.so", "lib/librp_torch.so"])
def test_binaries_have_fortified_calls(name):
    """Calls whose buffer's size the compiler knows go to the checked twin, __snprintf_chk."""
    path = BUILD / name
    if not path.exists():
        pytest.skip(f"{name} is not built")
    symbols = subprocess.run(["nm", "-D", path], capture_output=True, text=True, check=True).stdout
    assert re.search(r"__(?!stack)\w+_chk@", symbols)


def test_every_source_of_ours_is_compiled_with_the_strict_flags():
    """In the commands that built it; the CUDA compiler has its own."""
    listing = BUILD / "compile_commands.json"
    if not listing.exists():
        pytest.skip(f"{listing} is not there")
    flags = ("-Wall", "-Wextra", "-Wconversion", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=3")
    lacking = {}
    for entry in json.loads(listing.read_text()):
        if entry["file"].endswith((".c", ".cpp")) and entry["file"].startswith(str(ROOT)):
            missing = [flag for flag in flags if flag not in entry["command"]]
            if missing and str(BUILD) not in entry["file"]:
                lacking[entry["file"]] = missing
    assert not lacking
