"""Checks of the routing patch and the MoE config: the records of vLLM's processes, their markers, the policy. Pure.

Nothing is predicted from a model's config.json. What was decided is in the records; the markers must be in the log for
exactly the routes that were taken; what neither shows is unknown, and the unknown never fails.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.choices import (
    explicit_choice,
    not_routed,
    unknown_layers,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.configs import (
    config_file_check,
    config_in_log_check,
    config_loaded_check,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import MARKER_TEXT, KnownLog
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Document, Inside
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.read import Reading
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.record import KINDS, Records
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import CUTLASS, REBUILD, remedy_of

RECORDER = "census"
"""The entry of the manifest with which an image promises that its processes keep records."""
IN_PLACE = ("patched", "upstream")
START_GONE = "the journal no longer has the start of this run, and no earlier check of this run recorded it"
NO_RECORDER = "this release of the image keeps no records"
RESTART = (
    "Restart the service at a quiet moment and run the check again, or keep more journal (SystemMaxUse)."
)
SILENT = (
    "Compare docker logs with the journal: whoever decided has printed the line, so something keeps lines of the"
    " container back, or the image's vLLM was changed after the patch."
)
BYPASSED = (
    "The patch is installed and did not decide: use an image whose vLLM is not changed after the patch; with a backend"
    " of your own choice, say so by --moe-backend, --linear-backend or --kernel-config in dgx_vllm_extra_args."
)


def known_log(reading: Reading, evidence: dict[str, Any] | None) -> KnownLog:
    """The first place that has the start of the run; evidence only of the same run. A marker counts wherever it is."""
    facts = reading.journal.facts
    copy = reading.docker_log.facts if reading.docker_log else None
    if copy:
        facts = facts._replace(markers=sorted({*facts.markers, *copy.markers}))
    if reading.journal.facts.start_retained:
        return KnownLog(facts, "journal")
    if copy and copy.start_retained:
        return KnownLog(copy._replace(markers=facts.markers), "docker")
    evidence = evidence or {}
    invocation = reading.unit.invocation_id
    markers = evidence.get("markers")
    if invocation and evidence.get("invocation_id") == invocation and evidence.get("known"):
        recorded = {kind for kind in KINDS if isinstance(markers, list) and kind in markers}
        return KnownLog(facts._replace(markers=sorted({*facts.markers, *recorded})), "evidence")
    return KnownLog(facts, "none")


def routing_checks(container: Container, inside: Inside, log: KnownLog, required: bool) -> list[Finding]:
    """Whether the patch is in effect and the MoE configs are loaded."""
    if promised(inside.manifest):
        recorded = [
            record_check(container, inside.records),
            markers_check(container, inside.records, log),
            config_loaded_check(container, inside, required),
        ]
    else:
        recorded = [
            Check("", "record").skipped(NO_RECORDER),
            markers_alone_check(log),
            config_in_log_check(container, inside, log, required),
        ]
    record, markers, config = recorded
    return [
        manifest_check(inside.manifest),
        config_file_check(inside),
        record,
        markers,
        config,
        cutlass_check(log),
    ]


def promised(manifest: Document) -> bool:
    """Whether the image promises that each of its processes keeps a record."""
    return _states(manifest).get(RECORDER) in IN_PLACE


def manifest_check(manifest: Document) -> Finding:
    """Whether the image's patch manifest says patched or upstream for every route."""
    check = Check("", "manifest")
    if manifest.error:
        return check.failed(f"the image has no readable patch manifest: {manifest.error}", remedy=REBUILD)
    states = _states(manifest)
    found = ", ".join(f"{route} {states.get(route, 'absent')}" for route in KINDS)
    found += f" (vLLM {manifest.content.get('vllm_version', 'unknown')})"
    if all(states.get(route) in IN_PLACE for route in (*KINDS, *states)):
        return check.passed(found)
    return check.failed(found, remedy=REBUILD)


