#!/usr/bin/env bash
# compute-sanitizer's four tools over programs that use the project's kernels, each after a planted
# bug that it must find. Leaves a row for results/reliability.json. Run on a machine with a GPU:
#
#     tests/gpu/sanitize.sh build/default/lib/librp_ops.so [EVERY]
#
# EVERY: only every n-th case of the table, which each tool watches in as many parts at once as the
# machine has cores for; the whole table takes minutes, as racecheck is slow.
set -u
library=${1:?the path of librp_ops.so}
every=${2:-1}
here=$(cd "$(dirname "$0")" && pwd)
python=${RP_PYTHON:-python3}
if ! command -v compute-sanitizer >/dev/null; then
    echo "sanitize: skipped: compute-sanitizer is not installed (it comes with the CUDA toolkit)"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
nvcc -arch=native -o "$folder/planted_bugs" "$here/planted_bugs.cu" || exit 1

# watch EXPECTED LABEL TOOL COMMAND...: EXPECTED 0: clean; 9: a finding.
watch() {
    local expected=$1 label=$2 tool=$3 status=0 log
    shift 3
    log=$(mktemp -p "$folder")
    # Without PyTorch's cache each tensor is an allocation of its own, with its own end; the other
    # two tools watch shared memory only.
    case $tool in
    memcheck | initcheck) export PYTORCH_NO_CUDA_MEMORY_CACHING=1 ;;
    esac
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$@" >"$log" 2>&1 || status=$?
    if [ "$status" = "$expected" ]; then
        echo "ok    $tool: $label" | tee -a "$folder/outcomes"
    else
        echo "FAIL  $tool: $label (exit $status, expected $expected)" | tee -a "$folder/outcomes"
        grep -v '^frame #' "$log" | head -n 40
    fi
}

watch_all() { # watch_all TOOL
    local tool=$1 only barriers part parts
    parts=$((($(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) + 3) / 4)) # four tools at once
    watch 9 "planted bug found" "$tool" "$folder/planted_bugs" "$tool"
    # Only our kernels; but initcheck must see PyTorch's write what ours read.
    only=(--kernel-name kernel_substring=rp_kernels)
    [ "$tool" = initcheck ] && only=()
    barriers=() # more mbarriers than synccheck follows unasked: 32 a block of the training kernel
    [ "$tool" = synccheck ] && barriers=(--num-cuda-barriers 65536)
    for ((part = 0; part < parts; ++part)); do
        watch 0 "case table, every $every, part $((part + 1)) of $parts" "$tool" "${only[@]}" \
            "$python" "$here/sanitize_cases.py" "$library" "$every" "$part" "$parts" &
    done
    watch 0 "kernels of training" "$tool" "${barriers[@]}" "$python" "$here/sanitize_training.py" "$library"
    wait
}

for tool in memcheck racecheck initcheck synccheck; do # side by side: each takes minutes
    watch_all "$tool" &
done
wait
found=$(grep -c ^FAIL "$folder/outcomes")
PYTHONPATH=$here/../reliability "$python" - "$folder/outcomes" "$SECONDS" "$found" "$every" <<'PYTHON'
import sys, record
outcomes, seconds, found = open(sys.argv[1]).read().splitlines(), int(sys.argv[2]), int(sys.argv[3])
record.write_row("compute-sanitizer, each tool after a planted bug that it found", "kernels",
                 len(outcomes), seconds, found, outcomes=sorted(outcomes), gpu=record.machine()["gpu"],
                 command=f"sanitize.sh librp_ops.so {sys.argv[4]}")
PYTHON
[ "$found" = 0 ]
