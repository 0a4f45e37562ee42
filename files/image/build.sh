#!/bin/sh
# Build the image: build.sh [wheel|patch-only|source] [-t NAME[:TAG]] [additional `docker build` arguments]
#
# wheel (default)  vLLM's official wheel and its dependencies, by hash, on Ubuntu 24.04; minutes
# patch-only       FROM an image that has vLLM: --build-arg BASE_IMAGE=… (default vllm/vllm-openai:v0.33.0)
# source           vLLM compiled for the GB10; hours
#
# --build-arg BASE_DIGEST=sha256:… pins the base. After the build the labels that need the finished image are
# added: the mode, the vLLM version, and the digests of the patch manifest and of the SBOM.
set -eu

die() { echo "build.sh: $*" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
mode=wheel
case "${1:-}" in
  patch-only|wheel|source) mode=$1; shift ;;
  -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
  ""|-*) ;;
  *) die "There is no mode $1: use wheel, patch-only or source." ;;
esac
tag=dgx-vllm
if [ "${1:-}" = -t ]; then
  [ $# -ge 2 ] || die "-t needs a name: give -t NAME[:TAG]."
  tag=$2
  shift 2
fi
file=$here/Dockerfile
case $mode in
  source) file=$here/Dockerfile.source ;;
  patch-only) set -- --build-arg BASE_IMAGE=docker.io/vllm/vllm-openai:v0.33.0 "$@" ;;
esac
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
for name in manifest.json sbom.cdx.json; do
  docker cp "$container:/opt/dgx-vllm/$name" "$work/$name" >/dev/null ||
    die "$tag has no /opt/dgx-vllm/$name: the patch layer did not run."
done
made=patch-only
if docker cp "$container:/opt/dgx-vllm/wheels.json" "$work/" >/dev/null 2>&1; then made=wheel; fi
if [ "$mode" = source ]; then made=source; fi
[ "$made" = "$mode" ] || die "This is a $made build, not $mode: wheel mode needs a base without vLLM, patch-only one with it."
manifest=$(sha256sum "$work/manifest.json" | cut -d' ' -f1)
sbom=$(sha256sum "$work/sbom.cdx.json" | cut -d' ' -f1)
version=$(sed -n 's/^ *"vllm_version": "\(.*\)",\{0,1\}$/\1/p' "$work/manifest.json")
[ -n "$version" ] || die "$tag has a manifest without a vLLM version."
printf 'FROM %s\n' "$tag" | docker build --quiet --tag "$tag" \
  --label "dev.dgx-vllm.mode=$mode" \
  --label "dev.dgx-vllm.vllm-version=$version" \
  --label "dev.dgx-vllm.patch-manifest-sha256=$manifest" \
  --label "dev.dgx-vllm.sbom-sha256=$sbom" \
  --label "org.opencontainers.image.version=$version" - >/dev/null
echo "build.sh: $tag: $mode mode, vLLM $version, patch manifest sha256 $manifest"
