#!/usr/bin/env python3
"""Breaks the source in one place at a time and asks whether a test turns red.

    tests/reliability/mutations.py [--gpu | --compile-gpu] [NAME...]

Each mutation below is applied to a copy of the source in out/mutations, built, and tested by the
tests that ought to notice. One that no test notices has survived: a test is missing. Mutations of
GPU code are tried with --gpu, on a machine that has one; their libraries, which --compile-gpu
makes anywhere, stay in out/mutations/gpu.
Leaves a row for results/reliability.json with what caught each.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import record  # noqa: E402

TREE = record.ROOT / "out" / "mutations" / "tree"
GPU_LIBRARIES = record.ROOT / "out" / "mutations" / "gpu"
PYTEST = [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "--rootdir", ".", "-x"]
# kind: how its build is configured
KINDS = {
    "plain": ["-DRP_TORCH=OFF", "-DRP_CUDA=OFF"],
    "torch": ["-DRP_TORCH=ON", "-DRP_CUDA=OFF", "-DRP_DRIVER=OFF"],
    "gpu": ["-DRP_TORCH=ON", "-DRP_CUDA=ON"],
}


@dataclasses.dataclass
class Mutation:
    name: str
    file: str
    before: str
    after: str
    targets: tuple
    tests: tuple  # of strings: a test program with its filter, or a file for pytest with its -k
    kind: str = "plain"


INTERRUPTED = "tests/reliability/test_interrupted_training.py"
TRAINS = ("return-predictor", "rp_faults")
OPERATOR = "tests/gpu/test_bn_leaky_relu.py"
OPERATOR_BITS = (f"{OPERATOR} fifty_runs", f"{OPERATOR} case_table")  # the quicker first
MUTATIONS = [
    Mutation(
        "the checkpoint's checksum is not compared", "shim/checkpoint.cpp",
        'if (fields.text("checkpoint.checksum") != checksum(content)) {', "if (false) {",
        ("shim_test",), ("shim_test CheckpointTest.*",),
    ),
    Mutation(
        "NaN weights are accepted", "shim/checkpoint.cpp",
        "if (!std::isfinite(out[i])) {", "if (false) {",
        ("shim_internals_test",), ("shim_internals_test",),
    ),
    Mutation(
        "overlapping tensors are accepted", "shim/safetensors.cpp",
        "if (entry.begin != end) {", "if (false) {",
        ("shim_internals_test",), ("shim_internals_test",),
    ),
    Mutation(
        "catch (...) is gone", "shim/guard.h",
        '''    } catch (...) {
        return remember(RP_ERROR_INTERNAL, "an unknown exception was thrown");
    }''', "    }",
        ("shim_internals_test",), ("shim_internals_test",),
    ),
    Mutation(
        "the checkpoint is not fsynced", "shim/file.cpp",
        "if (::fsync(file.fd) != 0) {", "if (false) {",
        TRAINS, (f"{INTERRUPTED} on_disk or fsync",),
    ),
    Mutation(
        "the checkpoint's folder is not fsynced", "shim/file.cpp",
        "if (directory.fd < 0 || ::fsync(directory.fd) != 0) {", "if (directory.fd < 0) {",
        TRAINS, (f"{INTERRUPTED} on_disk",),
    ),
    Mutation(
        "the checkpoint is written in place", "shim/file.cpp",
        'Temporary temporary{path + ".partial"};', "Temporary temporary{path};",
        TRAINS, (f"{INTERRUPTED} kill_inside or disk_fault",),
    ),
    Mutation(
        "the checkpoint has a name before it is whole", "shim/file.cpp",
        "if (!replace(folder, path, bytes, false)) {", "if (true) {",
        TRAINS, (f"{INTERRUPTED} kill_inside",),
    ),
    Mutation(
        "a kill can come between the checkpoint's two names", "shim/file.cpp",
        "const pid_t child = ::vfork();", "const pid_t child = -1;",
        TRAINS, (f"{INTERRUPTED} kill_inside",),
    ),
    Mutation(
        "a failed write leaves its temporary file", "shim/file.cpp",
        "if (!renamed) {", "if (false) {",
        TRAINS, (f"{INTERRUPTED} disk_fault_keeps_the_old_checkpoint",),
    ),
    Mutation(
        "a short write is taken for a whole one", "shim/file.cpp",
        "while (done < bytes.size()) {\n        const ssize_t count = ::write",
        "if (done < bytes.size()) {\n        const ssize_t count = ::write",
        TRAINS, (f"{INTERRUPTED} short",),
    ),
    Mutation(
        "reports are not fsynced", "driver/base/file.c",
        "bool ok = write_all(fd, data, size) && fsync(fd) == 0;", "bool ok = write_all(fd, data, size);",
        TRAINS, (f"{INTERRUPTED} old_report",),
    ),
    Mutation(
        "a resumed epoch forgets its losses so far", "shim/trainer.cpp",
        "trainer->epoch_loss_sum = checkpoint->epoch_loss_sum;", "",
        TRAINS, (f"{INTERRUPTED} any_step",),
    ),
    Mutation(
        "a resumed run forgets Adam's second moments", "shim/checkpoint.cpp",
        '''        fields.tensor("adam.exp_avg_sq." + parameter.name, parameter.shape, &state.exp_avg_sq[at]);
''', '''        std::vector<float> unused(static_cast<size_t>(parameter.size));
        fields.tensor("adam.exp_avg_sq." + parameter.name, parameter.shape, unused.data());
''',
        TRAINS, (f"{INTERRUPTED} any_step",),
    ),
    Mutation(
        "the scaler sees all rows, not the training rows", "driver/dataset/dataset.c",
        "last = end - 1 - DATASET_WARM_UP;",
        "last = ticker->days - 1 - DATASET_WARM_UP;",
        ("dataset_test",), ("dataset_test",),
    ),
    Mutation(
        "labels may cross the split", "driver/dataset/split.c",
        "*end = embargoed < known ? embargoed : known;", "(void)known, *end = embargoed;",
        ("dataset_test",), ("dataset_test",),
    ),
    Mutation(
        "days out of order are accepted", "driver/market/price_file.c",
        "if (!check_order(&r, &out->series[i]))", "if (size == 0 && !check_order(&r, &out->series[i]))",
        ("price_file_test",), ("price_file_test",),
    ),
    Mutation(
        "negative prices are accepted", "driver/market/price_file.c",
        "    if (value <= 0)\n", "    if (false)\n",
        ("price_file_test",), ("price_file_test",),
    ),
    Mutation(
        "an option may be given twice", "driver/base/options.c",
        "        if (found->given)\n", "        if (false)\n",
        ("options_test",), ("options_test",),
    ),
    Mutation(
        "a body's length may be given twice", "driver/serve/framing.c",
        "if (f->lengths + f->codings > 1) {", "if (false) {",
        ("return-predictor",), ("tests/serve/test_limits.py doubtful_length",),
    ),
    Mutation(
        "any token will do", "driver/serve/request.c",
        "return difference == 0;", "return difference == 0 || given_size == size;",
        ("return-predictor",), ("tests/serve/test_limits.py token",),
    ),
    Mutation(
        "the operator has no autograd", "ops/torch/bn_leaky_relu_autograd.cpp",
        '    m.impl("bn_leaky_relu", &bn_leaky_relu_autograd);\n', "",
        ("rp_ops",), ("tests/ops/test_bn_leaky_relu.py gradients or opcheck",), "torch",
    ),
    Mutation(
        "the bias of the backward is the one of now", "ops/torch/bn_leaky_relu_autograd.cpp",
        "defined(bias) ? kept_bias : at::Tensor(),", "value_or_undefined(bias),",
        ("rp_ops",), ("tests/ops/test_bn_leaky_relu.py in_place",), "torch",
    ),
    Mutation(
        "a barrier of the row reduction is gone", "ops/kernels/bn_leaky_relu_rows_forward.cu",
        "        __syncthreads(); // every slot is in the scratch, and the last tile's parameters are read\n",
        "",
        ("rp_ops",), OPERATOR_BITS, "gpu",
    ),
    Mutation(
        "rows are read before they have arrived", "ops/kernels/bn_leaky_relu_rows_tile.cuh",
        "            wait_copies<0>();\n", "",
        ("rp_ops",), OPERATOR_BITS, "gpu",
    ),
    Mutation(
        "chunks are read before they have arrived", "ops/kernels/bn_leaky_relu_chunks.cuh",
        "        wait_copies<DEPTH - 1>();\n", "",
        ("rp_ops",), OPERATOR_BITS, "gpu",
    ),
    Mutation(
        "a barrier of the planes' reduction is gone", "ops/kernels/bn_leaky_relu_planes_reduce.cu",
        "    __syncthreads(); // all warps' results are there\n", "",
        ("rp_ops",), OPERATOR_BITS, "gpu",
    ),
    Mutation(
        "the training kernel's warps do not meet in a time step", "ops/kernels/lstm_train_forward.cuh",
        "        __syncthreads(); // h(t-1) of all warps is in this slot\n", "",
        ("lstm_train_emulated_test",), ("lstm_train_emulated_test *float64",),
    ),
    Mutation(
        "the blocks of a cluster do not meet between pieces", "ops/kernels/lstm_train_block.cuh",
        '''    if (R::kLayers == 2 && kEarly) {
        cluster_arrive_after_reads();
    }
}
template <class R, bool kEarly> __device__ __forceinline__ void wait_for_readers() {
    if (R::kLayers == 2) {''', '''    if (false) {
        cluster_arrive_after_reads();
    }
}
template <class R, bool kEarly> __device__ __forceinline__ void wait_for_readers() {
    if (false) {''',
        ("lstm_train_emulated_test",), ("lstm_train_emulated_test *order_of_threads*",),
    ),
    Mutation(
        "gradients from above come to slots that are still fetched", "ops/kernels/lstm_train_block.cuh",
        "R::kReceivesGradient && !R::kCovers;", "R::kReceivesGradient;",
        ("lstm_train_emulated_test",), ("lstm_train_emulated_test *order_of_threads*",),
    ),
    Mutation(
        "backward does not wait for time steps that come back", "ops/kernels/lstm_train_backward.cuh",
        "            wait_for_slot(t - 2);\n", "",
        ("lstm_train_emulated_test",), ("lstm_train_emulated_test *order_of_threads*",),
    ),
    Mutation(
        "a gradient from above is read before it has arrived", "ops/kernels/lstm_train_backward.cuh",
        "if (R::kReceivesGradient && !arrived) {", "if (false) {",
        ("lstm_train_emulated_test",), ("lstm_train_emulated_test *order_of_threads*",),
    ),
    Mutation(
        "backward asks for the gradient of another time step", "ops/kernels/lstm_train_backward.cuh",
        "th.has_arrived(max(t - 2, 0))", "th.has_arrived(max(t - 1, 0))",
        ("lstm_train_emulated_test",), ("lstm_train_emulated_test *order_of_threads*",),
    ),
    Mutation(
        "a barrier's phase is waited for by nobody", "ops/kernels/lstm_train_layout.cuh",
        "            if (id >= count) {", "            if (false) {",
        ("lstm_train_emulated_test",), ("lstm_train_emulated_test *float64",),
    ),
    Mutation(
        "weight gradients that are carried to the next piece are not added", "ops/kernels/lstm_train_weight_gradient.cuh",
        "    if (carried && place.adds) {", "    if (false) {",
        ("lstm_train_emulated_test",), ("lstm_train_emulated_test *float64",),
    ),
    Mutation(
        "weight gradients are stored before they are multiplied", "ops/kernels/lstm_train_weight_gradient.cuh",
        "    wgmma_wait<0>();\n    multiplied();", "    multiplied();",
        ("lstm_train_emulated_test",), ("lstm_train_emulated_test *float64",),
    ),
    Mutation(
        "a barrier of a time step is gone", "ops/kernels/lstm_train_backward.cuh",
        "        __syncthreads(); // d(gates) of all units are in the slot\n", "",
        ("rp_ops",), ("tests/gpu/test_lstm_train.py same_bits or float64",), "gpu",
    ),
]  # fmt: skip


def quiet(command, **options):
    return subprocess.run(
        command, cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def source_files():
    """Names of all that git knows or would, or, in a copy without git, of all in the rooms."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=record.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode == 0:
        return listed.stdout.split("\n")
    rooms = [record.ROOT / room for room in ("cmake", "driver", "ops", "python", "shim", "tests")]
    return [str(path.relative_to(record.ROOT)) for room in rooms for path in room.rglob("*")]


