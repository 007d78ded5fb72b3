#!/bin/sh
# A NATS server, a gateway on port 7860 and workers on this machine, as deploy/compose.yaml has them in containers.
#   deploy/local.sh [WORKERS] [OPTIONS OF prima worker ...]
# Ctrl-C ends all of them: workers finish what they are at.
set -eu
prima=${PRIMA:-prima}
workers=${1:-2}
[ $# -gt 0 ] && shift
command -v "$prima" >/dev/null || { echo "there is no $prima: cargo install --path crates/cli, or PRIMA=target/release/prima" >&2; exit 1; }
command -v nats-server >/dev/null || { echo "there is no nats-server: apt install nats-server, or get it from nats.io" >&2; exit 1; }
store=${PRIMA_NATS_STORE:-${XDG_STATE_HOME:-$HOME/.local/state}/prima/nats}
mkdir -p "$store"
trap 'kill 0' INT TERM
nats-server -js -a 127.0.0.1 -sd "$store" &
sleep 1
"$prima" gateway --port 7860 &
i=0
while [ "$i" -lt "$workers" ]; do
    "$prima" worker --name "worker-$i" --port $((7861 + i)) "$@" &
    i=$((i + 1))
done
wait
