"""What a second GPU brings: walk-forward over ranks, and one large model whose batches they share.

    python tests/benchmarks/scaling.py --prices DIR [--ranks 2] [--folder out/scaling]
        [--out results/scaling.json]

Each job runs on 1 and on N ranks of this machine, a GPU each. Seconds are the slowest rank's
training; the process's start, reading and evaluating lie outside and are in "wall_seconds".
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import result_file

PROGRAM = result_file.PROGRAM
JOBS = {
    "walk-forward, gpu-fused": (
        "walk-forward", "--configuration=gpu-fused", "--seeds=5",
    ),
    "train, gpu, 2 x 512, batch 16,384": (
        "train", "--configuration=gpu", "--hidden=512", "--batch=16384", "--epochs=5",
    ),
}  # fmt: skip


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run(job, prices, folder, ranks):
    """A row: `ranks` processes, one rank each."""
    command, *options = JOBS[job]
    out = folder / f"{command}-{ranks}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    target = f"--out={out}" if command == "walk-forward" else f"--checkpoint={out}/model"
    port = free_port()
    start = time.perf_counter()
    processes = []
    for rank in range(ranks):
        names = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=ranks, LOCAL_WORLD_SIZE=ranks,
                     MASTER_ADDR="127.0.0.1", MASTER_PORT=port)  # fmt: skip
        processes.append(subprocess.Popen(
            [PROGRAM, command, f"--prices={prices}", target, *options],
            env=os.environ | {name: str(value) for name, value in names.items()},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ))  # fmt: skip
    printed = [process.communicate()[0] for process in processes]
    wall = time.perf_counter() - start
    if any(process.returncode for process in processes):
        sys.exit("\n".join(printed))
    if command == "walk-forward":
        result = json.loads((out / "walk_forward.json").read_text())
        seconds, samples = (
            result["train_seconds"],
            result["samples_per_second"] * result["train_seconds"],
        )
    else:
        found = re.search(r"([0-9.]+) s of training, ([0-9]+) samples/s", printed[0])
        seconds, samples = float(found[1]), float(found[1]) * int(found[2])
    return {"ranks": ranks, "seconds": seconds, "samples_per_second": samples / seconds,
            "wall_seconds": round(wall, 2)}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prices", type=pathlib.Path, required=True)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--folder", type=pathlib.Path, default=result_file.ROOT / "out/scaling")
    parser.add_argument(
        "--out", type=pathlib.Path, default=result_file.ROOT / "results/scaling.json"
    )
    arguments = parser.parse_args()
    rows = []
    for job in JOBS:
        alone, together = (
            run(job, arguments.prices, arguments.folder, n) for n in (1, arguments.ranks)
        )
        speedup = together["samples_per_second"] / alone["samples_per_second"]
        rows.append(
            {
                "job": job,
                "command": " ".join(JOBS[job]),
                "runs": [alone, together],
                "speedup": speedup,
            }
        )
        print(
            f"{job}: {alone['seconds']:.2f} s, {together['seconds']:.2f} s on {arguments.ranks}: {speedup:.2f} times"
        )
    gpu = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
                         capture_output=True, text=True, check=True).stdout.split("\n")  # fmt: skip
    result_file.write(arguments.out, {"rows": rows}, gpu=gpu[0], gpus=arguments.ranks)


if __name__ == "__main__":
    main()
