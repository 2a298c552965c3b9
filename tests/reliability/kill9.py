#!/usr/bin/env python3
"""Ends training at random moments and continues it, again and again.

    tests/reliability/kill9.py [--moments 1000] [--signal KILL|TERM|INT] [--seed 1]

After each end the folder holds the checkpoint and nothing else, the checkpoint loads (the next run
continues it), and a run that reaches its last step has the uninterrupted run's bytes. Prints what
it counted and leaves a row for results/reliability.json.
"""

import argparse
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import record  # noqa: E402
import training  # noqa: E402


class Chain:
    """Runs of one checkpoint until the last step is reached; then anew."""

    def __init__(self, folder, number):
        self.number = number
        self.prices = training.make_prices(folder / "prices")
        self.models = folder / "models"
        self.models.mkdir()
        self.model = self.models / "model"
        start = time.monotonic()
        self.whole = training.whole_run(self.prices, self.model)
        self.seconds = time.monotonic() - start
        self.model.unlink()
        self.ended = self.finished = 0
        self.problems = []

    def expect(self, condition, problem):
        if not condition:
            self.problems.append(problem)

    def run(self, delay):
        """One run, ended after `delay` seconds unless it is done by then."""
        process = subprocess.Popen(
            training.command(self.prices, self.model), stderr=subprocess.PIPE, text=True
        )
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(self.number)
        messages = process.communicate()[1]
        names = {path.name for path in self.models.iterdir()}
        if process.returncode == -self.number:  # SIGTERM and SIGINT: before training began
            self.ended += 1
            self.expect(names <= {"model"}, f"left behind: {names}")
            return
        self.expect(process.returncode == 0, f"exit {process.returncode}: {messages}")
        self.expect(names == {"model"}, f"left behind: {names}")
        if self.model.read_bytes() == self.whole:
            self.finished += 1
            self.model.unlink()
        else:
            self.ended += 1
            self.expect(self.number != signal.SIGKILL, "other bytes than the uninterrupted run's")

    def finish(self):
        """The last chain too has to end as the uninterrupted run does."""
        done = training.train(self.prices, self.model)
        self.expect(done.returncode == 0, done.stderr)
        self.expect(self.model.read_bytes() == self.whole, "other bytes than the uninterrupted run's")


def campaign(folder, moments, number, seed):
    chain = Chain(folder, number)
    at = random.Random(seed)
    while chain.ended < moments and not chain.problems:
        chain.run(at.uniform(0.001, chain.seconds))
    chain.finish()
    return chain


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=1000)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    number = signal.Signals[f"SIG{arguments.signal}"]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        chain = campaign(pathlib.Path(folder), arguments.moments, number, arguments.seed)
    record.write_row(
        f"{number.name} at random moments of training, and --resume", "train --configuration cpu-fused",
        chain.ended, time.monotonic() - start, len(chain.problems), runs_finished=chain.finished,
        problems=chain.problems,
    )  # fmt: skip
    print(f"{chain.ended} moments, {chain.finished} runs finished with the same bytes; "
          f"problems: {chain.problems or 'none'}")  # fmt: skip
    return 1 if chain.problems else 0


if __name__ == "__main__":
    sys.exit(main())
