#!/usr/bin/env bash
# Makes the files of results/ anew: the one place that says which command each of them comes from.
#
#     tests/benchmarks/publish.sh FILE...     e.g. benchmark.json; or gpu, or cpu: all of that kind
#
# On the machine that the figures are to be of, after ./dev build, with nothing else running. Where
# git is not at hand, RP_COMMIT names the source while building. RP_MARKET: the folder of real
# prices. A file that could not be made is named at the end, and its old content stays.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${RP_PYTHON:-$root/.venv/bin/python}
market=${RP_MARKET:-$root/../shared/market/sp500-50}
program=$root/build/default/bin/return-predictor
benchmarks=$root/tests/benchmarks
results=$root/results
gpu=(verify.json benchmark.json bn_leaky_relu.json lstm.json training_speed.json precision.json walk_forward.json gpu-tests.json)
cpu=(prepare_data.json cpu_lstm.json lstm_cpu.json serving.json evaluation.json universe.json verdicts.json)

usage() { sed -n '4,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

make_result() { # make_result <file of results/>
    local out=$results/$1
    case $1 in
        verify.json) "$program" verify --device cuda --json "$out" ;;
        benchmark.json) "$program" benchmark --prices "$market" --repeat 5 --out "$out" \
            --configurations gpu-fused,gpu-fused:bf16,gpu-fused:tf32,gpu-fused:fp32,gpu-graph,gpu-kernel,gpu,cpu-fused,cpu ;;
        bn_leaky_relu.json) "$python" "$benchmarks/bn_leaky_relu.py" \
            --library "$root/build/default/lib/librp_ops.so" --out "$out" ;;
        lstm.json) "$python" "$benchmarks/lstm.py" --out "$out" ;;
        lstm_cpu.json) "$python" "$benchmarks/lstm.py" --device cpu --batches 1 8 64 512 --time-steps 20 --out "$out" ;;
        fuse_networks.json) "$python" "$benchmarks/fuse_networks.py" --out "$out" ;; # needs timm
        training_speed.json) "$python" "$benchmarks/training_speed.py" --prices "$market" --jax --out "$out" ;;
        precision.json) "$python" "$benchmarks/precision.py" --prices "$market" --out "$out" ;;
        walk_forward.json) walk_forward ;;
        scaling.json) "$python" "$benchmarks/scaling.py" --prices "$market" --out "$out" ;; # two GPUs
        gpu-tests.json) "$root/dev" gpu-test ;;
        prepare_data.json) "$python" "$benchmarks/prepare_data.py" --prices "$market" --out "$out" ;;
        cpu_lstm.json) "$python" "$benchmarks/cpu_lstm.py" --out "$out" ;;
        serving.json) serving ;;
        evaluation.json) evaluation ;;
        universe.json) "$python" "$benchmarks/universe.py" --tickers 1250 2500 5000 --out "$out" &&
            "$python" "$benchmarks/universe.py" --tickers 1250 5000 --layers 1 --hidden 32 --add --out "$out" ;;
        verdicts.json) "$python" "$benchmarks/verdicts.py" --out "$out" ;;
        reliability.json) "$python" "$root/tests/reliability/record.py" ;; # of the campaigns that ran
        *) echo "publish.sh: $1 is none of ${gpu[*]} ${cpu[*]}" >&2 && return 2 ;;
    esac
}

# A market and a checkpoint of its own: a request's time depends on neither.
serving() {
    local folder=$root/out/publish
    "$program" synthesize --out "$folder/market" --tickers 50 --days 2516 --seed 1 &&
        "$program" train --prices "$folder/market" --checkpoint "$folder/model.safetensors" --epochs 1 --quiet &&
        "$python" "$benchmarks/serving.py" --program "$program" --prices "$folder/market" \
            --checkpoint "$folder/model.safetensors" --out "$results/serving.json"
}

# Five seeds, each stopped when its validation loss rises.
evaluation() {
    local model=$root/out/publish/lstm
    mkdir -p "$root/out/publish" &&
        "$program" train --prices "$market" --checkpoint "$model.safetensors" --configuration cpu-fused \
            --seeds 5 --patience 3 --quiet &&
        "$program" evaluate --prices "$market" --out "$results/evaluation.json" --checkpoint \
            "$model.seed1.safetensors,$model.seed2.safetensors,$model.seed3.safetensors,$model.seed4.safetensors,$model.seed5.safetensors"
}

# The 50 tickers month by month over 2019 to 2023, five seeds.
walk_forward() {
    local folder=$root/out/walk_forward
    "$program" walk-forward --prices "$market" --configuration gpu-fused --seeds 5 --out "$folder" &&
        cp "$folder/walk_forward.json" "$results/walk_forward.json"
}

names=()
for argument in "${@:-help}"; do
    case $argument in
        gpu) names+=("${gpu[@]}") ;;
        cpu) names+=("${cpu[@]}") ;;
        *.json) names+=("$argument") ;;
        *) usage && exit 2 ;;
    esac
done
failed=()
for name in "${names[@]}"; do
    printf '\n== results/%s\n' "$name"
    start=$SECONDS
    make_result "$name" || failed+=("$name")
    printf '== results/%s: %s s\n' "$name" "$((SECONDS - start))"
done
((${#failed[@]} == 0)) || { echo "not made: ${failed[*]}" >&2 && exit 1; }
