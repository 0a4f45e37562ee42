"""Checks of the routing patch and the MoE config: what the image, the container and its log say of them. Pure."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container, Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import MARKER_TEXT, LogFacts
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Document
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.read import Reading
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import (
    CUTLASS,
    DEFAULT_MOE_CONFIG,
    MARKERS_MISSING,
    REBUILD,
    remedy_of,
)

ROUTES = ("linear", "moe")
IN_PLACE = ("patched", "upstream")
START_GONE = "the journal no longer has the start of this run, and no earlier check of this run recorded it"
RESTART = (
    "Restart the service at a quiet moment and run the check again, or keep more journal (SystemMaxUse)."
)
OUR_IMAGE = (
    "Use an image of this project: it brings moe_config, which knows what this model should print and load."
)


class KnownLog(NamedTuple):
    """What is known of the current run's log, and from where: journal, docker, evidence or none (its start is lost)."""

    facts: LogFacts
    origin: str

    @property
    def source(self) -> str:
        """The origin in words, if it is worth saying."""
        return " (recorded by an earlier check of this run)" if self.origin == "evidence" else ""


def known_log(reading: Reading, evidence: dict[str, Any] | None) -> KnownLog:
    """The first place that has the start of the run; evidence only of the same run."""
    facts = reading.journal.facts
    if facts.start_retained:
        return KnownLog(facts, "journal")
    if reading.docker_log and reading.docker_log.facts.start_retained:
        return KnownLog(reading.docker_log.facts, "docker")
    evidence = evidence or {}
    invocation = reading.unit.invocation_id
    if invocation and evidence.get("invocation_id") == invocation and evidence.get("known"):
        recorded = facts._replace(
            markers=[str(item) for item in evidence.get("markers") or []],
            config_loaded=[str(item) for item in evidence.get("config_loaded") or []],
            default_config=facts.default_config or evidence.get("default_config"),
        )
        return KnownLog(recorded, "evidence")
    return KnownLog(facts, "none")


def routing_checks(
    wanted: Wanted, container: Container, manifest: Document, moe_config: Document, log: KnownLog
) -> list[Finding]:
    """Whether the patch is in effect and the MoE config is loaded."""
    return [
        manifest_check(manifest),
        markers_check(moe_config, untaken_routes(wanted, container, manifest), log),
        config_file_check(moe_config, wanted.moe_config_required),
        config_loaded_check(moe_config, log, wanted.moe_config_required),
        default_config_check(log, wanted.moe_config_required),
        cutlass_check(log),
    ]


def manifest_check(manifest: Document) -> Finding:
    """Whether the image's patch manifest says patched or upstream for every route."""
    check = Check("", "manifest")
    if manifest.error:
        return check.failed(f"the image has no readable patch manifest: {manifest.error}", remedy=REBUILD)
    states = _states(manifest)
    found = ", ".join(f"{route} {states.get(route, 'absent')}" for route in ROUTES)
    found += f" (vLLM {manifest.content.get('vllm_version', 'unknown')})"
    if all(states.get(route) in IN_PLACE for route in (*ROUTES, *states)):
        return check.passed(found)
    return check.failed(found, remedy=REBUILD)


def untaken_routes(wanted: Wanted, container: Container, manifest: Document) -> dict[str, str]:
    """Route -> why it prints no marker: switched to auto, another backend chosen, or upstream does it already."""
    states = _states(manifest)
    switches = {"linear": wanted.fp8_linear, "moe": wanted.fp8_moe}
    untaken = {}
    for route in ROUTES:
        backend = container.option(f"--{route}-backend") or "auto"
        if switches[route] == "auto":
            untaken[route] = f"{route} is switched to auto"
        elif backend != "auto":
            untaken[route] = f"--{route}-backend {backend} is set"
        elif states.get(route) == "upstream":
            untaken[route] = f"{route} is routed by upstream"
    return untaken