def copy_source():
    for name in filter(None, source_files()):
        source, copy = record.ROOT / name, TREE / name
        if source.is_file() and (not copy.exists() or copy.read_bytes() != source.read_bytes()):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)


def build(kind, targets):
    folder = f"build/{kind}"
    if not (TREE / folder / "build.ninja").exists():
        options = [*KINDS[kind], f"-DPython3_EXECUTABLE={sys.executable}", "-DRP_COMMIT=" + "0" * 40]
        done = quiet(["cmake", "-S", ".", "-B", folder, "-G", "Ninja", *options])
        if done.returncode:
            sys.exit(done.stdout)
    return quiet(["ninja", "-C", folder, *targets])


def run_test(kind, test, library="lib/librp_ops.so"):
    """Whether it is green; skipped is not."""
    program, _, choice = test.partition(" ")
    folder = TREE / "build" / kind
    environment = os.environ | {"RP_BUILD": str(folder), "OMP_NUM_THREADS": "1"}
    environment["RP_OPS_LIBRARY"] = str(folder / library)
    environment["PYTHONPATH"] = str(TREE / "python")
    if program.endswith(".py"):
        command = [*PYTEST, program, *(["-k", choice] if choice else [])]
    else:
        command = [folder / "bin" / program, *([f"--gtest_filter={choice}"] if choice else [])]
    try:
        done = quiet(command, env=environment, timeout=900)
        return done.returncode == 0 and "passed" in done.stdout.lower()
    except subprocess.TimeoutExpired:
        return False


