"""The records that vLLM's processes keep of what they decided (files/image/sm121_patch/record.py), read with distrust.

A record counts only if its process is still the one that wrote it: a number of a process is used again, and the folder
may outlive a container. Nothing else is believed of it than what has the documented type.
"""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple, Sequence

VERSION = 1
KINDS = ("linear", "moe")
MOST_ROWS = 1000
LONGEST_TEXT = 300


class Decision(NamedTuple):
    """A choice for a number of layers of a kind, and why."""

    layer: str
    why: str
    chosen: str
    detail: str
    number: int


class Lookup(NamedTuple):
    """A MoE config that a layer asked for, and where it was found; "" if nowhere."""

    file: str
    found: str


class Layers(NamedTuple):
    """A number of alike layers that a process holds after loading; `part` is target or draft."""

    part: str
    kind: str
    method: str
    holds: tuple[str, ...]
    experts: int
    intermediate: int
    number: int


class Record(NamedTuple):
    """What one process says of itself; `census` is None before it has loaded a model."""

    pid: int
    process: str
    switches: Mapping[str, str]
    decisions: tuple[Decision, ...]
    moe_configs: tuple[Lookup, ...]
    census: tuple[Layers, ...] | None
    errors: tuple[str, ...]

    def routed(self, kind: str) -> bool:
        """Whether it took the route for a layer of this kind."""
        return any(row.layer == kind and row.why == "routed" for row in self.decisions)


class Records(NamedTuple):
    """The records of a container: of processes that live, of others, and why some cannot be read."""

    live: tuple[Record, ...] = ()
    gone: tuple[Record, ...] = ()
    unreadable: tuple[str, ...] = ()
    newer: bool = False
    """Whether one is in a format that is newer than this collection."""

    def routed(self, kind: str) -> bool:
        """Whether a living process took the route."""
        return any(record.routed(kind) for record in self.live)

    @property
    def census(self) -> list[Layers]:
        """The layers of all living processes."""
        return [row for record in self.live for row in record.census or ()]

    @property
    def counted(self) -> bool:
        """Whether a living process has counted what it loaded."""
        return any(record.census is not None for record in self.live)

    @property
    def errors(self) -> list[str]:
        """What the recorder itself complains of."""
        return [error for record in self.live for error in record.errors]


class Foreign(Exception):
    """The file is not a record; the text says why."""


def read_records(entries: Any) -> Records:
    """The records among what `inside.py` printed."""
    live: list[Record] = []
    gone: list[Record] = []
    unreadable: list[str] = []
    newer = False
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        name = f"record-{entry.get('pid')}.json"
        try:
            content = _content(entry)
            if _number(content, "version") > VERSION:
                newer = newer or _is_alive(entry, content)
                raise Foreign(f"has format {content['version']}, this collection knows {VERSION}")
            (live if _is_alive(entry, content) else gone).append(_record(content))
        except Foreign as error:
            unreadable.append(f"{name} {error}")
    return Records(tuple(live), tuple(gone), tuple(unreadable), newer)


def _content(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(entry.get("text"), str):
        raise Foreign(f"cannot be read: {str(entry.get('error'))[:LONGEST_TEXT]}")
    try:
        content = json.loads(entry["text"])
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Foreign("is not a JSON object")
    return content


def _is_alive(entry: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Whether the process that runs under this number now is the one that wrote the record."""
    if entry.get("born") is None or content.get("pid") != entry.get("pid"):
        return False
    return content.get("born") in (None, entry["born"])


def _record(content: Mapping[str, Any]) -> Record:
    census = None if content.get("census") is None else tuple(map(_layers, _rows(content, "census")))
    switches = content.get("switches")
    return Record(
        _number(content, "pid"),
        _text(content, "process"),
        {str(key): str(value)[:LONGEST_TEXT] for key, value in (switches or {}).items()}
        if isinstance(switches, dict)
        else {},
        tuple(map(_decision, _rows(content, "decisions"))),
        tuple(map(_lookup, _rows(content, "moe_configs"))),
        census,
        tuple(str(error)[:LONGEST_TEXT] for error in _list(content, "errors")),
    )


def _decision(row: Mapping[str, Any]) -> Decision:
    layer = _text(row, "layer")
    if layer not in KINDS:
        raise Foreign(f"has a decision about {layer!r}")
    return Decision(
        layer, _text(row, "why"), _text(row, "chosen"), _text(row, "detail"), _number(row, "count")
    )


def _lookup(row: Mapping[str, Any]) -> Lookup:
    return Lookup(_text(row, "file"), "" if row.get("found") is None else _text(row, "found"))


def _layers(row: Mapping[str, Any]) -> Layers:
    experts, size = (
        _number(row, key) if row.get(key) is not None else 0 for key in ("experts", "intermediate")
    )
    holds = tuple(str(name)[:LONGEST_TEXT] for name in _list(row, "holds"))
    part, kind, method = (_text(row, key) for key in ("part", "kind", "method"))
    return Layers(part, kind, method, holds, experts, size, _number(row, "count"))


def _rows(content: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    rows = _list(content, key)
    if not all(isinstance(row, dict) for row in rows):
        raise Foreign(f"has something else than objects in {key}")
    return rows


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list) or len(value) > MOST_ROWS:
        raise Foreign(f"has no list of at most {MOST_ROWS} entries in {key}")
    return value


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise Foreign(f"has no text in {key}")
    return value[:LONGEST_TEXT]


def _number(content: Mapping[str, Any], key: str) -> int:
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Foreign(f"has no whole number in {key}")
    return value
