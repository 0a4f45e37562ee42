"""Checks of the MoE configs: the shipped file is in its place, and what the layers asked for was found. Pure."""

from __future__ import annotations

import os
import re
from typing import Iterable, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.inside import CONFIGS
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import KnownLog
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Inside
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.record import Records
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import REBUILD

SHIPPED = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
"""The file that the image brings, for Qwen3-Next-80B-A3B with FP8 per channel on one GPU."""

LOADED = Check("", "moe_config_loaded")
_FILE = re.compile(r"E=\d+,N=\d+[^/\\'\"]*?\.json")
_SHAPE = re.compile(r"E=(\d{1,9}),N=(\d{1,9}),")


class Asked(NamedTuple):
    """A MoE config that a layer asked for: its file, where it was found, and whether the model itself asked.

    `part` is target, draft or unknown.
    """

    file: str
    found: str
    part: str


def config_file_check(inside: Inside) -> Finding:
    """Whether the image has the MoE config that it ships where its documentation says."""
    check = Check("", "moe_config_file")
    if inside.manifest.error:
        return check.skipped("not checked: this is not an image of this project")
    if SHIPPED in inside.shipped:
        return check.passed(f"{CONFIGS}/{SHIPPED}")
    return check.failed(f"the image lacks {SHIPPED} in {CONFIGS}", remedy=REBUILD)


def config_loaded_check(container: Container, inside: Inside, required: bool) -> Finding:
    """Whether the MoE configs that the layers asked for were found, after the records."""
    if not inside.records.live:
        return LOADED.skipped("not checked: there is no record of what was asked for")
    return _judged(asked_in(inside.records, _drafts(container)), inside, required)


def config_in_log_check(container: Container, inside: Inside, log: KnownLog, required: bool) -> Finding:
    """The same for an image without records, after the log."""
    part = "unknown" if _drafts(container) else "target"
    asked = [Asked(os.path.basename(path), path, part) for path in log.facts.config_loaded]
    asked += [Asked(file, "", part) for file in _FILE.findall(log.facts.default_config or "")[:1]]
    if not asked and log.origin not in ("journal", "docker"):
        return LOADED.skipped("the journal no longer has the start of this run")
    return _judged(asked, inside, required)


def _drafts(container: Container) -> bool:
    return any(container.option(name) is not None for name in ("--speculative-config", "-sc"))


def asked_in(records: Records, drafts: bool) -> list[Asked]:
    """What the living processes asked for, each file once."""
    rows = {(lookup.file, lookup.found) for record in records.live for lookup in record.moe_configs}
    return [Asked(file, found, part_of(file, records, drafts)) for file, found in sorted(rows)]


def part_of(file: str, records: Records, drafts: bool) -> str:
    """Which part of the model asked: with a draft model, the one that has experts of this shape."""
    experts = [row for row in records.census if row.kind == "moe"]
    if records.counted and not drafts and all(row.part == "target" for row in experts):
        return "target"
    match = _SHAPE.match(file)
    shape = (int(match[1]), int(match[2])) if match else None
    parts = {row.part for row in experts if (row.experts, row.intermediate) == shape}
    return "target" if "target" in parts else "draft" if parts == {"draft"} else "unknown"


def _judged(asked: Iterable[Asked], inside: Inside, required: bool) -> Finding:
    """The worst of what was asked for."""
    asked = list(asked)
    found = ", ".join(dict.fromkeys(row.found for row in asked if row.found))
    missing = {row.file: row for row in asked if not row.found}
    model = [row for row in missing.values() if row.part == "target"]
    there = [row.file for row in model if row.file in inside.shipped | inside.tuned]
    if there:
        remedy = (
            "Restart the service if the file is newer than its start; otherwise vLLM looks in another folder:"
            " check dgx_vllm_tuned_config_dir."
        )
        return LOADED.failed(
            f"{', '.join(there)} is there and was not found when it was asked for", remedy=remedy
        )
    ours = [row.file for row in model if row.file == SHIPPED]
    if ours:
        return LOADED.failed(f"the image ships {SHIPPED}, and it is not there", remedy=REBUILD)
    if missing:
        text = "; ".join(f"{row.file}{_whose(row)} is not there" for row in missing.values())
        if found:
            text += f"; found: {found}"
        if required and model:
            return LOADED.failed(text, remedy=_tune("or set dgx_vllm_moe_config_required to false"))
        return LOADED.warned(text, remedy=_tune("or run without it: it only costs speed"))
    if found:
        return LOADED.passed(found)
    return LOADED.skipped("no layer asked for a MoE config")


def _whose(row: Asked) -> str:
    return {"draft": " (of the draft model)", "unknown": " (of an unknown part of the model)"}.get(
        row.part, ""
    )


def _tune(otherwise: str) -> str:
    return (
        "Measure one with playbooks/tune.yml, or put one into dgx_vllm_tuned_config_dir;"
        f" vLLM uses its default meanwhile, {otherwise}."
    )
