# shellcheck shell=bash
# shellcheck disable=SC2034  # names for those who source this file
# What the scripts of this folder share. Source it; it sets the names below and runs nothing else.
#   NODE_HERE     this folder             NODE_PROJECT  the checkout that it is in
#   NODE_DIR      where root, nodes and models are; about 40 GB of a file system that overlayfs can write to
#   NODE_NET      first three octets of the network between the operator and the nodes (seen by nobody else)
set -euo pipefail

NODE_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
NODE_PROJECT=$(cd "$NODE_HERE/../../.." && pwd -P)
NODE_DIR=${DGX_VLLM_NODE_DIR:-/var/tmp/dgx-vllm-node}
NODE_NET=${DGX_VLLM_NODE_NET:-10.213.88}
NODE_CGROUP=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
NODE_BASE=vllm-gpu:0.26.0
NODE_MODELS=/var/lib/dgx-vllm-trial/models

say() { printf '[node %4ds] %s\n' "$SECONDS" "$*" >&2; }
die() { printf 'node: %s\n' "$*" >&2; exit 2; }

# quiet COMMAND…: run it without its output, and show the end of it only if it fails.
quiet() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  [ "$status" = 0 ] || tail -n 40 "$log" >&2
  rm -f "$log"
  return "$status"
}

# pid_of NAME: the process 1 of a node, or the process that holds the operator's namespaces; fails if it is not there.
pid_of() {
  local pid
  pid=$(cat "$NODE_DIR/$1/pid" 2>/dev/null) && [ -e "/proc/$pid/root/etc/dgx-vllm-node-$1" ] && echo "$pid"
}

# inside NAME COMMAND…: run it in a node, or in the operator's room.
inside() {
  local name=$1 pid
  shift
  pid=$(pid_of "$name") || die "$name is not running: start it with run.sh up."
  if [ "$name" = operator ]; then
    set -- nsenter -t "$pid" -m -n -r -w -- "$@"
  else
    set -- nsenter -t "$pid" -m -p -u -i -n -C -r -w -- "$@"
  fi
  env -i HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
