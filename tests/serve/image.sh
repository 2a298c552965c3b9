#!/bin/bash
# Builds the service's image with buildah, starts the service in it and asks it: the road of
# deploy/Dockerfile from source to answer, without a daemon and without a registry.
#
#   tests/serve/image.sh <program that can train> [folder for the work]
#
# Needs root, buildah and mmdebstrap. Prints the image's size and the answer; exit 0 when it is one.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
program=${1:?usage: image.sh <return-predictor> [folder]}
work=${2:-$(mktemp -d)}
for tool in buildah mmdebstrap curl; do
    command -v $tool >/dev/null || { echo "skipped: no $tool (apt-get install $tool)"; exit 77; }
done
buildah() { command buildah --storage-driver vfs --root "$work/store" --runroot "$work/run" "$@"; }
mkdir -p "$work/data"

if [[ ! -e $work/base.tar ]]; then
    mmdebstrap --quiet --variant=minbase bookworm "$work/base.tar"
fi
printf 'FROM scratch\nADD base.tar /\n' >"$work/base.Dockerfile"
buildah bud --isolation chroot -q -f "$work/base.Dockerfile" -t localhost/debian:bookworm-slim "$work"

began=$SECONDS
buildah bud --isolation chroot --pull-never --build-arg DEBIAN=localhost/debian:bookworm-slim \
    --target serve -f "$root/deploy/Dockerfile" -t localhost/return-predictor:serve "$root"
echo "image: built in $((SECONDS - began)) s"

"$program" synthesize --out "$work/data/prices" --tickers 4 --days 260
"$program" train --prices "$work/data/prices" --checkpoint "$work/data/model.safetensors" \
    --epochs 1 --batch 64 --threads 1 --quiet
container=$(buildah from --pull-never localhost/return-predictor:serve)
mounted=$(buildah mount "$container")
echo "image: $(du -sm "$mounted" | cut -f1) MB, compilers in it: $(find "$mounted" -name 'cc1*' | wc -l)"
chmod -R a+rX "$work/data"
buildah run --isolation chroot --volume "$work/data:/data:ro" "$container" -- \
    return-predictor serve --port 18099 --checkpoint /data/model.safetensors \
    --prices /data/prices &
service=$!
finish() {
    # The server first: buildah does not pass the signal on to what it runs.
    kill ${server:-$service} 2>/dev/null || true
    wait "$service" 2>/dev/null || true
    buildah rm "$container" >/dev/null 2>&1 || true
}
trap finish EXIT
for _ in $(seq 60); do
    curl -sf http://127.0.0.1:18099/healthz >/dev/null && break
    sleep 0.5
done
server=$(pgrep -f '^[^ ]*return-predictor serve --port 18099')
user=$(awk '/^Uid/ {print $2}' "/proc/$server/status")
answer=$(curl -sf -d '{"ticker": "SYN0001"}' http://127.0.0.1:18099/predict)
echo "image: runs as user $user and answers $answer"
[[ $answer == *predicted_return* && $user != 0 ]]
