#!/bin/sh
# Wheel mode, step by step: install_vllm.sh system|wheels|ray. On a base with vLLM (patch-only mode) the first two do
# nothing.
#
# system   Ubuntu's packages and the virtual environment /opt/venv
# wheels   vLLM and its dependencies, by hash from vllm.txt next to this file; wheels.json records what was installed
# ray      Ray, if $RAY is "yes" and the base has none: by hash from ray.txt, on any base with Python 3.12
set -eu

die() { echo "install_vllm: $*" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
wheels=$here/wheels.json
[ -n "${PIP_INDEX_URL:-}" ] || unset PIP_INDEX_URL
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_ONLY_BINARY=:all:

has_vllm() { python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("vllm") is None)' 2>/dev/null; }

# record: add what pip's report lists as installed to wheels.json, the source of the SBOM.
record() {
  python3 - "$wheels" <<'PYTHON'
import json, os, sys, urllib.parse

with open("/tmp/report.json", encoding="utf-8") as stream:
    items = json.load(stream)["install"]
wheels = {}
if os.path.exists(sys.argv[1]):
    with open(sys.argv[1], encoding="utf-8") as stream:
        wheels = json.load(stream)
wheels |= {
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
}

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
    record
    # The wheels' CUDA toolkit where FlashInfer and vLLM look for one: their kernels are compiled at run time.
    cuda=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cu13
    [ -x "$cuda/bin/nvcc" ] || die "The wheels brought no $cuda/bin/nvcc: is nvidia-cuda-nvcc still in vllm.txt?"
    ln -sfn "$cuda" /usr/local/cuda
    # The linker needs lib64 and names without a version, nvcc needs lib64 next to its bin.
    mkdir -p "$cuda/lib64"
    for library in "$cuda"/lib/*; do
      name=${library##*/}
      ln -sf "../lib/$name" "$cuda/lib64/$name"
      case $name in *.so.*) ln -sf "../lib/$name" "$cuda/lib64/${name%%.so.*}.so" ;; esac
    done
    # In parallel, which pip does not do; some packages ship templates that are not Python.
    python3 -m compileall -q -j 0 /opt/venv/lib >/dev/null 2>&1 || true
    ;;
  ray)
    case "${RAY:-}" in
      "") exit 0 ;;
      yes) ;;
      *) die "RAY is '$RAY': give yes, or nothing for an image without Ray." ;;
    esac
    if python3 -c 'import ray' 2>/dev/null; then echo "install_vllm: the base has Ray"; exit 0; fi
    python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' ||
      die "ray.txt is for Python 3.12 and this base has $(python3 --version): leave RAY out."
    # vLLM has its other dependencies too. The report goes into the list of wheels in wheel mode only.
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-deps --require-hashes --report /tmp/report.json -r "$here/ray.txt"
    python3 -c 'import ray' || die "Ray was installed but cannot be imported: does this base lack one of vLLM's packages?"
    if [ -f "$wheels" ]; then record; fi
    ;;
  *) die "There is no step '${1:-}': use system, wheels or ray." ;;
esac
