"""What the tuner keeps on disk: its state, from which it resumes; the tuned file; the raw timings."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import ConfigError
from .halving import Verdict
from .space import Config, Shape


def write_json(path: Path, data: Any) -> None:
    """Write a whole file or none."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def pack(config: Config) -> str:
    """A configuration as a key of a JSON object."""
    return ",".join(str(value) for value in config.as_entry().values())


def unpack(text: str) -> Config:
    """The configuration of such a key."""
    return Config(*(int(value) for value in text.split(",")))


class Journal:
    """The tuner's state of one layer on one machine; a file from another layer or machine is refused."""

    def __init__(self, path: Path, shape: Shape, machine: dict[str, Any]) -> None:
        self._path = path
        self._identity = {"shape": json.loads(json.dumps(asdict(shape))), "machine": machine}
        self.looks: dict[int, dict[Config, float]] = {}
        self.failed: dict[Config, str] = {}
        self.verdicts: dict[int, dict[str, Any]] = {}
        self.compiled = 0
        self.seconds = 0.0
        if path.is_file():
            self._read()

    def _read(self) -> None:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            if data["identity"] != self._identity:
                raise ConfigError(
                    f"{self._path} is from another layer, GPU or version: choose another --output, or remove it."
                )
            self.looks = {
                int(batch): {unpack(key): value for key, value in seen.items()}
                for batch, seen in data["looks"].items()
            }
            self.failed = {unpack(key): value for key, value in data["failed"].items()}
            self.verdicts = {int(batch): verdict for batch, verdict in data["verdicts"].items()}
            self.compiled, self.seconds = data["compiled"], data["seconds"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self._path} cannot be read ({error}): remove it to start again.") from None

    def save(self) -> None:
        """Write the state."""
        write_json(self._path, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The state as it is written."""
        return {
            "identity": self._identity,
            "compiled": self.compiled,
            "seconds": round(self.seconds, 1),
            "looks": {
                str(batch): {pack(config): round(value, 3) for config, value in seen.items()}
                for batch, seen in self.looks.items()
            },
            "failed": {pack(config): reason for config, reason in self.failed.items()},
            "verdicts": {str(batch): verdict for batch, verdict in self.verdicts.items()},
        }

    def decided(self, batch: int, verdict: Verdict, error: float) -> None:
        """Record a batch size's outcome; error: the relative error of the entry's result."""
        self.verdicts[batch] = {
            "entry": verdict.config.as_entry(),
            "default": verdict.default.as_entry(),
            "tuned": verdict.tuned,
            "ratio": round(verdict.ratio, 4),
            "spread": round(verdict.spread, 4),
            "error": round(error, 5),
            "default_us": [round(value, 2) for value in verdict.default_us],
            "config_us": [round(value, 2) for value in verdict.config_us],
        }
        self.save()


def tuned_file(
    verdicts: dict[int, dict[str, Any]], defaults: dict[int, Config], triton_version: str
) -> dict[str, Any]:
    """The content of the file that vLLM reads.

    vLLM takes the entry of the nearest key, so every size of `defaults` is written, with vLLM's own values if it was
    not tuned: otherwise a batch size would get the entry of another one.
    """
    entries = {batch: config.as_entry() for batch, config in defaults.items()}
    entries.update({batch: verdict["entry"] for batch, verdict in verdicts.items()})
    return {"triton_version": triton_version, **{str(batch): entries[batch] for batch in sorted(entries)}}


def summary(verdicts: dict[int, dict[str, Any]], batches: Sequence[int]) -> str:
    """A table: default and tuned medians in microseconds per layer call."""
    lines = ["  batch  default us  tuned us  change  entry"]
    for batch in batches:
        if batch not in verdicts:
            lines.append(f"{batch:7d}  not reached within the time limit")
            continue
        verdict = verdicts[batch]
        base, mine = median(verdict["default_us"]), median(verdict["config_us"])
        change = f"{(verdict['ratio'] - 1) * 100:+.1f} %" if verdict["tuned"] else "default"
        entry = Config.from_entry(verdict["entry"], "entry")
        lines.append(f"{batch:7d}  {base:10.1f}  {mine:8.1f}  {change:>7s}  {entry}")
    return "\n".join(lines)


def median(values: Sequence[float]) -> float:
    """The median; 0 of an empty sequence."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
