#!/usr/bin/env python3
"""Cut a bundle into parts that travel one by one, and put it together again; every part is checked by its sha256.

    parts.py describe BUNDLE FILE…        write BUNDLE/contents.json
    parts.py split BUNDLE PARTS [--mib 55]   PARTS/NN/…: a folder for each part, with the list of all of them
    parts.py take PARTS/NN INTO           keep the parts of a folder (again: nothing), join the files that are complete

`take` prints what is still missing and exits 0; with --all it exits 1 until nothing is. Python 3.9, standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

CONTENTS = "contents.json"
LIST = "parts.json"
BLOCK = 1 << 20


class PartsError(Exception):
    """One sentence: what is wrong, where, and how to fix it."""


def sha256(path: Path) -> str:
    """The digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def describe(bundle: Path, names: list[str]) -> dict[str, Any]:
    """Write sizes and digests of the bundle's files, and the versions in it."""
    files = [
        {"name": name, "size": (bundle / name).stat().st_size, "sha256": sha256(bundle / name)}
        for name in names
    ]
    versions = bundle / ".versions"
    contents = {
        "files": files,
        "versions": versions.read_text(encoding="utf-8").splitlines() if versions.exists() else [],
    }
    (bundle / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    return contents


def split(bundle: Path, target: Path, size: int) -> list[dict[str, Any]]:
    """Write the files of contents.json as parts of at most `size` bytes; parts that are right already stay."""
    contents = json.loads((bundle / CONTENTS).read_text(encoding="utf-8"))
    parts: list[dict[str, Any]] = []
    for file in contents["files"]:
        with (bundle / file["name"]).open("rb") as stream:
            for number in range(-(-file["size"] // size)):
                data = stream.read(size)
                name = f"{file['name']}.{number:03d}"
                folder = target / f"{len(parts):02d}"
                folder.mkdir(parents=True, exist_ok=True)
                part = {"name": name, "of": file["name"], "sha256": hashlib.sha256(data).hexdigest()}
                if not (folder / name).exists() or sha256(folder / name) != part["sha256"]:
                    (folder / name).write_bytes(data)
                parts.append(part)
    text = json.dumps({"contents": contents, "parts": parts}, indent=1) + "\n"
    for number in range(len(parts)):
        (target / f"{number:02d}" / LIST).write_text(text, encoding="utf-8")
    return parts


def take(folder: Path, into: Path) -> list[str]:
    """Keep the parts of a folder, join what is complete; the names of the parts that are still missing."""
    listed = json.loads((folder / LIST).read_text(encoding="utf-8"))
    into.mkdir(parents=True, exist_ok=True)
    known = into / LIST
    if known.exists() and json.loads(known.read_text(encoding="utf-8")) != listed:
        raise PartsError(
            f"{folder} belongs to another bundle than {into}: empty {into}, or give the right parts."
        )
    shutil.copyfile(folder / LIST, known)
    missing: list[str] = []
    for file in listed["contents"]["files"]:
        if (into / file["name"]).exists():
            continue
        parts = [part for part in listed["parts"] if part["of"] == file["name"]]
        lacking = [part["name"] for part in parts if not _kept(part, folder, into)]
        missing += lacking
        if not lacking:
            _join(file, [into / part["name"] for part in parts], into)
    if not missing:
        (into / CONTENTS).write_text(json.dumps(listed["contents"], indent=1) + "\n", encoding="utf-8")
    return missing


def _kept(part: dict[str, Any], folder: Path, into: Path) -> bool:
    """Whether a part is in `into`, copied from `folder` if it is there; a damaged one is refused."""
    kept, offered = into / part["name"], folder / part["name"]
    if kept.exists():
        return True
    if not offered.exists():
        return False
    if sha256(offered) != part["sha256"]:
        raise PartsError(f"{offered} is damaged (its sha256 is another one): send it again.")
    unfinished = into / f".{part['name']}"
    shutil.copyfile(offered, unfinished)
    unfinished.replace(kept)
    return True


def _join(file: dict[str, Any], parts: list[Path], into: Path) -> None:
    """One file of its parts, which are removed once the whole is right."""
    unfinished = into / f".{file['name']}"
    digest = hashlib.sha256()
    with unfinished.open("wb") as stream:
        for part in parts:
            data = part.read_bytes()
            digest.update(data)
            stream.write(data)
    if digest.hexdigest() != file["sha256"]:
        for part in parts:
            part.unlink()
        unfinished.unlink()
        raise PartsError(
            f"{file['name']} is damaged (its parts do not give its sha256): send its parts again."
        )
    unfinished.replace(into / file["name"])
    for part in parts:
        part.unlink()


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("describe")
    verb.add_argument("bundle", type=Path)
    verb.add_argument("files", nargs="+")
    verb = verbs.add_parser("split")
    verb.add_argument("bundle", type=Path)
    verb.add_argument("parts", type=Path)
    verb.add_argument("--mib", type=int, default=55)
    verb = verbs.add_parser("take")
    verb.add_argument("folder", type=Path)
    verb.add_argument("into", type=Path)
    verb.add_argument("--all", action="store_true")
    options = parser.parse_args(argv)
    try:
        if options.verb == "describe":
            print(json.dumps(describe(options.bundle, options.files), indent=1))
        elif options.verb == "split":
            parts = split(options.bundle, options.parts, options.mib << 20)
            print(f"{len(parts)} parts in {options.parts}")
        else:
            missing = take(options.folder, options.into)
            print(f"missing: {' '.join(missing)}" if missing else "complete")
            return 1 if missing and options.all else 0
    except (PartsError, OSError) as error:
        print(f"parts: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
