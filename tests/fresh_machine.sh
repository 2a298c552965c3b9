#!/usr/bin/env bash
# Runs ./dev as a stranger does: in an empty Debian root with nothing but a copy of this checkout.
#
#   tests/fresh_machine.sh SUITE [VERB...]      bookworm or trixie; VERB: demo (default), test, ...
#
# Needs root (or a user namespace that may mount) and mmdebstrap. The checkout is what git tracks, as
# it is in the working tree. STRANGER=sudo runs the verbs as a user who has sudo instead of as root.
# Nothing of this machine is mounted but /dev and /proc. How it reaches the network is handed on:
# proxies, pip's settings, and the certificates that SSL_CERT_FILE names.
set -euo pipefail

suite=${1:?usage: tests/fresh_machine.sh SUITE [VERB...]}
shift
verbs=("${@:-demo}")
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/fresh-machine.XXXXXX")
root=$work/root
stranger=${STRANGER:-root}
home=/srv/stranger

cleanup() {
    for folder in dev/shm dev proc; do
        mountpoint -q "$root/$folder" && umount "$root/$folder"
    done
    # KEEP=1 leaves the root for a look; a mount that could not be undone must not be deleted through.
    if [[ -z ${KEEP:-} ]] && ! grep -q " $root/" /proc/mounts; then rm -rf --one-file-system "$work"; fi
}
trap cleanup EXIT

settings=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "HOME=$home" "LANG=C.UTF-8")
while IFS='=' read -r name value; do
    case $name in
        PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_TRUSTED_HOST | PIP_DEFAULT_TIMEOUT | \
            http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY)
            settings+=("$name=$value")
            ;;
    esac
done < <(env)

echo "== an empty $suite, as $stranger"
mmdebstrap --quiet --variant=minbase "$suite" "$root"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
if [[ -n ${SSL_CERT_FILE:-} ]]; then
    install -m 644 "$SSL_CERT_FILE" "$root/etc/stranger.pem" # where no package writes
    settings+=(SSL_CERT_FILE=/etc/stranger.pem PIP_CERT=/etc/stranger.pem)
fi
mkdir -p "$root$home/return-predictor"
(cd "$checkout" && git ls-files -z | tar --null -T - -c) | tar -x -C "$root$home/return-predictor"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"

enter() { chroot "$@" env -i "${settings[@]}" bash -ec "cd $home/return-predictor && $command"; }
if [[ $stranger == sudo ]]; then
    command="apt-get update -qq && apt-get install -y -qq --no-install-recommends sudo >/dev/null"
    command+=" && useradd --home $home --shell /bin/bash stranger && chown -R stranger: $home"
    command+=" && echo 'stranger ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/stranger"
    enter "$root"
fi
for verb in "${verbs[@]}"; do
    echo "== $suite: ./dev $verb"
    start=$SECONDS
    command="./dev $verb"
    if [[ $stranger == sudo ]]; then
        enter --userspec=stranger:stranger "$root"
    else
        enter "$root"
    fi
    echo "== $suite: ./dev $verb: done in $((SECONDS - start)) s, root of $(du -sxm "$root" | cut -f1) MB"
done
