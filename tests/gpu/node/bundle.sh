#!/usr/bin/env bash
# What a GPU machine without network needs, made on a Debian machine with network (as root):
#   tests/gpu/node/bundle.sh --out DIR [--mirror URL]
# DIR gets root.tar.gz (the node's root file system with Docker, systemd and the operator's Ansible), wheels.tar (vLLM
# and what it needs beyond PyTorch) and contents.json (sizes, sha256, versions). Parts that are there, made from the same
# lists, are kept; a break leaves nothing half made. parts.py cuts the folder into pieces and joins it again.
. "$(dirname "$0")/lib.sh"

out='' mirror=http://deb.debian.org/debian
while (($#)); do
  case $1 in
    --out) out=${2:-} ;;
    --mirror) mirror=${2:-} ;;
    *) die "There is no option $1: see the head of bundle.sh." ;;
  esac
  shift 2 || die "an option needs a value: see the head of bundle.sh."
done
[ "$out" ] || die '--out is missing: name the directory for the bundle.'
[ "$(id -u)" = 0 ] || die 'run it as root: debootstrap needs it.'
command -v debootstrap >/dev/null || die 'debootstrap is not installed: apt-get install debootstrap.'
mkdir -p "$out"
out=$(realpath "$out")

# made NAME INPUT…: whether DIR/NAME was made from the INPUT files as they are now.
made() {
  local name=$1
  shift
  key=$(cat "$@" | sha256sum | cut -c1-16)
  [ -e "$out/$name" ] && [ "$(cat "$out/.$name.made-from" 2>/dev/null)" = "$key" ]
}
list() { grep -v '^#' "$1"; }

if made root.tar.gz "$NODE_HERE/packages.txt" "$NODE_HERE/operator.txt" "$NODE_HERE/trim.sh"; then
  say "root.tar.gz is up to date ($key)"
else
  root=$out/.root
  if [ "$(cat "$root.made-from" 2>/dev/null)" != "$key" ]; then
    rm -rf "$root"
    say 'debootstrap of Debian forky (3 minutes)'
    # An older debootstrap has no script for forky; the one for sid does the same.
    include=$(list "$NODE_HERE/packages.txt" | tr ' ' '\n' | sort -u | paste -sd,)
    quiet debootstrap --variant=minbase --include="$include" forky "$root" "$mirror" sid
    # shellcheck disable=SC2016  # dpkg-query replaces them
    wrong=$(chroot "$root" dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | grep -v '^ii ' || true)
    [ -z "$wrong" ] || die "packages are not installed: $wrong"
    echo "$key" >"$root.made-from"
  fi
  say 'Ansible for its Python'
  python=$(chroot "$root" python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  quiet python3 -m pip install --upgrade --no-deps --require-hashes --only-binary=:all: --no-compile --ignore-requires-python --python-version "${python#python}" \
    --target "$root/usr/local/lib/$python/dist-packages" -r "$NODE_HERE/operator.txt"
  cp -a "$root/usr/local/lib/$python/dist-packages/bin/." "$root/usr/local/bin/"
  sed -i '1s|^#!.*|#!/usr/bin/python3|' "$root"/usr/local/bin/ansible*
  rm -rf "$root"/usr/local/lib/"$python"/dist-packages/{bin,ansible_test}
  "$NODE_HERE/trim.sh" "$root"
  say 'packing it'
  tar -C "$root" --numeric-owner --sort=name -c . | gzip -6 >"$out/.root.tar.gz"
  chroot "$root" sh -c 'docker --version; systemctl --version | head -n 1; python3 --version; ansible --version | head -n 1' \
    >"$out/.versions"
  mv "$out/.root.tar.gz" "$out/root.tar.gz"
  echo "$key" >"$out/.root.tar.gz.made-from"
  rm -rf "$root" "$root.made-from"
fi

if made wheels.tar "$NODE_HERE/wheels.txt"; then
  say "wheels.tar is up to date ($key)"
else
  say "wheels of vLLM and what it needs"
  platforms=()
  for minor in $(seq 39 -1 5); do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done
  quiet python3 -m pip download --no-deps --require-hashes --only-binary=:all: --python-version 3.12 --implementation cp \
    --abi cp312 --abi abi3 --abi none "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
    --platform any -d "$out/.wheels" -r "$NODE_HERE/wheels.txt"
  tar -C "$out/.wheels" --numeric-owner --owner=0 --group=0 --mtime=@0 --sort=name -cf "$out/.wheels.tar" .
  mv "$out/.wheels.tar" "$out/wheels.tar"
  echo "$key" >"$out/.wheels.tar.made-from"
  rm -rf "$out/.wheels"
fi
python3 "$NODE_HERE/parts.py" describe "$out" root.tar.gz wheels.tar
