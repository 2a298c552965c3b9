"""Rules about the text of our files that a program can check."""

import re
import subprocess

import pytest
from repository import ROOT, files, relative

LINES = 500  # a file longer than this has two subjects
BANNED_CALL = re.compile(r"\b(atoi|atol|atof|strcpy|strcat|sprintf|vsprintf|strtok|gets)\s*\(")
# A machine's own folders, and marks that a decision was put off.
FOREIGN = re.compile(r"(/home/|/Users/|/root/|/work/)")
PUT_OFF = re.compile(r"\b(TODO|FIXME|XXX)\b")
TOP = {
    "CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "SECURITY.md", "cmake", "deploy",
    "dev", "driver", "ops", "python", "results", "shim", "tests",
}  # fmt: skip
SELF = "tests/contract/test_sources.py"


def without_comments_and_strings(text):
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(\\.|[^"\\\n])*"', " ", text, flags=re.DOTALL)


def sources():
    return [p for p in files(".c", ".h", ".cpp", ".cu", ".cuh", ".py", ".sh", ".cmake") if relative(p) != SELF]


def banned_calls(text):
    return [match.group(1) for match in BANNED_CALL.finditer(without_comments_and_strings(text))]


def test_calls_without_a_bound_are_not_made():
    found = {}
    for path in files(".c", ".h", ".cpp", ".cu", ".cuh"):
        calls = banned_calls(path.read_text())
        if calls:
            found[relative(path)] = calls
    assert not found


@pytest.mark.parametrize("call", ["atoi(text)", "strcpy (a, b)", "x = sprintf(b, f)", "gets(b)"])
def test_calls_without_a_bound_are_found(call):
    assert banned_calls(f"int f(void) {{ {call}; }}")
    assert not banned_calls(f'/* {call} */ snprintf(b, n, "{call}"); // {call}')


def test_files_are_short():
    long = {relative(p): n for p in sources() if (n := len(p.read_text().splitlines())) > LINES}
    assert not long
    assert len((ROOT / "dev").read_text().splitlines()) <= LINES


def test_files_name_no_folder_of_one_machine():
    texts = [*sources(), *files(".json", rooms=("results",)), ROOT / "README.md", ROOT / "dev"]
    assert ROOT / "results/gpu-tests.json" in texts
    found = [relative(path) for path in texts if FOREIGN.search(path.read_text())]
    assert not found


def test_files_put_nothing_off():
    found = [relative(path) for path in sources() if PUT_OFF.search(path.read_text())]
    assert not found


def test_python_is_python():
    for path in files(".py"):
        compile(path.read_text(), relative(path), "exec")


def test_scripts_are_bash():
    for path in [ROOT / "dev", ROOT / ".ci" / "run", *files(".sh")]:
        subprocess.run(["bash", "-n", path], check=True)


def test_top_level_is_the_one_in_the_source_map():
    """Only what git would see: ignored folders (build, out, .venv) are the machine's own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("no git checkout here: what is ignored is not known")
    top = {name.split("/")[0] for name in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP
