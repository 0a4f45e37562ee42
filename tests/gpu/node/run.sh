#!/usr/bin/env bash
# The role on a real GPU as one command, as root on a Linux machine with an NVIDIA GPU:
#   tests/gpu/node/run.sh --out DIR --bundle DIR [--python PYTHON] [--image FILE] [--toolkit DIR] [--limit SECONDS]
#                         [--gpus N] [--only VERB] [PYTEST ARGUMENTS]
# --bundle   what bundle.sh made (there is no network needed then)
# --python   a Python 3.12 with PyTorch 2.11 and what the bundle's wheels do not bring; it makes the models, and the base
#            image is this machine's /usr, /etc and that Python with vLLM added (default: python3)
# --image    a `docker save` archive of an image with vLLM instead, such as vllm/vllm-openai
# --toolkit  a folder with NVIDIA's container toolkit as .deb packages; without it a stand-in takes its place
# --limit    begin no step that would not end in this time (default 1500); another run goes on from there
# --gpus     2: the pair as well, one GPU each (default 1)
# --only     one of: unpack models up machine base trial report down; without it all but down
# DIR gets results.json, report.md, and logs. Exit status: 0 every step passed, 1 one did not, 2 it could not run,
# 124 steps are left for the next run.
# shellcheck disable=SC2329  # the parts are called by their names
. "$(dirname "$0")/lib.sh"

