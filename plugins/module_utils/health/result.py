"""The result of the module: facts, findings, what the log explains, and one summary."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.checks import full_checks, service_checks
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import mask
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.read import Reading
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.routing import known_log
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import Cause, explain, root_error

TAIL_LINES = 40
CONSEQUENCES = {"engine_failed", "default_moe_config", "driver_banner"}
"""Causes that do not explain why a server ended."""
READ_THE_LOG = {"image", "health", "completion"}
"""Checks whose own remedy is only to read the log."""


class Explanation(NamedTuple):
    """What a log says of a failure, secrets masked."""

    causes: list[Cause]
    root_error: str
    tail: list[str]


def probe_result(reading: Reading, wanted: Wanted) -> dict[str, Any]:
    """How far the service is."""
    findings = service_checks(reading, wanted)
    result = {**_facts(reading, wanted), **_explained(Explanation([], "", []))}
    result.update(healthy=False, checks=_rows(findings), evidence={})
    if not reading.failed(wanted.restarts_before):
        progress = f": {result['progress']}" if result["progress"] else ""
        result["summary"] = f"{wanted.unit} is {result['phase']}{progress} after {reading.unit.elapsed_s} s"
        return result
    explanation = explained(reading.failed_run, wanted)
    result.update(_explained(explanation))
    causes = causes_in_words(explanation, wanted)
    result["summary"] = (
        f"{wanted.unit} failed ({result['unit_state']}): {' '.join(causes)}"
        if causes
        else unhealthy_text(wanted.unit, findings, causes)
    )
    return result


def full_result(reading: Reading, wanted: Wanted) -> dict[str, Any]:
    """Every check; the summary of a service that has failed is that of the probe."""
    result = probe_result(reading, wanted)
    findings = full_checks(reading, wanted)
    result["checks"] = _rows(findings)
    if reading.container is None:
        return result
    result["release"] = reading.container.release
    result["healthy"] = all(finding.status != "fail" for finding in findings)
    if result["healthy"]:
        result["summary"] = healthy_text(findings, wanted)
        result["evidence"] = evidence(reading, wanted)
    else:
        explanation = explained(reading.journal.text.splitlines(), wanted)
        result.update(_explained(explanation))
        result["summary"] = unhealthy_text(wanted.unit, findings, causes_in_words(explanation, wanted))
    return result


def explained(lines: Sequence[str], wanted: Wanted) -> Explanation:
    """Known errors, the last exception and the last lines of a log."""
    text = mask("\n".join(lines), [wanted.api_key, *wanted.secrets])
    return Explanation(explain(text), root_error(text), text.splitlines()[-TAIL_LINES:])


def causes_in_words(explanation: Explanation, wanted: Wanted) -> list[str]:
    """The two most telling causes; before them the last exception, if no known cause explains it."""
    causes = [
        cause.text for cause in explanation.causes[:2] if not (wanted.watch and cause.id in CONSEQUENCES)
    ]
    if explanation.root_error and {cause.id for cause in explanation.causes} <= CONSEQUENCES:
        causes.insert(0, f"{explanation.root_error.rstrip('.')}.")
    return causes


def unhealthy_text(unit: str, findings: Sequence[Finding], causes: Sequence[str]) -> str:
    """The failed checks with their remedies, and the log's cause if a remedy is only to read the log."""
    bad = [finding for finding in findings if finding.status == "fail"]
    parts = [f"{finding.check}: {finding.found.rstrip('.')}. {finding.remedy}".strip() for finding in bad]
    if causes and READ_THE_LOG & {finding.check for finding in bad}:
        parts.insert(0, f"The log says: {causes[0]}")
    return f"{unit} is not healthy. {' '.join(parts)}"


def healthy_text(findings: Sequence[Finding], wanted: Wanted) -> str:
    """What was completed, or on a worker what the watch says, and the names of the warnings."""
    telling = "completion" if wanted.serves else "watch"
    found = next((finding.found for finding in findings if finding.check == telling), "")
    warnings = ", ".join(finding.check for finding in findings if finding.status == "warn")
    return f"{wanted.unit} is healthy, {found}" + (f"; warnings: {warnings}" if warnings else "")


def evidence(reading: Reading, wanted: Wanted) -> dict[str, Any]:
    """The markers of this run, which a later check may no longer find; `known` is false if their log is not whole."""
    log = known_log(reading, wanted.evidence)
    return {
        "invocation_id": reading.unit.invocation_id,
        "known": log.origin != "none",
        "markers": log.facts.markers,
    }


def _facts(reading: Reading, wanted: Wanted) -> dict[str, Any]:
    unit, watch, log = reading.unit, reading.watch, reading.journal
    failed = reading.failed(wanted.restarts_before)
    ready = reading.ready(wanted)
    waits = watch is not None and watch.restarting
    return {
        "ready": ready,
        "failed_unit": failed,
        "phase": "failed" if failed else "serving" if ready else "restarting" if waits else log.facts.phase,
        "progress": "" if failed else log.facts.progress,
        "elapsed_s": unit.elapsed_s,
        "invocation_id": unit.invocation_id,
        "n_restarts": watch.restarts if watch else unit.n_restarts,
        "unit_exists": unit.exists,
        "unit_state": f"{unit.describe()}; {watch.describe()}" if watch else unit.describe(),
        "log_source": "journal" if log.text.strip() else "none",
    }


def _explained(explanation: Explanation) -> dict[str, Any]:
    return {
        "findings": [dict(cause._asdict()) for cause in explanation.causes],
        "root_error": explanation.root_error,
        "log_tail": explanation.tail,
    }


def _rows(findings: Sequence[Finding]) -> list[dict[str, str]]:
    return [dict(finding._asdict()) for finding in findings]
