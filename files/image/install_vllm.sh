#!/bin/sh
# Wheel mode, step by step: install_vllm.sh system|wheels|ray. Does nothing on a base that has vLLM (patch-only mode).
#
# system   Ubuntu's packages and the virtual environment /opt/venv
# wheels   vLLM and all it needs, by hash from vllm.txt beside this file; what was installed goes to wheels.json
# ray      Ray $RAY_VERSION, when that is set: by version only, whatever vllm.txt pins stays as it is
set -eu

die() { echo "install_vllm: $*" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
record=$here/wheels.json
[ -n "${PIP_INDEX_URL:-}" ] || unset PIP_INDEX_URL
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_ONLY_BINARY=:all:

has_vllm() { python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("vllm") is None)' 2>/dev/null; }

case "${1:-}" in
  system)
    if has_vllm; then echo "install_vllm: the base has vLLM: patch-only mode"; exit 0; fi
    command -v apt-get >/dev/null || die "This base has neither vLLM nor apt-get: give BASE_IMAGE=ubuntu:24.04 or an image with vLLM."
    apt-get update
    # g++ and python3-dev: Triton and FlashInfer compile small programs at run time. The RDMA libraries are for NCCL.
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ca-certificates g++ ibverbs-providers libibverbs1 libnuma1 librdmacm1 python3 python3-dev python3-venv
    rm -rf /var/lib/apt/lists/*
    python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' ||
      die "The lock is for Python 3.12 and this base has $(python3 --version): give BASE_IMAGE=ubuntu:24.04."
    python3 -m venv /opt/venv
    ;;
  wheels)
    if has_vllm; then exit 0; fi
    pip install --no-deps --no-compile --require-hashes --report /tmp/report.json -r "$here/vllm.txt"
    python3 - "$record" <<'PYTHON'
import json, sys, urllib.parse

with open("/tmp/report.json", encoding="utf-8") as stream:
    items = json.load(stream)["install"]
wheels = {
    item["metadata"]["name"]: {
        "version": item["metadata"]["version"],
        "file": urllib.parse.unquote(item["download_info"]["url"].rpartition("/")[2].partition("#")[0]),
        "sha256": item["download_info"]["archive_info"]["hashes"]["sha256"],
    }
    for item in items
}
with open(sys.argv[1], "w", encoding="utf-8") as stream:
    json.dump(wheels, stream, indent=1, sort_keys=True)
PYTHON
    rm /tmp/report.json
    # The wheels' CUDA toolkit where FlashInfer and vLLM look for one: their kernels are compiled at run time.
    cuda=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cu13
    [ -x "$cuda/bin/nvcc" ] || die "The wheels brought no $cuda/bin/nvcc: is nvidia-cuda-nvcc still in vllm.txt?"
    ln -sfn "$cuda" /usr/local/cuda
    # The linker wants lib64 and names without a version, nvcc the former beside its bin.
    mkdir -p "$cuda/lib64"
    for library in "$cuda"/lib/*; do
      name=${library##*/}
      ln -sf "../lib/$name" "$cuda/lib64/$name"
      case $name in *.so.*) ln -sf "../lib/$name" "$cuda/lib64/${name%%.so.*}.so" ;; esac
    done
    # In parallel, which pip does not do; some packages ship templates that are no Python.
    python3 -m compileall -q -j 0 /opt/venv/lib >/dev/null 2>&1 || true
    ;;
  ray)
    if [ -z "${RAY_VERSION:-}" ]; then exit 0; fi
    [ -f "$record" ] || die "RAY_VERSION is for wheel mode: this base has its own packages."
    sed 's/ --hash=.*//' "$here/vllm.txt" >/tmp/constraints.txt
    pip install -c /tmp/constraints.txt "ray[cgraph]==${RAY_VERSION}"
    rm /tmp/constraints.txt
    ;;
  *) die "There is no step '${1:-}': use system, wheels or ray." ;;
esac
