"""One run of one libFuzzer target, as the tests and the campaign make it."""

import os
import pathlib
import re
import shutil
import subprocess
import time

FUZZ = pathlib.Path(__file__).resolve().parent
ROOT = FUZZ.parents[1]
BIN = pathlib.Path(os.environ.get("RP_FUZZ_BUILD", ROOT / "build/fuzz")) / "bin"
TARGETS = sorted(path.stem for path in FUZZ.glob("*.dict"))


def run(target, corpus, *options, timeout=None):
    """(exit status, executions, seconds, output). New inputs go to the folder `corpus`; an input
    that fails goes to its `failures`."""
    failures = corpus / "failures"
    failures.mkdir(parents=True, exist_ok=True)
    (corpus / "inputs").mkdir(exist_ok=True)
    given = [FUZZ / kind / target for kind in ("seeds", "regressions")]
    dictionary = FUZZ / f"{target}.dict"
    command = [
        BIN / f"{target}_fuzz",
        *([f"-dict={dictionary}"] if dictionary.exists() else []),
        f"-artifact_prefix={failures}/",
        "-timeout=120", # wall clock, on machines that may be busy
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        *options,
        corpus / "inputs",
        *(folder for folder in given if folder.is_dir()),
    ]
    # Short stacks of allocations and a small quarantine: a third more executions a second.
    sanitizer = "malloc_context_size=4:quarantine_size_mb=8:detect_leaks=1"
    symbolizer = shutil.which("llvm-symbolizer") or shutil.which("llvm-symbolizer-14") or ""
    environment = {"ASAN_OPTIONS": sanitizer, "ASAN_SYMBOLIZER_PATH": symbolizer, **os.environ}
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=corpus, capture_output=True, text=True, errors="replace", timeout=timeout,
        env=environment,
    )  # fmt: skip
    output = done.stdout + done.stderr
    executed = re.search(r"stat::number_of_executed_units: (\d+)", output)
    return done.returncode, int(executed.group(1)) if executed else 0, time.monotonic() - start, output