@contextlib.contextmanager
def broken(mutation):
    """The source with it, for as long as the context lasts; None: as it is."""
    path = TREE / mutation.file if mutation else None
    source = path.read_text() if path else ""
    if path:
        path.write_text(source.replace(mutation.before, mutation.after))
    try:
        yield
    finally:
        if path:
            path.write_text(source)


def absent(mutation):
    """"", or why the source has no place for it."""
    count = (TREE / mutation.file).read_text().count(mutation.before)
    return "" if count == 1 else f"not tried: its text is {count} times in {mutation.file}"


def try_mutation(mutation):
    """"caught by ...", "survived", or why it could not be tried."""
    if absent(mutation):
        return absent(mutation)
    with broken(mutation):
        built = build(mutation.kind, mutation.targets)
        if built.returncode:
            return "not tried: it does not compile\n" + built.stdout[-2000:]
        red = [test for test in mutation.tests if not run_test(mutation.kind, test)]
        return f"caught by {red[0]}" if red else "survived"


def gpu_library(mutation):
    """The operators with it, compiled unless they have been; None: unbroken."""
    name = re.sub(r"\W+", "_", mutation.name) if mutation else "unbroken"
    library = GPU_LIBRARIES / f"{name}.so"
    if not library.exists():
        with broken(mutation):
            built = build("gpu", ("rp_ops",))
        if built.returncode:
            sys.exit(built.stdout[-4000:])
        library.parent.mkdir(exist_ok=True)
        shutil.copy(TREE / "build/gpu/lib/librp_ops.so", library)
    return library


