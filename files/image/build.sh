#!/bin/sh
# Build the image: build.sh [patch-only|wheel|source] [-t NAME[:TAG]] [further `docker build` arguments]
#
# patch-only (default)  FROM an existing vLLM image; --build-arg BASE_IMAGE=… BASE_DIGEST=sha256:… VLLM_VERSION=…
# wheel                 official vLLM wheel and its dependencies, pinned by hash, on a CUDA base
# source                vLLM compiled for the GB10
#
# After the build the labels that only the finished image can tell are added: the vLLM version and the digest of
# the patch manifest.
set -eu

die() { echo "build.sh: $*" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
mode=patch-only
case "${1:-}" in
  patch-only|wheel|source) mode=$1; shift ;;
  -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
  ""|-*) ;;
  *) die "There is no mode $1: use patch-only, wheel or source." ;;
esac
tag=dgx-vllm
if [ "${1:-}" = -t ]; then
  [ $# -ge 2 ] || die "-t needs a name: give -t NAME[:TAG]."
  tag=$2
  shift 2
fi
file=$here/Dockerfile
[ "$mode" = patch-only ] || file=$here/Dockerfile.$mode
[ -f "$file" ] || die "$file is missing: this checkout has no $mode mode."
command -v docker >/dev/null || die "docker is not installed: install Docker 20.10 or newer."

revision=$(git -C "$here" rev-parse --quiet --verify HEAD 2>/dev/null || echo unknown)
docker build --file "$file" --tag "$tag" --build-arg "REVISION=$revision" "$@" "$here"

work=$(mktemp -d)
container=
cleanup() {
  [ -z "$container" ] || docker rm "$container" >/dev/null
  rm -rf "$work"
}
trap cleanup EXIT
container=$(docker create "$tag" true)
docker cp "$container:/opt/dgx-vllm/manifest.json" "$work/manifest.json" >/dev/null ||
  die "$tag has no patch manifest: the patch layer did not run."
digest=$(sha256sum "$work/manifest.json" | cut -d' ' -f1)
version=$(sed -n 's/^ *"vllm_version": "\(.*\)",\{0,1\}$/\1/p' "$work/manifest.json")
[ -n "$version" ] || die "$tag has a manifest without a vLLM version."
printf 'FROM %s\n' "$tag" | docker build --quiet --tag "$tag" \
  --label "dev.dgx-vllm.patch-manifest-sha256=$digest" \
  --label "dev.dgx-vllm.vllm-version=$version" \
  --label "org.opencontainers.image.version=$version" - >/dev/null
echo "build.sh: $tag: vLLM $version, patch manifest sha256 $digest"
