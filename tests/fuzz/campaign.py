#!/usr/bin/env python3
"""The long fuzzing campaign: each target in turn, and a row each for results/reliability.json.

    nice -n 19 tests/fuzz/campaign.py [--runs 10000000] [TARGET...]     (after ./dev build fuzz)

A target stops at its first failing input, which stays in out/fuzz/TARGET/failures; corpora stay in
out/fuzz, and a campaign that is started again begins with what they hold.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "reliability"))

import fuzzer  # noqa: E402
import record  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=fuzzer.TARGETS, help=" ".join(fuzzer.TARGETS))
    parser.add_argument("--runs", type=int, default=10_000_000, help="executions a target")
    parser.add_argument("--seconds", type=int, default=0, help="limit a target; 0: none")
    arguments = parser.parse_args()
    failed = False
    for target in arguments.targets:
        corpus = record.ROOT / "out" / "fuzz" / target
        status, executions, seconds, output = fuzzer.run(
            target, corpus, f"-runs={arguments.runs}", f"-max_total_time={arguments.seconds}"
        )
        (corpus / "log").write_text(output)
        kept = fuzzer.FUZZ / "regressions" / target
        row = record.write_row(
            "fuzz (ASan, UBSan, LSan)", target, executions, seconds, int(status != 0),
            found_and_fixed_before=sorted(p.name for p in kept.iterdir()) if kept.is_dir() else [],
        )  # fmt: skip
        print(f"{target}: {executions} executions, {row['seconds']} s, {row['found']} found", flush=True)
        failed |= status != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
