#!/usr/bin/env python3
"""Rewrite vllm.txt, ray.txt and build.txt: each wheel pinned by hash for aarch64 and x86_64.

    pip install uv && python3 files/image/locks/update.py

Reads vllm.in (the requirements) and overrides.in (requirements of vLLM that the index cannot meet, each with its
reason), then ray.in and build.in for what Ray and source mode's build need beyond that; resolves both machines with
`uv pip compile`, and keeps one hash per machine instead of the hashes of every wheel ever uploaded. Uses the index in
UV_INDEX_URL, or PyPI.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
MACHINES = ("aarch64", "x86_64")
PYTHON = (3, 12)
GLIBC = 39
INDEX = os.environ.get("UV_INDEX_URL", "https://pypi.org/simple").rstrip("/")


def resolve(machine: str, requirements: str, *more: str) -> dict[str, str]:
    """name -> version for one machine, wheels only."""
    command = [
        "uv",
        "pip",
        "compile",
        "--no-config",
        "--no-header",
        "--no-annotate",
        "--only-binary",
        ":all:",
    ]
    command += [
        "--python-platform",
        f"{machine}-manylinux_2_{GLIBC}",
        "--python-version",
        f"{PYTHON[0]}.{PYTHON[1]}",
    ]
    command += [
        "--override",
        str(HERE / "overrides.in"),
        "--index-url",
        INDEX,
        *more,
        str(HERE / requirements),
    ]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def rank(filename: str, machine: str) -> int | None:
    """How well a wheel fits (more is better); None if it does not fit CPython 3.12 on this machine."""
    if not filename.endswith(".whl"):
        return None
    interpreters, abis, platforms = (part.split(".") for part in filename[:-4].split("-")[-3:])
    minors = [int(m.group(1)) for i in interpreters if (m := re.fullmatch(r"cp3(\d+)", i))]
    own = f"cp{PYTHON[0]}{PYTHON[1]}"
    exact = own in interpreters and own in abis
    stable = "abi3" in abis and any(minor <= PYTHON[1] for minor in minors)
    pure = "none" in abis and any(re.fullmatch(rf"py3\d*|{own}", i) for i in interpreters)
    if not (exact or stable or pure):
        return None
    best = -1
    for platform in platforms:
        match = re.fullmatch(rf"manylinux_2_(\d+)_{machine}", platform)
        if match and int(match.group(1)) <= GLIBC:
            best = max(best, int(match.group(1)))
        elif platform in (f"manylinux2014_{machine}", f"linux_{machine}"):
            best = max(best, 17)
        elif platform == "any":
            best = max(best, 0)
    return None if best < 0 else best + (1000 if exact else 500 if stable else 0)


def wheel_hash(name: str, files: list[dict[str, object]], version: str, machine: str) -> str:
    """sha256 of the wheel that pip would take."""
    found: list[tuple[int, str]] = []
    for item in files:
        filename = str(item["filename"])
        fits = rank(filename, machine)
        hashes = item["hashes"]
        if filename.split("-")[1:2] == [version] and fits is not None and isinstance(hashes, dict):
            found.append((fits, str(hashes["sha256"])))
    if not found:
        raise SystemExit(f"update.py: no wheel of {name} {version} fits {machine}: loosen vllm.in.")
    return max(found)[1]


def listing(name: str) -> list[dict[str, object]]:
    """The index's files of a project (PEP 691)."""
    request = urllib.request.Request(
        f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        files: list[dict[str, object]] = json.load(answer)["files"]
    return files


def lock(target: str, requirements: str, known: dict[str, str]) -> dict[str, str]:
    """Write `target` with what `requirements` needs beyond `known`, whose versions stay; new name -> version."""
    held = HERE / ".held.txt"
    held.write_text("".join(f"{name}=={version}\n" for name, version in known.items()), encoding="utf-8")
    try:
        pins = {machine: resolve(machine, requirements, "--constraint", str(held)) for machine in MACHINES}
    finally:
        held.unlink()
    first = pins[MACHINES[0]]
    if any(pins[machine] != first for machine in MACHINES):
        raise SystemExit(f"update.py: the machines resolve to different versions: split {target} by machine.")
    lines = [f"# Written by update.py from {requirements}; wheels for CPython 3.12 on aarch64 and x86_64."]
    new = {name: version for name, version in sorted(first.items()) if name not in known}
    for name, version in new.items():
        files = listing(name)
        hashes = sorted({wheel_hash(name, files, version, machine) for machine in MACHINES})
        lines.append(f"{name}=={version} " + " ".join(f"--hash=sha256:{digest}" for digest in hashes))
    (HERE / target).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{target}: {len(new)} wheels per machine")
    return new


def main() -> int:
    """vLLM first, then what Ray and the build of its sources need beyond it."""
    vllm = lock("vllm.txt", "vllm.in", {})
    lock("ray.txt", "ray.in", vllm)
    lock("build.txt", "build.in", vllm)
    return 0


if __name__ == "__main__":
    sys.exit(main())