def record_check(container: Container, records: Records) -> Finding:
    """Whether the processes kept records, and the layers that they hold are those that were chosen."""
    check = Check("", "record")
    if not records.live:
        if records.newer:
            remedy = "Use a newer release of this collection to check this image."
            return check.warned("; ".join(records.unreadable), remedy=remedy)
        why = "".join(f"; {text}" for text in records.unreadable[:3])
        return check.failed(
            f"no process in the container has a record, although the image's manifest promises one{why}",
            remedy="Free space in the container's /tmp if it is full and restart the service; otherwise rebuild the"
            " image: its vLLM was changed after the patch.",
        )
    strange = not_routed(container, records)
    if strange:
        return check.failed("; ".join(strange), remedy=BYPASSED)
    remedy = "Nothing is known to be wrong; report this with the version of vLLM."
    if not records.counted and not records.errors and not container.option("--worker-cls"):
        return check.failed("no process has counted the layers that it loaded", remedy=BYPASSED)
    if records.errors or not records.census:
        found = "; ".join(records.errors[:3]) or "no layers were counted"
        return check.warned(f"the records are not complete: {found}", remedy=remedy)
    unknown = unknown_layers(container, records)
    if unknown:
        return check.warned(f"nobody decided about some layers: {'; '.join(unknown)}", remedy=remedy)
    return check.passed(decided_text(container, records))


def decided_text(container: Container, records: Records) -> str:
    """What was decided, alike decisions of all processes once."""
    parts = []
    for kind in KINDS:
        reasons = {_reason(row) for record in records.live for row in record.decisions if row.layer == kind}
        choice = explicit_choice(container, kind)
        reasons |= {choice} if choice and not reasons else set()
        parts.append(f"{kind}: {', '.join(sorted(reasons)) or 'no FP8 layer asked'}")
    return "; ".join(parts)


def _reason(row: Any) -> str:
    detail = row.chosen if row.why == "routed" else row.detail
    return f"{row.why} ({detail})" if detail else str(row.why)


def markers_check(container: Container, records: Records, log: KnownLog) -> Finding:
    """Whether the log has a marker for exactly the routes that the records say were taken."""
    check = Check("", "markers")
    if container.runs_ray:
        return check.skipped("Ray forwards the workers' log lines to the head")
    if not records.live:
        return check.skipped("not checked: there is no record to compare with")
    taken, seen = ({kind for kind in KINDS if records.routed(kind)}, set(log.facts.markers))
    if seen - taken:
        excused = {kind for kind in KINDS if any(record.routed(kind) for record in records.gone)}
        lines = "; ".join(MARKER_TEXT[kind] for kind in sorted(seen - taken))
        found = f"the log has what no record explains: {lines}"
        if container.forwards or records.unreadable or not seen - taken - excused:
            return check.warned(
                found, remedy="Nothing is known to be wrong; the check `record` is the proof."
            )
        return check.failed(found, remedy=BYPASSED)
    if taken - seen:
        lines = "; ".join(MARKER_TEXT[kind] for kind in sorted(taken - seen))
        if log.origin == "none" or container.forwards:
            why = "Ray may keep them back" if container.forwards else START_GONE
            return check.warned(f"not in the log: {lines}; the record has the route ({why})", remedy=RESTART)
        found = f"the record says that the route was taken, and the log lacks: {lines}{log.source}"
        return check.failed(found, remedy=SILENT)
    return check.passed(f"{', '.join(sorted(seen)) or 'none, and no route was taken'}{log.source}")


def markers_alone_check(log: KnownLog) -> Finding:
    """The markers of an image without records: seen or not, nothing says which there should be."""
    check = Check("", "markers")
    if log.facts.markers:
        return check.passed(f"{', '.join(log.facts.markers)}{log.source}")
    if log.origin == "none":
        return check.skipped(START_GONE)
    return check.skipped(f"the log has none; {NO_RECORDER}, so whether there should be one is unknown")


def cutlass_check(log: KnownLog) -> Finding:
    """Whether the log is free of the CUTLASS error."""
    check = Check("", "no_cutlass_error")
    if log.facts.cutlass_error:
        return check.failed(log.facts.cutlass_error[:300], remedy=remedy_of(CUTLASS))
    return check.skipped(START_GONE) if log.origin == "none" else check.passed("no such line")


def _states(manifest: Document) -> dict[str, str]:
    """Route -> its state in the patch manifest."""
    routes = manifest.content.get("routes")
    entries = routes if isinstance(routes, list) else []
    return {str(item.get("name")): str(item.get("state")) for item in entries if isinstance(item, dict)}
