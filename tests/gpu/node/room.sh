#!/usr/bin/env bash
# The first process of the operator's room or of a node: builds its file system and becomes sleep, or systemd.
# node.sh starts it in new namespaces:   room.sh operator OUT | room.sh NAME GPU
. "$(dirname "$0")/lib.sh"
name=$1 given=$2
dir=$NODE_DIR/$name root=$NODE_DIR/$name/root

# A cgroup namespace has to begin in the node's own cgroup, and the process outside must not be in it: else systemd cannot
# switch controllers on, and `docker run --pids-limit` finds no pids.max.
if [ "$name" != operator ] && [ -z "${ROOM_CGROUP:-}" ]; then
  echo 0 >"$NODE_CGROUP/dgx-vllm-$name/cgroup.procs"
  export ROOM_CGROUP=yes
  exec unshare --cgroup "$0" "$@"
fi

# devices GPU…: a /dev with what a container would have, and these GPUs.
devices() {
  local gpu
  mount -t tmpfs -o mode=755,size=4m dev "$root/dev"
  cp -a /dev/{null,zero,full,random,urandom,tty} "$root/dev/"
  for gpu in "$@"; do
    [ ! -e "/dev/nvidia$gpu" ] || cp -a "/dev/nvidia$gpu" "$root/dev/"
  done
  for gpu in /dev/nvidiactl /dev/nvidia-uvm /dev/nvidia-uvm-tools; do
    [ ! -e "$gpu" ] || cp -a "$gpu" "$root/dev/"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s /proc/self/fd/0 "$root/dev/stdin"
  ln -s /proc/self/fd/1 "$root/dev/stdout"
  ln -s /proc/self/fd/2 "$root/dev/stderr"
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
}

# bind FROM TO [ro]: the same folder at another place, TO inside the new root.
bind() {
  mkdir -p "$1" "$root$2"
  mount --rbind "$1" "$root$2"
  [ -z "${3:-}" ] || mount -o remount,bind,ro "$root$2"
}

mount --make-rprivate /
mkdir -p "$dir/upper" "$dir/work" "$root"
mount -t overlay "$name" -o "lowerdir=$NODE_DIR/base,upperdir=$dir/upper,workdir=$dir/work" "$root" ||
  die "$NODE_DIR cannot hold a root: set DGX_VLLM_NODE_DIR to a folder of ext4 or xfs."
mount -t proc proc "$root/proc"
touch "$root/etc/dgx-vllm-node-$name"
if [ "$name" = operator ]; then
  devices
  bind "$given" /out
  install -d -m 0700 "$root/root/.ssh"
  [ -e "$root/root/.ssh/id_ed25519" ] || chroot "$root" ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
else
  devices "$given"
  mount -t sysfs sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=755 run "$root/run"
  mount -t tmpfs -o mode=1777 tmp "$root/tmp"
  mkdir -p "$root/run/lock" "$root/run/sshd"
  # overlay on overlay does not work: what Docker and containerd keep are plain folders.
  bind "$dir/docker" /var/lib/docker
  bind "$dir/containerd" /var/lib/containerd
  bind "$NODE_DIR/models" "$NODE_MODELS" ro
  bind "$NODE_DIR/driver" /usr/local/nvidia ro
  install -d -m 0700 "$root/root/.ssh"
  cp "$NODE_DIR/operator/upper/root/.ssh/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
  chroot "$root" ssh-keygen -A >/dev/null
  [ -s "$root/etc/machine-id" ] || tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
  chroot "$root" ldconfig
  echo "$name" >"$root/etc/hostname"
  printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >"$root/etc/hosts"
  hostname "$name"
fi
mkdir -p "$root/.outside"
cd "$root"
pivot_root . .outside
umount -l /.outside
[ "$name" != operator ] || exec sleep infinity
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --log-target=console --show-status=false
