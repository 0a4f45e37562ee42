"""What vLLM decided, one JSON file per process, added to vLLM by dgx-vllm's sm121_patch.

The functions that choose write down what they chose and why; after loading, a census of the layers says what they
really hold. So nothing has to be predicted from a model's config.json. The record never stops a server: what cannot be
written or read is noted in the record, or lost.

Environment:
  DGX_VLLM_RECORD_DIR    folder of the records, /tmp/dgx-vllm by default; a container has its own /tmp

RECORD is a dictionary:
  version        of this format
  started        seconds since 1970 at which the record was begun; counts are written with the next new decision
  born           start of the process in clock ticks since boot, from /proc/self/stat: together with the pid it tells a
                 process from a later one; null if unknown
  pid, patch_version, process (its name), switches ({"linear", "moe"}: value of the switch), capability ([major, minor]
                 as the routes see it, null until one had to ask), assumed (true when it was told, not asked)
  decisions      [{layer: linear|moe, why, chosen, detail, count}]; `why` is routed, auto (switched off), explicit,
                 block-scaled, other layer, other capability, not CUDA or unsupported; `chosen` is empty where vLLM
                 goes on to choose by itself
  moe_configs    [{file, searched: [path], found: path or null}] in the order in which they were asked for
  census         null until a model is loaded, then [{part: target|draft, kind: linear|moe, layer, method,
                 holds: [name], experts, intermediate, count}]; `holds` are the kernels, experts and backends of a
                 layer's method, `experts` and `intermediate` this process's own, null for a linear layer
  errors         [text]
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

VERSION = 1
PATCH_VERSION = "2"
FOLDER = "/tmp/dgx-vllm"

_KINDS = {"LinearBase": "linear", "FusedMoE": "moe", "RoutedExperts": "moe", "MoERunner": "moe"}
_HOLDS = re.compile(r"(Kernel|Experts|LinearOp|Backend)$|^(Triton|Cutlass|FlashInfer|Marlin)\w*Experts\w*$")
_DEPTH = 4

_record: dict[str, Any] = {}


def _never_stops_vllm(function: Callable[..., None]) -> Callable[..., None]:
    """Whatever goes wrong in here is noted, or lost: vLLM goes on."""

    @wraps(function)
    def guarded(*arguments: Any, **named: Any) -> None:
        try:
            function(*arguments, **named)
        except Exception as error:
            current()["errors"].append(f"{function.__name__}: {type(error).__name__}: {error}")

    return guarded


def _new() -> dict[str, Any]:
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "born": _born(),
        "patch_version": PATCH_VERSION,
        "process": "",
        "started": time.time(),
        "switches": {
            "linear": os.environ.get("DGX_VLLM_FP8_LINEAR", "") or "torch",
            "moe": os.environ.get("DGX_VLLM_FP8_MOE", "") or "triton",
        },
        "capability": None,
        "assumed": False,
        "decisions": [],
        "moe_configs": [],
        "census": None,
        "errors": [],
    }


def _born() -> int | None:
    try:
        return int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def current() -> dict[str, Any]:
    """The record of this process; a forked child starts its own."""
    if _record.get("pid") != os.getpid():
        _record.clear()
        _record.update(_new())
    return _record


def path() -> Path:
    """The file of this process."""
    return Path(os.environ.get("DGX_VLLM_RECORD_DIR") or FOLDER) / f"record-{os.getpid()}.json"


@_never_stops_vllm
def save() -> None:
    """Write the record at once; a full disk, or a folder that is not ours, loses it and nothing else."""
    file = path()
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder = os.lstat(file.parent)
        if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.geteuid():
            return
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".record-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(current(), stream)
            os.chmod(temporary, 0o644)
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError:
        pass


@_never_stops_vllm
def decided(layer: str, why: str, chosen: str = "", detail: str = "") -> None:
    """Note one decision; the same decision for another layer only counts up."""
    decisions = current()["decisions"]
    row = {"layer": layer, "why": why, "chosen": chosen, "detail": detail}
    for known in decisions:
        if {name: known[name] for name in row} == row:
            known["count"] += 1
            return
    decisions.append({**row, "count": 1})
    save()


@_never_stops_vllm
def platform(capability: Iterable[int] | None, assumed: bool) -> None:
    """Note what the routes go by; written with the next decision."""
    current().update(capability=None if capability is None else list(capability)[:2], assumed=assumed)


@_never_stops_vllm
def moe_config(file: str, searched: Iterable[str]) -> None:
    """Note a tuned configuration that a MoE layer asks for: vLLM takes the first of `searched` that exists."""
    places = [str(place) for place in searched]
    found = next((place for place in places if os.path.exists(place)), None)
    row = {"file": str(file), "searched": places, "found": found}
    if row not in current()["moe_configs"]:
        current()["moe_configs"].append(row)
        save()


def _name(value: Any) -> str:
    """What to call a kernel: an enumeration by its member, a class or an object by its class."""
    kind = value if isinstance(value, type) else type(value)
    member = getattr(value, "name", "")
    if kind.__name__.endswith("Backend") and isinstance(member, str) and member:
        return f"{kind.__name__}.{member}"
    return kind.__name__


def _held(holder: Any, depth: int, seen: set[int]) -> Iterator[str]:
    """Names of the kernels, experts and backends below `holder`, layers left out."""
    if id(holder) in seen or depth == 0:
        return
    seen.add(id(holder))
    for name, value in list(getattr(holder, "__dict__", {}).items()):
        if name.startswith("__"):
            continue
        kind = value if isinstance(value, type) else type(value)
        if not str(getattr(kind, "__module__", "")).startswith("vllm."):
            continue
        # Up to vLLM 0.16 the kernel of a MoE layer is a module of its own below the method; a layer is none.
        if hasattr(value, "named_modules") and not kind.__name__.endswith("ModularKernel"):
            continue
        if _HOLDS.search(kind.__name__):
            yield _name(value)
        if not isinstance(value, type):
            yield from _held(value, depth - 1, seen)


def _first(holders: Iterable[Any], *names: str) -> int | None:
    for holder in holders:
        for name in names:
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    return None


def layers(model: Any, part: str) -> list[dict[str, Any]]:
    """The quantised (and not quantised) linear and MoE layers of a model, alike ones counted."""
    rows: dict[str, dict[str, Any]] = {}
    for _, module in model.named_modules():
        method = getattr(module, "quant_method", None)
        kinds = [_KINDS[c.__name__] for c in type(module).__mro__ if c.__name__ in _KINDS]
        if method is None or not kinds:
            continue
        scheme = getattr(module, "scheme", None)
        holders = [method] if scheme is None else [method, scheme]
        held = {name for holder in holders for name in _held(holder, _DEPTH, set())}
        config = getattr(module, "moe_config", None)
        shape = [module, config] if kinds[0] == "moe" else []
        row = {
            "part": part,
            "kind": kinds[0],
            "layer": type(module).__name__,
            "method": type(method).__name__ if scheme is None else type(scheme).__name__,
            "holds": sorted(held),
            "experts": _first(shape, "local_num_experts", "num_local_experts"),
            "intermediate": _first(shape, "intermediate_size_per_partition"),
        }
        rows.setdefault(json.dumps(row), {**row, "count": 0})["count"] += 1
    return list(rows.values())


@_never_stops_vllm
def loaded(runner: Any) -> None:
    """Take the census of what a worker has loaded: the model, and its draft model where there is one."""
    record = current()
    record["process"] = _process()
    rows: list[dict[str, Any]] = []
    # The first runner of V1 calls the part that drafts a drafter, the second one a speculator.
    draft = getattr(runner, "drafter", None) or getattr(runner, "speculator", None)
    for part, holder in (("target", runner), ("draft", draft)):
        model = getattr(holder, "model", None)
        if not hasattr(model, "named_modules"):
            continue
        try:
            rows += layers(model, part)
        except Exception as error:
            record["errors"].append(f"census of the {part} model: {type(error).__name__}: {error}")
    record["census"] = rows
    save()


def _process() -> str:
    """The name that vLLM gave this process (setproctitle), else its command."""
    try:
        words = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return words[0].decode("utf-8", "replace")