out='' bundle='' python=python3 image='' toolkit='' limit=1500 gpus=1 only=''
while (($#)); do
  case $1 in
    --out | --bundle | --python | --image | --toolkit | --limit | --gpus | --only)
      (($# > 1)) || die "$1 needs a value: see the head of run.sh."
      declare "${1#--}=$2"
      shift 2
      ;;
    *) break ;;
  esac
done
[ "$out" ] || die '--out is missing: name the directory for the results.'
[[ $limit =~ ^[1-9][0-9]*$ && $gpus =~ ^[12]$ ]] || die '--limit is whole seconds, --gpus 1 or 2.'
[ "$(id -u)" = 0 ] || die 'run it as root: it makes namespaces and mounts.'
mkdir -p "$out" "$NODE_DIR"
out=$(realpath "$out")
begun=$(date +%s)
exec 9>"$NODE_DIR/lock"
flock -n 9 || { say 'waiting for another run.sh to end'; flock 9; }

# timed NAME COMMAND…: run it, and keep its seconds for the report.
timed() {
  local name=$1 start
  start=$(date +%s.%N)
  shift
  say "$name"
  "$@"
  mkdir -p "$out/times"
  awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f\n", b - a}' >"$out/times/$name"
}

unpack() {
  local want
  [ "$bundle" ] && [ -e "$bundle/root.tar.gz" ] || die "--bundle names no folder with root.tar.gz: bundle.sh makes one."
  want=$(stat -c '%s %Y' "$bundle/root.tar.gz")
  [ "$(cat "$NODE_DIR/base.made-from" 2>/dev/null)" != "$want" ] || return 0
  rm -rf "$NODE_DIR/base"
  mkdir -p "$NODE_DIR/base"
  tar -C "$NODE_DIR/base" --numeric-owner -xzpf "$bundle/root.tar.gz"
  echo "$want" >"$NODE_DIR/base.made-from"
}

models() {
  "$python" "$NODE_HERE/gen_model.py" "$NODE_DIR/models" >"$out/models.json.new"
  mv "$out/models.json.new" "$out/models.json"
}

up() {
  local gpu list=()
  for ((gpu = 0; gpu < gpus; gpu++)); do list+=("$gpu"); done
  mkdir -p "$NODE_DIR/models"
  if [ -e /dev/nvidiactl ] && [ ! -e /dev/nvidia-uvm ]; then
    "$python" -c 'import torch; torch.cuda.init()' || die 'there is no /dev/nvidia-uvm: nvidia-modprobe -u -c 0 makes it.'
  fi
  # What goes on running must not hold the lock.
  "$NODE_HERE/node.sh" up "$out" "${list[@]}" 9>&-
  for ((gpu = 1; gpu <= gpus; gpu++)); do install_toolkit "spark$gpu"; done
}

install_toolkit() {
  local name=$1
  if [ "$toolkit" ]; then
    if ! inside "$name" dpkg-query -W nvidia-container-toolkit >/dev/null 2>&1; then
      # Docker looks for the hook behind --gpus when it starts.
      tar -C "$toolkit" -c . | inside "$name" sh -c 'mkdir -p /var/tmp/toolkit && tar -C /var/tmp/toolkit -x &&
        dpkg -i /var/tmp/toolkit/*.deb && rm -r /var/tmp/toolkit && systemctl restart docker.service' >/dev/null
    fi
    # shellcheck disable=SC2016  # dpkg-query replaces them
    inside "$name" dpkg-query -W -f '${Package} ${Version} (${Description})\n' nvidia-container-toolkit >"$out/toolkit"
  else
    if inside "$name" test -e /usr/lib/dgx-vllm-stand-in/nvidia-ctk; then return; fi
    tar -C "$NODE_HERE/toolkit" -c . | inside "$name" sh -c 'mkdir -p /var/tmp/toolkit && tar -C /var/tmp/toolkit -x'
    tar -C "$NODE_PROJECT/molecule/shared/apt/toolkit-base" -c . |
      inside "$name" sh -c 'mkdir -p /var/tmp/toolkit/bed && tar -C /var/tmp/toolkit/bed -x && sh /var/tmp/toolkit/install'
    echo 'a stand-in' >"$out/toolkit"
  fi
}

# machine: this machine's own system and PyTorch as the image "machine"; secrets and what vLLM does not need stay here.
machine() {
  local prefix paths=() path
  if inside spark1 docker image inspect machine >/dev/null 2>&1; then return; fi
  prefix=$("$python" -c 'import sys; print(sys.prefix)')
  for path in usr bin sbin lib lib32 lib64 libx32 etc; do [ ! -e "/$path" ] || paths+=("$path"); done
  for path in "$prefix" "$("$python" -c 'import sys; print(sys.base_prefix)')"; do
    [[ $path == /usr* ]] || paths+=("${path#/}")
  done
  # tar ends with 1 when a file changed while it was read: logs do.
  { tar -C / --numeric-owner --exclude='etc/shadow*' --exclude='etc/gshadow*' --exclude=etc/ssh --exclude=etc/ssl/private \
    --exclude=usr/local/nvidia --exclude='usr/local/cuda*' --exclude=usr/share/doc --exclude=usr/share/man --exclude=usr/src \
    --exclude='usr/lib/firmware' --exclude='usr/lib/modules' --exclude="${NODE_DIR#/}" \
    --exclude='*/site-packages/jax*' --exclude='*/site-packages/cupy*' --exclude='*/site-packages/onnx*' \
    --exclude='*/site-packages/tensor*' --warning=no-file-changed -c "${paths[@]}" || [ $? = 1 ]; } |
    inside spark1 docker import -c "ENV PATH=$prefix/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" - machine >/dev/null
}

# base: the image that the role patches.
base() {
  if inside spark1 docker image inspect "$NODE_BASE" >/dev/null 2>&1; then return; fi
  if [ "$image" ]; then
    name=$(inside spark1 docker load -q <"$image" | sed -n 's/^Loaded image: //p')
    [ "$name" ] || die "$image is no archive of one tagged image."
    inside spark1 docker tag "$name" "$NODE_BASE"
    return
  fi
  [ -e "$bundle/wheels.tar" ] || die '--bundle names no folder with wheels.tar: bundle.sh makes one.'
  inside spark1 sh -c 'rm -rf /var/tmp/base && mkdir -p /var/tmp/base/wheels && tar -C /var/tmp/base/wheels -x' <"$bundle/wheels.tar"
  inside spark1 sh -c 'cat >/var/tmp/base/Dockerfile' <"$NODE_HERE/Dockerfile"
  quiet inside spark1 docker build --network none -t "$NODE_BASE" /var/tmp/base
  inside spark1 rm -rf /var/tmp/base
}

trial() {
  local left status=0 files=(role models quick_start tune)
  left=$((limit - ($(date +%s) - begun)))
  # The operator works from a copy, so that the checkout may change meanwhile.
  inside operator rm -rf /root/project
  tar -C "$NODE_PROJECT" --exclude=./.git --exclude=./.venv --exclude='./.whl' --exclude=./shared --exclude='./.gpu*' --exclude='*_cache' -c . |
    inside operator sh -c 'mkdir -p /root/project && tar -C /root/project -x'
  # shellcheck disable=SC2016  # the shell in the room replaces it
  inside operator env TRIAL_OUT=/out TRIAL_LEFT="$left" TRIAL_NET="$NODE_NET" TRIAL_MODELS="$NODE_MODELS" TRIAL_BASE="$NODE_BASE" \
    sh -c 'cd /root/project/tests/gpu/node/trial && exec python3 -m pytest -q -p no:cacheprovider --rootdir=. -c pytest.ini "$@"' \
    trial "${files[@]/%/.py}" "$@" || status=$?
  return "$status"
}

facts() {
  "$python" "$NODE_HERE/about.py" --bundle "${bundle:-/nonexistent}" >"$out/machine.json.new" && mv "$out/machine.json.new" "$out/machine.json"
}

if [ "$only" ]; then
  case $only in
    down) "$NODE_HERE/node.sh" down ;;
    trial) trial "$@" ;;
    report) "$python" "$NODE_HERE/write_report.py" "$out" ;;
    unpack | models | up | machine | base) timed "$only" "$only" ;;
    *) die "There is no part $only: see the head of run.sh." ;;
  esac
  exit
fi
timed unpack unpack
timed models models
timed up up
[ "$image" ] || timed machine machine
timed base base
facts || say 'what this machine is could not be read'
status=0
trial "$@" || status=$?
"$python" "$NODE_HERE/write_report.py" "$out" || status=$?
exit "$status"
