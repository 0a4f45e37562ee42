"""doctor: compile every entry of tuned files for a GPU that need not be present, and report the bad ones."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import ConfigError, kernel
from .kernel import Compiled
from .space import Config, Shape, shared_limit

_NAME = re.compile(
    r"E=(?P<e>\d+),N=(?P<n>\d+),device_name=[^,]+?(?:,dtype=(?P<dtype>\w+))?"
    r"(?:,block_shape=\[(?P<bn>\d+),(?P<bk>\d+)\])?\.json"
)
_SHIPPED = Path(__file__).resolve().parents[1] / "configs"
_MIN_TRITON = (3, 8)
#: What the name of a file does not say: the kernel's code does not depend on it.
_HIDDEN, _TOPK = 2048, 10


@dataclass(frozen=True)
class Entry:
    """One batch size of one file."""

    file: str
    batch: str
    shape: Shape
    config: Config


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with an entry; nothing if `faults` is empty."""

    entry: Entry
    compiled: Compiled
    faults: tuple[str, ...]


def shape_of_name(name: str) -> Shape:
    """The layer that a file is for, from the name alone."""
    match = _NAME.fullmatch(name)
    if not match:
        raise ConfigError(
            f"{name} is not a name that vLLM looks for: get the name from python3 -m moe_config name."
        )
    if match["dtype"] not in (None, "fp8_w8a8"):
        raise ConfigError(
            f"{name} is for dtype {match['dtype']}, which the doctor cannot compile: leave it out."
        )
    block = (int(match["bn"]), int(match["bk"])) if match["bn"] else None
    dtype = "bf16" if match["dtype"] is None else "fp8-block" if block else "fp8-channel"
    experts = int(match["e"])
    return Shape(experts, int(match["n"]), _HIDDEN, min(_TOPK, experts), dtype, block)


def read_file(path: Path) -> tuple[list[Entry], list[str]]:
    """(entries, sentences on what cannot be read as an entry); ConfigError if it is not a tuned file at all."""
    shape = shape_of_name(path.name)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): give a JSON file.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a JSON object: write batch sizes as its keys.")
    entries, wrong = [], []
    for key, value in data.items():
        if key == "triton_version":
            continue
        if not key.isascii() or not key.isdigit():
            wrong.append(
                f"{path.name} has the key {key!r}: vLLM accepts only batch sizes and triton_version."
            )
            continue
        try:
            entries.append(
                Entry(path.name, key, shape, Config.from_entry(value, f"{path.name}, batch size {key},"))
            )
        except ConfigError as error:
            wrong.append(str(error))
    if not entries and not wrong:
        wrong.append(f"{path.name} has no batch size: vLLM needs at least one.")
    return entries, wrong


def judge(entry: Entry, compiled: Compiled, capability: int) -> Diagnosis:
    """Compare the compiler's report with what the GPU has."""
    faults = []
    if compiled.error:
        faults.append(f"does not compile: {compiled.error}")
    else:
        if compiled.shared > shared_limit(capability):
            faults.append(
                f"{compiled.shared:,} B of shared memory, but a block has {shared_limit(capability):,}"
            )
        if compiled.spills:
            faults.append(f"{compiled.spills} B of registers spilled")
        if entry.shape.dtype != "bf16" and not compiled.native_fp8:
            faults.append("FP8 is widened to 16 bits")
    return Diagnosis(entry, compiled, tuple(faults))


def _compile(text: str, shape: Shape, config: Config, capability: int) -> Compiled:
    return kernel.compile_entry(text, shape, config, capability)


