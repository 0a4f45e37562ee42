#!/usr/bin/env bash
# The operator's room and the nodes, in namespaces of their own: they share the kernel and the GPUs with this machine,
# and neither its network nor its file system. As root:
#   node.sh up OUT GPU…    start what is not running: the operator (OUT is its /out), spark1 with the first GPU, spark2 …
#   node.sh cut NAME       the power fails: every process of the node is killed, and it boots again
#   node.sh down           stop them; what they wrote stays in DGX_VLLM_NODE_DIR
# `systemctl reboot` and `poweroff` in a node do what they say.
. "$(dirname "$0")/lib.sh"

tool() { chroot "$NODE_DIR/base" "$@"; }

# wait_for SECONDS COMMAND…
wait_for() {
  local tries=$(($1 * 5))
  shift
  while ! ("$@") >/dev/null 2>&1; do
    ((tries-- > 0)) || return 1
    sleep 0.2
  done
}

# driver: the driver's libraries and nvidia-smi as one folder, whatever this machine's distribution does with them.
driver() {
  local lib
  mkdir -p "$NODE_DIR/driver"
  if mountpoint -q "$NODE_DIR/driver" || [ -e "$NODE_DIR/driver/lib64" ]; then return; fi
  if [ -d /usr/local/nvidia/lib64 ]; then
    mount --rbind /usr/local/nvidia "$NODE_DIR/driver"
    return
  fi
  mkdir -p "$NODE_DIR/driver/lib64" "$NODE_DIR/driver/bin"
  ! command -v nvidia-smi >/dev/null || cp -L "$(command -v nvidia-smi)" "$NODE_DIR/driver/bin/"
  ldconfig -p | awk '/(libcuda|libnvidia|libnvcuvid)[^ ]*\.so/ && /x86-64/ {print $NF}' | while read -r lib; do
    cp -a "$(dirname "$lib")/$(basename "$lib" | sed 's/\.so.*//')".so* "$NODE_DIR/driver/lib64/"
  done
}

# plug NAME NUMBER: the cable between a node that has just started and the operator.
plug() {
  local pid
  pid=$(pid_of "$1")
  inside operator ip link add "$1" type veth peer name eth0 netns "$pid"
  inside operator ip link set "$1" master nodes up
  nsenter -t "$pid" -n -r -- /sbin/ip address add "$NODE_NET.$((10 + $2))/24" dev eth0
  nsenter -t "$pid" -n -r -- /sbin/ip link set eth0 up
  nsenter -t "$pid" -n -r -- /sbin/ip link set lo up
}

# child_of PID: the number of its child; fails if it has none.
child_of() {
  # A process may end while its number is looked at.
  { cat /proc/[0-9]*/stat 2>/dev/null || true; } |
    awk -v parent="$1" '$4 == parent && !found {print $1; found = 1} END {exit !found}'
}

# removed GROUP: remove a cgroup and those below; fails while one is busy.
removed() {
  find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
  [ ! -e "$1" ]
}

# keep NAME NUMBER GPU: start the node, and start it again when it reboots or its power fails.
keep() {
  local name=$1 number=$2 gpu=$3 outer status group=$NODE_CGROUP/dgx-vllm-$1
  while :; do
    # A group in which the last systemd switched controllers on takes no process any more: it has to be another one.
    [ ! -e "$group/cgroup.kill" ] || echo 1 >"$group/cgroup.kill"
    wait_for 20 removed "$group"
    mkdir "$group"
    unshare --mount --pid --uts --ipc --net --fork "$NODE_HERE/room.sh" "$name" "$gpu" >>"$NODE_DIR/$name/console.log" 2>&1 &
    outer=$!
    wait_for 20 child_of "$outer" || return 1
    child_of "$outer" >"$NODE_DIR/$name/pid"
    wait_for 30 pid_of "$name" && plug "$name" "$number"
    status=0
    wait "$outer" || status=$?
    # A node that reboots ends with SIGHUP; `cut` leaves a word.
    [ "$status" = 129 ] || [ -e "$NODE_DIR/$name/power" ] || break
    rm -f "$NODE_DIR/$name/power"
    sleep 1
  done
  rm -f "$NODE_DIR/$name/pid"
  find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# kept NAME: whether a keeper of the node runs.
kept() {
  local pid
  pid=$(cat "$NODE_DIR/$1/keeper" 2>/dev/null) && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "node.sh keep $1 "
}

up() {
  local out=$1 number=0 gpu name controller
  shift
  [ -e "$NODE_DIR/base/etc/os-release" ] || die "$NODE_DIR/base is missing: run.sh unpack."
  driver
  for controller in cpuset cpu io memory pids; do
    echo "+$controller" >"$NODE_CGROUP/cgroup.subtree_control" 2>/dev/null || say "no controller $controller here"
  done
  if ! pid_of operator >/dev/null; then
    mkdir -p "$NODE_DIR/operator"
    setsid unshare --mount --net "$NODE_HERE/room.sh" operator "$out" >"$NODE_DIR/operator/console.log" 2>&1 </dev/null &
    echo $! >"$NODE_DIR/operator/pid"
    # shellcheck disable=SC2016
    wait_for 20 sh -c '[ "$(cat /proc/$0/comm)" = sleep ]' "$(cat "$NODE_DIR/operator/pid")" ||
      die "the operator's room did not start: $(tail -n 3 "$NODE_DIR/operator/console.log")"
    inside operator ip link set lo up
    inside operator ip link add nodes type bridge
    inside operator ip address add "$NODE_NET.1/24" dev nodes
    inside operator ip link set nodes up
  fi
  for gpu in "$@"; do
    number=$((number + 1)) name=spark$number
    if kept "$name"; then continue; fi
    mkdir -p "$NODE_DIR/$name"
    rm -f "$NODE_DIR/$name/pid"
    setsid "$NODE_HERE/node.sh" keep "$name" "$number" "$gpu" >"$NODE_DIR/$name/keeper.log" 2>&1 </dev/null &
    echo $! >"$NODE_DIR/$name/keeper"
  done
  for ((; number > 0; number--)); do
    wait_for 60 inside "spark$number" systemctl is-active ssh.service ||
      die "spark$number did not boot: $(tail -n 5 "$NODE_DIR/spark$number/console.log")"
    say "spark$number: $(inside "spark$number" systemctl is-system-running --wait || true)"
  done
}

down() {
  local name pid
  for name in "$NODE_DIR"/spark*; do
    name=$(basename "$name")
    pid=$(pid_of "$name") || continue
    inside "$name" systemctl poweroff --no-wall >/dev/null 2>&1 || kill -TERM "$pid"
    wait_for 90 sh -c "! kill -0 $pid" || kill -KILL "$pid"
  done
  if pid=$(pid_of operator); then kill "$pid"; fi
  rm -f "$NODE_DIR/operator/pid"
  if mountpoint -q "$NODE_DIR/driver"; then umount -l "$NODE_DIR/driver"; fi
}

[ "$(id -u)" = 0 ] || die 'run it as root: it makes namespaces and mounts.'
[ "$NODE_CGROUP" ] || die 'this machine has no cgroup v2 (mount -t cgroup2 …): systemd of the node needs it.'
case ${1:-} in
  up | down) "$@" ;;
  keep) "$@" ;;
  cut)
    pid=$(pid_of "${2:?node}") || die "$2 is not running."
    touch "$NODE_DIR/$2/power"
    kill -KILL "$pid"
    ;;
  *) die 'node.sh up OUT GPU… | cut NAME | down' ;;
esac