def markers_check(moe_config: Document, untaken: dict[str, str], log: KnownLog) -> Finding:
    """Whether the log shows exactly the markers that this model should print: a missing and an additional one fail."""
    check = Check("", "markers")
    if moe_config.error:
        return check.failed(f"the expected markers are unknown: {moe_config.error}", remedy=OUR_IMAGE)
    if log.origin == "none":
        return check.warned(START_GONE, remedy=RESTART)
    model = [str(route) for route in moe_config.content.get("expected_markers") or []]
    expected, seen = set(model) - set(untaken), set(log.facts.markers)
    reasons = "; ".join(untaken[route] for route in model if route in untaken)
    note = f" ({reasons})" if reasons else ""
    if expected - seen:
        lines = "; ".join(MARKER_TEXT.get(route, route) for route in sorted(expected - seen))
        return check.failed(f"the log lacks: {lines}{log.source}{note}", remedy=remedy_of(MARKERS_MISSING))
    if seen - expected:
        lines = "; ".join(MARKER_TEXT[route] for route in sorted(seen - expected))
        remedy = "Check dgx_vllm_fp8_linear, dgx_vllm_fp8_moe and the backend arguments."
        return check.failed(f"the log has what this model should not print: {lines}{note}", remedy=remedy)
    return check.passed(
        f"{', '.join(sorted(seen)) or 'none, and this model should print none'}{log.source}{note}"
    )


def config_file_check(moe_config: Document, required: bool) -> Finding:
    """Whether the MoE config file of this model is there."""
    check = Check("", "moe_config_file")
    bad = check.failed if required else check.warned
    if moe_config.error:
        return bad(_unknown_file(moe_config), remedy=OUR_IMAGE)
    content = moe_config.content
    if not content.get("file"):
        return check.skipped(_no_file(moe_config))
    if content.get("found"):
        return check.passed(str(content["found"]))
    folders = ", ".join(content.get("searched") or []) or "the searched folders"
    similar = ", ".join(str(item) for item in content.get("similar") or [])
    found = f"{content['file']} is missing from {folders}"
    return bad(found + (f"; other shapes have {similar}" if similar else ""), remedy=_tune(content["file"]))


def config_loaded_check(moe_config: Document, log: KnownLog, required: bool) -> Finding:
    """Whether vLLM loaded the MoE config file of this model."""
    check = Check("", "moe_config_loaded")
    bad = check.failed if required else check.warned
    if moe_config.error:
        return check.skipped(_unknown_file(moe_config))
    file = moe_config.content.get("file")
    if not file:
        return check.skipped(_no_file(moe_config))
    loaded = log.facts.config_loaded
    ours = [path for path in loaded if os.path.basename(path) == file]
    if ours:
        return check.passed(f"{ours[0]}{log.source}")
    if log.origin == "none":
        return check.warned(START_GONE, remedy=RESTART)
    if loaded:
        found = f"vLLM loaded {', '.join(loaded)}, which is for another shape than {file}{log.source}"
        return bad(found, remedy=_tune(file))
    remedy = "Restart the service if the file is newer than its start; otherwise check dgx_vllm_fp8_moe."
    return bad(
        f"the log has no 'Using configuration from' line for {file}{log.source}",
        remedy=remedy if moe_config.content.get("found") else _tune(file),
    )


def default_config_check(log: KnownLog, required: bool) -> Finding:
    """Whether the log is free of the default MoE config."""
    check = Check("", "no_default_moe_config")
    if not log.facts.default_config:
        return _clean(check, log)
    bad = check.failed if required else check.warned
    return bad(log.facts.default_config[:300], remedy=remedy_of(DEFAULT_MOE_CONFIG))


def cutlass_check(log: KnownLog) -> Finding:
    """Whether the log is free of the CUTLASS error."""
    check = Check("", "no_cutlass_error")
    if not log.facts.cutlass_error:
        return _clean(check, log)
    return check.failed(log.facts.cutlass_error[:300], remedy=remedy_of(CUTLASS))


def _clean(check: Check, log: KnownLog) -> Finding:
    return check.skipped(START_GONE) if log.origin == "none" else check.passed("no such line")


def _unknown_file(moe_config: Document) -> str:
    return f"the file name of this model's MoE config is unknown: {moe_config.error}"


def _no_file(moe_config: Document) -> str:
    return str(moe_config.content.get("reason") or "this model needs no MoE config")


def _tune(file: str) -> str:
    return (
        f"Measure one for this shape (moe_config tune) and put {file} into dgx_vllm_tuned_config_dir,"
        " or set dgx_vllm_moe_config_required to false to run without it."
    )


def _states(manifest: Document) -> dict[str, str]:
    """Route -> its state in the patch manifest."""
    routes = manifest.content.get("routes")
    entries = routes if isinstance(routes, list) else []
    return {str(item.get("name")): str(item.get("state")) for item in entries if isinstance(item, dict)}