def compile_all(
    text: str, entries: Iterable[Entry], capability: int, jobs: int, cache: Path | None
) -> dict[tuple[Shape, Config], Compiled]:
    """Compile each different configuration once, several at a time; `cache` keeps results, by content."""
    version = kernel.triton_version()
    done: dict[tuple[Shape, Config], Compiled] = {}
    todo: dict[tuple[Shape, Config], Path | None] = {}
    for entry in entries:
        what = (entry.shape, entry.config)
        place = cache / kernel.cache_key(text, *what, capability, version) if cache else None
        if place and place.is_file():
            done[what] = Compiled(**json.loads(place.read_text(encoding="utf-8")))
        else:
            todo[what] = place
    with futures.ProcessPoolExecutor(max(1, min(jobs, len(todo)))) as pool:
        running = {pool.submit(_compile, text, *what, capability): what for what in todo}
        for job in futures.as_completed(running):
            what = running[job]
            done[what] = job.result()
            place = todo[what]
            if place:
                place.parent.mkdir(parents=True, exist_ok=True)
                part = place.with_name(f"{place.name}.{os.getpid()}")
                part.write_text(json.dumps(done[what].as_dict()), encoding="utf-8")
                part.replace(place)
    return done


def table(diagnoses: Sequence[Diagnosis]) -> str:
    """One line per entry, under the name of its file."""
    lines: list[str] = []
    file = ""
    for item in diagnoses:
        if item.entry.file != file:
            file = item.entry.file
            lines += [file, "  batch  entry                      shared B  registers  spills  FP8   verdict"]
        made = item.compiled
        native = "-" if item.entry.shape.dtype == "bf16" else "mma" if made.native_fp8 else "no"
        lines.append(
            f"{item.entry.batch:>7s}  {item.entry.config!s:25s}  {made.shared:8,d}  {made.registers:9d}  "
            f"{made.spills:6d}  {native:4s}  {'; '.join(item.faults) or 'good'}"
        )
    return "\n".join(lines)


def _files(given: Sequence[Path]) -> list[Path]:
    if given:
        missing = [path for path in given if not path.is_file()]
        if missing:
            raise ConfigError(f"{missing[0]} is not a file: give the path of a tuned file.")
        return list(given)
    places = [_SHIPPED]
    if os.environ.get("VLLM_TUNED_CONFIG_FOLDER"):
        places.append(Path(os.environ["VLLM_TUNED_CONFIG_FOLDER"]))
    found = [path for place in places if place.is_dir() for path in sorted(place.glob("E=*.json"))]
    if not found:
        raise ConfigError(f"There is no tuned file in {', '.join(map(str, places))}: name one.")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="default: shipped ones and the user's"
    )
    parser.add_argument("--root", type=Path, help="directory that holds vllm/ (default: the installed one)")
    parser.add_argument("--capability", type=int, default=121, metavar="121", help="GPU to compile for")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="compilers at the same time")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep results, by content")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")


def run(options: argparse.Namespace) -> int:
    """Evaluate the files; 0 if all are good, 1 if an entry is bad."""
    shared_limit(options.capability)
    files = _files(options.files)
    read = [read_file(path) for path in files]
    version = kernel.triton_version()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _MIN_TRITON:
        raise ConfigError(
            f"Triton {version} is too old to compile for sm_121: use 3.8 or newer, as the image has."
        )
    source = kernel.find_source(options.root)
    text = kernel.kernel_text(source.read_text(encoding="utf-8"), str(source))
    entries = [entry for found, _ in read for entry in found]
    wrong = [sentence for _, sentences in read for sentence in sentences]
    compiled = compile_all(text, entries, options.capability, options.jobs, options.cache)
    diagnoses = [judge(entry, compiled[entry.shape, entry.config], options.capability) for entry in entries]
    bad = [item for item in diagnoses if item.faults]
    if options.json:
        print(json.dumps(_as_json(version, options.capability, diagnoses, wrong)))
    else:
        print(table(diagnoses))
        print("\n".join(wrong), end="\n" if wrong else "")
        good = len(diagnoses) - len(bad)
        print(f"{good} of {len(diagnoses)} entries good for sm_{options.capability} with Triton {version}.")
    return 1 if bad or wrong else 0


def _as_json(
    version: str, capability: int, diagnoses: Sequence[Diagnosis], wrong: list[str]
) -> dict[str, Any]:
    return {
        "triton": version,
        "capability": capability,
        "unreadable": wrong,
        "entries": [
            {
                "file": item.entry.file,
                "batch": int(item.entry.batch),
                "entry": item.entry.config.as_entry(),
                **item.compiled.as_dict(),
                "faults": list(item.faults),
            }
            for item in diagnoses
        ],
    }
