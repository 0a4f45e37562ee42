# shellcheck shell=bash
# shellcheck disable=SC2034  # names for those who source this file
# What the testbed's scripts share. Source it; it sets the names below and runs nothing else.
#   TESTBED_ROOT    the checkout           TESTBED_SHARED  molecule/shared in it
#   TESTBED_CACHE   what is kept between runs, named by the hash of what it was made from
set -euo pipefail

TESTBED_SHARED=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
TESTBED_ROOT=$(cd "$TESTBED_SHARED/../.." && pwd -P)
TESTBED_CACHE=${DGX_VLLM_TEST_CACHE:-$HOME/.cache/dgx-vllm}
TESTBED_PREFIX=${DGX_VLLM_TEST_NAME:-dgx-vllm}        # begins every name here; a second testbed needs another one, and
                                                      # another cache, net and push port
TESTBED_NAME=$TESTBED_PREFIX-testbed                  # network and services container
TESTBED_NET=${DGX_VLLM_TEST_NET:-10.203.77}           # first three octets of the testbed's /24
TESTBED_REGISTRY=registry.testbed.test:5000           # as the nodes call it
TESTBED_PUSH_PORT=${DGX_VLLM_TEST_PUSH_PORT:-15077}   # loopback port of this machine that leads to the registry
TESTBED_IMAGES=$TESTBED_PREFIX-test                   # prefix of the images on this machine
# Passwords of the testbed's own registry and hub, for tests only; the inventories name the same.
export TESTBED_REGISTRY_USER=operator TESTBED_REGISTRY_PASSWORD=registry-word-for-tests TESTBED_HUB_TOKEN=hf_tokenForTestsOnly000000000000000000
mkdir -p "$TESTBED_CACHE"

# say TEXT: one line of progress with the seconds since the command began.
say() { printf '[testbed %4ds] %s\n' "$SECONDS" "$*" >&2; }
die() { printf 'testbed: %s\n' "$*" >&2; exit 1; }

# as_root COMMAND…: run it as root, through sudo if we are another user.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi; }

# dk ARGS…: docker, through sudo if we may not use its socket.
dk() {
  if [ -z "${TESTBED_DOCKER:-}" ]; then
    if docker version >/dev/null 2>&1; then TESTBED_DOCKER=docker; else TESTBED_DOCKER='sudo docker'; fi
    export TESTBED_DOCKER
  fi
  # shellcheck disable=SC2086  # two words if sudo is needed
  DOCKER_BUILDKIT=0 $TESTBED_DOCKER "$@"
}

# digest PATH…: 12 hex digits of the names and contents of files and directories.
digest() {
  local path
  for path in "$@"; do
    if [ -d "$path" ]; then
      (cd "$path" && find . -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum)
    else
      sha256sum <"$path"
    fi
  done | sha256sum | cut -c1-12
}

# text_digest: 12 hex digits of standard input.
text_digest() { sha256sum | cut -c1-12; }

# quiet COMMAND…: run it without its output, and show the end of it only if it fails.
quiet() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  [ "$status" = 0 ] || tail -n 40 "$log" >&2
  rm -f "$log"
  return "$status"
}

# vm_runs NAME: whether the QEMU machine of that name is up; the recorded id alone could belong to another process by now.
vm_runs() {
  local pid
  pid=$(cat "$TESTBED_CACHE/machines/$1/pid" 2>/dev/null) || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -q -- "^qemu-system-x86_64 -name $1 "
}

has_image() { dk image inspect "$1" >/dev/null 2>&1; }

# apt_install PACKAGE…: only what is missing, on this machine.
apt_install() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing on this machine: ${missing[*]}"
  as_root apt-get update -q=2
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q=2 --no-install-recommends "${missing[@]}" >&2
}

# host_mirror: the Debian mirror that this machine itself uses (any other distribution: DGX_VLLM_TEST_MIRROR or Debian's own).
host_mirror() {
  local uri=
  if [ -n "${DGX_VLLM_TEST_MIRROR:-}" ]; then echo "$DGX_VLLM_TEST_MIRROR"; return; fi
  if grep -q '^ID=debian' /etc/os-release; then
    uri=$(apt-get indextargets --format '$(SITE) $(REPO_URI) $(COMPONENT)' 2>/dev/null |
      awk '$3 == "main" && $2 !~ /security/ {print $2; exit}')
  fi
  uri=${uri%/}
  echo "${uri:-http://deb.debian.org/debian}"
}

# host_apt_conf: this machine's proxy and date settings, for apt inside the images.
host_apt_conf() {
  apt-config dump | grep -E '^Acquire::(http|https)::(Proxy|Verify|CaInfo)|^Acquire::Check-(Valid-Until|Date) ' || true
}