def try_gpu_mutation(mutation):
    if absent(mutation):
        return absent(mutation)
    for test in mutation.tests:
        if not run_test("gpu", test, gpu_library(None)):
            sys.exit(f"{test} is red before anything is broken")
        if not run_test("gpu", test, gpu_library(mutation)):
            return f"caught by {test}"
    return "survived"


def check_unbroken(mutations):
    """Every test that is to turn red is green before."""
    for mutation in mutations:
        built = build(mutation.kind, mutation.targets)
        if built.returncode:
            sys.exit(built.stdout[-4000:])
    for kind, test in sorted({(m.kind, test) for m in mutations for test in m.tests}):
        if not run_test(kind, test):
            sys.exit(f"{test} is red before anything is broken")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of the names of those to try; default: all")
    parser.add_argument("--gpu", action="store_true", help="those of GPU code, and no others")
    parser.add_argument("--compile-gpu", action="store_true", help="only compile those of GPU code")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if not arguments.names or any(n in m.name for n in arguments.names)]
    chosen = [m for m in chosen if (m.kind == "gpu") == (arguments.gpu or arguments.compile_gpu)]
    start = time.monotonic()
    copy_source()
    if arguments.compile_gpu:
        shutil.rmtree(GPU_LIBRARIES, ignore_errors=True)
        print(*(gpu_library(mutation) for mutation in [None, *chosen]), sep="\n")
        return 0
    outcomes = {}
    for kind in KINDS:
        of_kind = [mutation for mutation in chosen if mutation.kind == kind]
        if kind != "gpu":
            check_unbroken(of_kind)
        for mutation in of_kind:
            attempt = try_gpu_mutation if kind == "gpu" else try_mutation
            outcomes[mutation.name] = attempt(mutation)
            print(f"{mutation.name}: {outcomes[mutation.name]}", flush=True)
    missed = [name for name, outcome in outcomes.items() if outcome.startswith(("survived", "not tried"))]
    if not arguments.names:
        record.write_row(
            "mutations of the source, each to be caught by a test",
            "kernels" if arguments.gpu else "driver, shim, ops", len(chosen),
            time.monotonic() - start, len(missed), outcomes=outcomes, gpu=record.machine()["gpu"],
        )  # fmt: skip
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
