#!/usr/bin/env bash
# The proof on a real NVIDIA GPU: tune, then compare stock and patched vLLM. Needs a Python with torch, Triton and the
# vLLM that fits them (tried: torch 2.11.0, vLLM 0.26.0), about 70 GB of GPU memory (less with --layers).
#   tests/gpu/run.sh --out DIR [--python PYTHON] [--budget SECONDS] [--tuned DIR] [--runs N] [--layers N]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=python3 budget=480 out='' tuned='' pass=()
while (($#)); do
  case $1 in
    --out) out=$2 ;;
    --python) python=$2 ;;
    --budget) budget=$2 ;;
    --tuned) tuned=$2 ;;
    --runs | --layers) pass+=("$1" "$2") ;;
    *) echo "run.sh: unknown option $1: see the head of this file." >&2 && exit 2 ;;
  esac
  shift 2
done
[[ $out ]] || { echo 'run.sh: --out is missing: name the directory for the results.' >&2 && exit 2; }
mkdir -p "$out"
if [[ ! $tuned ]]; then
  tuned=$out/tuned
  (cd "$here/../../files/image" && "$python" -m moe_config tune --experts 512 --intermediate 512 --hidden 2048 \
    --topk 10 --budget "$budget" --output "$(realpath -m "$OLDPWD/$tuned")")
fi
exec "$python" "$here/ab.py" --out "$out" --tuned "$tuned" "${pass[@]}"
