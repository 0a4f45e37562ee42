#!/usr/bin/env bash
# The proof on a real NVIDIA GPU as one command: install, tune, time the layer again, compare servers. Run it again after
# a break and it goes on: the tuner from its journal, the others when they have no result yet (--again: measure everything again).
#   tests/gpu/run.sh --out DIR [--wheels DIR] [--python PYTHON] [--limit SECONDS] [--budget SECONDS] [--tuned DIR]
#                    [--runs N] [--layers N] [--again]
# --wheels  a directory with the wheels of vLLM and of what it needs beyond the Python's own packages; they are
#           installed beside it, into DIR/.site, without dependencies. Without it PYTHON has to have vLLM.
# --limit   the whole command ends in this time (default 1500); a part that would not fit is left to the next run
# Needs torch, Triton and the vLLM that fits them (tried: torch 2.11.0, vLLM 0.26.0), about 70 GB of GPU memory (less
# with --layers). Exit status: 0 all promises kept, 1 one was not, 2 it could not run, 124 time was up.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
image=$here/../../files/image
die() { echo "run.sh: $*" >&2; exit 2; }
out='' wheels='' python=python3 limit=1500 budget='' tuned='' again='' pass=()
while (($#)); do
  case $1 in
    --again) again=yes; shift; continue ;;
    --out | --wheels | --python | --limit | --budget | --tuned | --runs | --layers) ;;
    *) die "There is no option $1: see the head of this file." ;;
  esac
  (($# > 1)) || die "$1 needs a value: see the head of this file."
  case $1 in
    --runs | --layers) pass+=("$1" "$2") ;;
    *) declare "${1#--}=$2" ;;
  esac
  shift 2
done
[[ $out ]] || die '--out is missing: name the directory for the results.'
[[ $limit =~ ^[1-9][0-9]*$ && ${budget:-1} =~ ^[1-9][0-9]*$ ]] || die '--limit and --budget are whole seconds.'
mkdir -p "$out"
out=$(realpath "$out")
tuned=$(realpath -m "${tuned:-$out/tuned}")
end=$((SECONDS + limit))
# timed SECONDS COMMAND…: it ends when the time of the whole command does; with less than SECONDS left it is not begun.
timed() {
  local need=$1 left=$((end - SECONDS))
  shift
  ((left >= need)) || { echo "run.sh: $left s are left and the next part needs $need: run it again, it goes on." >&2; exit 124; }
  timeout --kill-after=40 "$left" "$@"
}

if [[ $wheels ]]; then
  site=$out/.site
  compgen -G "$wheels/*.whl" >/dev/null || die "$wheels has no wheels: give the directory that holds them."
  if [[ ! -e $site/.complete ]]; then
    rm -rf "$site"
    timed 30 "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
    touch "$site/.complete"
  fi
  export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi

# The tuner ends by itself when its time is up, with 1 and a file that holds vLLM's own values for the rest.
[[ ! $again ]] || rm -f "$out/.broken"
if [[ $tuned == "$out/tuned" ]] && { [[ ! -e $tuned/.complete ]] || [[ $again ]]; }; then
  left=$((end - SECONDS - 30))
  budget=${budget:-480}
  status=0
  (cd "$image" && timed 60 "$python" -m moe_config tune --experts 512 --intermediate 512 --hidden 2048 --topk 10 \
    --budget "$((budget < left ? budget : left))" --output "$tuned") || status=$?
  case $status in
    0) touch "$tuned/.complete" ;;
    1) die 'the tuner did not reach every batch size in its time: run it again, it goes on.' ;;
    *) exit "$status" ;;
  esac
fi
if [[ ! -e $out/layer.json || $again ]]; then
  status=0
  PYTHONPATH=$image${PYTHONPATH:+:$PYTHONPATH} timed 60 "$python" "$here/layer.py" --out "$out" --tuned "$tuned" || status=$?
  ((status <= 1)) || exit "$status"
  ((status == 0)) || touch "$out/.broken"
fi
if [[ ! -e $out/ab.json || $again ]]; then
  status=0
  timed 360 "$python" "$here/ab.py" --out "$out" --tuned "$tuned" --work "$out/.work" "${pass[@]}" || status=$?
  ((status <= 1)) || exit "$status"
  ((status == 0)) || touch "$out/.broken"
else
  echo "run.sh: $out has its results already: give --again to measure again."
fi
[[ ! -e $out/.broken ]] || exit 1
