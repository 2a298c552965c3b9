"""valgrind over the test programs that need no libtorch: no invalid access, nothing lost.

The other tests run under ASan and UBSan (preset asan); this also sees what is read before it was
written.
"""

import shutil
import subprocess

import pytest
import training

# program: the tests that are worth their time at a twentieth of the speed
PROGRAMS = {
    "date_test": "*",
    "field_test": "*",
    "file_test": "*",
    "json_test": "*",
    "options_test": "*",
    "price_file_test": "-*any_changed_byte*:*any_truncation*",
    "shim_internals_test": "*",
}


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not here: apt-get install valgrind")
@pytest.mark.parametrize("program", PROGRAMS)
def test_program_is_clean(program):
    path = training.BUILD / "bin" / program
    if not path.exists():
        pytest.skip(f"{path} is not built")
    done = subprocess.run(
        ["valgrind", "--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect",
         "--error-exitcode=9", path, f"--gtest_filter={PROGRAMS[program]}"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not here: apt-get install valgrind")
def test_a_planted_error_is_found(tmp_path):
    source = tmp_path / "planted.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "int main(void) { volatile int *x = malloc(sizeof *x); return *x == 7 ? 1 : 0; }\n"
    )
    subprocess.run(["cc", "-O0", "-o", tmp_path / "planted", source], check=True)
    done = subprocess.run(
        ["valgrind", "--quiet", "--error-exitcode=9", tmp_path / "planted"], capture_output=True, text=True
    )
    assert done.returncode == 9 and "uninitialised" in done.stderr
