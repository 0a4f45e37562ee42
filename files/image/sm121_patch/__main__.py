"""Command line: python3 -m sm121_patch VERB --root DIR.

check   report what would be done; exit 0 if each route has a place (nothing is written)
apply   put the routes in place and write the manifest; leaves a tree that has them unchanged
status  exit 0 only if the bytes on disk are those that this patch version writes
revert  restore the original bytes

cmake check|apply --root SRC   the architecture lists of vLLM's source, see cmake.py

Exit status: 0 as above, 1 a route is not in place, 2 refused (one sentence on stderr).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import PATCH_VERSION, PatchError, cmake, engine


def _status(root: Path, as_json: bool, untested: bool) -> int:
    made = engine.plan(root, untested)
    report = made.manifest()
    in_place = made.in_place()
    for route in report["routes"]:
        on_disk = made.current.get(route["file"])
        if route["state"] == "patched" and on_disk != made.patched[route["file"]]:
            route["state"] = "absent"
            route["reason"] = "the file on disk is not what this patch version writes; run apply"
    report["in_place"] = in_place
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        for route in report["routes"]:
            print(
                f"{route['name']}: {route['state']}: {route['file']} {route['function']}(): {route['reason']}"
            )
        print(
            f"vLLM {made.vllm_version}, patch version {PATCH_VERSION}: {'in place' if in_place else 'NOT in place'}"
        )
    return 0 if in_place else 1


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["cmake"]:
        return cmake.main(words[1:])
    parser = argparse.ArgumentParser(
        prog="sm121_patch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("check", "apply", "status", "revert"))
    parser.add_argument(
        "--root", required=True, type=Path, metavar="DIR", help="the directory that holds vllm/"
    )
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="where apply records what it did")
    parser.add_argument("--json", action="store_true", help="status as JSON")
    parser.add_argument(
        "--allow-untested", action="store_true", help="decide by the layout alone, whatever the version"
    )
    options = parser.parse_args(words)
    root: Path = options.root
    manifest: Path = options.manifest or engine.default_manifest(root)
    try:
        if options.verb == "status":
            return _status(root, options.json, options.allow_untested)
        if options.verb == "revert":
            changed = engine.revert(root, manifest)
            print("reverted: " + ", ".join(changed) if changed else "nothing to revert")
            return 0
        made = engine.plan(root, options.allow_untested)
        already = made.in_place()
        if options.verb == "apply":
            made = engine.apply(root, manifest, options.allow_untested)
            already = already and made.in_place()
        for route in made.routes:
            done = (
                "already in place" if already else "applied" if options.verb == "apply" else "can be applied"
            )
            word = done if route.state == "patched" else route.state
            print(f"{route.name}: {word}: {route.file} {route.function}(): {route.reason}")
    except PatchError as error:
        print(f"sm121_patch: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sm121_patch: {error.filename or root} cannot be written ({error.strerror}).", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
