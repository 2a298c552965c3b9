"""rp.h is C: alone, strict, and with every warning a user of ours may have on."""

import re
import subprocess

import pytest
from repository import BUILD, ROOT

HEADER = ROOT / "shim" / "include" / "rp" / "rp.h"
STRICT = ["-pedantic-errors", "-Wall", "-Wextra", "-Wconversion", "-Wstrict-prototypes", "-Werror"]
LANGUAGES = {
    "c11": ["cc", "-std=c11", *STRICT, "-Wc++-compat"],
    "c++17": ["c++", "-std=c++17", *[flag for flag in STRICT if flag != "-Wstrict-prototypes"]],
}


def compiles(command, folder, header, body=""):
    source = folder / ("user.c" if command[0] == "cc" else "user.cpp")
    source.write_text(f"{header}\n#include <rp/rp.h>\n{body}\nint main(void) {{ return RP_OK; }}\n")
    return subprocess.run(
        [*command, "-c", "-o", folder / "user.o", "-I", HEADER.parents[1], source], capture_output=True, text=True
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_header_compiles_alone_and_twice(language, tmp_path):
    done = compiles(LANGUAGES[language], tmp_path, "#include <rp/rp.h>")
    assert done.returncode == 0, done.stderr


def test_header_status_that_is_dropped_is_an_error(tmp_path):
    body = "void f(void);\nvoid f(void) { rp_checkpoint_load(0, 0); }"
    done = compiles(LANGUAGES["c11"], tmp_path, "", body)
    assert done.returncode != 0 and "warn_unused_result" in done.stderr


@pytest.mark.parametrize("language, text", [("c11", "#define bool"), ("c++17", "struct rp_trainer {};")])
def test_header_is_really_read(language, text, tmp_path):
    """The same command refuses what is not valid beside it."""
    done = compiles(LANGUAGES[language], tmp_path, text, "int f(rp_no_such_type x);")
    assert done.returncode != 0


def test_header_functions_are_exported():
    library = BUILD / "lib" / "librp.so"
    if not library.exists():
        pytest.skip("librp.so is not built")
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    ).stdout
    code = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"\b(rp_[a-z0-9_]+)\s*\(", code.replace("RP_API", "")))
    exported = {line.split()[2] for line in listing.splitlines()}
    assert declared == exported
