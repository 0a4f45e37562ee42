"""Filters of the fabric gate: what is measured between the nodes, and what that means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.filter.text import preflight_sentences
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate import diagnosis, limits, steps
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.text_table import preflight_table

MEASURED = ("jumbo_ping", "bandwidth", "port_bandwidth", "nccl")


def gate_plan(
    planned: Mapping[str, Any],
    hostvars: Mapping[str, Any],
    hosts: Sequence[str],
    named: Sequence[str],
    always: bool = False,
) -> dict[str, Any]:
    """Which replicas are measured, and who measures what with whom."""
    try:
        return steps.plan_gate(planned, hostvars, hosts, named, always)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def gate_collect(
    gate: Mapping[str, Any], hostvars: Mapping[str, Any], hosts: Sequence[str], *registered: str
) -> dict[str, Any]:
    """The gate with what the hosts measured, without the tests that can no longer succeed."""
    return steps.collect(gate, hostvars, hosts, registered)


def gate_evaluate(
    gate: Mapping[str, Any],
    hostvars: Mapping[str, Any],
    hosts: Sequence[str],
    files: Sequence[Mapping[str, Any]],
    time: str,
) -> dict[str, Any]:
    """Findings, their table, the failures of each replica as sentences, and its history."""
    found = steps.evaluate(gate, hostvars, hosts, files, time)
    failed = [finding for finding in found["findings"] if finding.status == "fail"]
    return {
        **found,
        "findings": [finding._asdict() for finding in found["findings"]],
        "table": table(found["findings"]),
        "failures": {name: sentences(failed, gate["plan"], name) for name in gate["replicas"]},
    }


def table(findings: Sequence[Finding]) -> str:
    """The findings in groups, one per node, link or replica; what was measured is always shown."""
    places: dict[str, list[dict[str, str]]] = {}
    for finding in findings:
        places.setdefault(finding.where, []).append(finding._asdict())
    return preflight_table(places, shown=MEASURED)


def sentences(findings: Sequence[Finding], planned: Mapping[str, Any], replica: str) -> list[str]:
    """One sentence per finding of the replica."""
    return [
        sentence
        for finding in diagnosis.of_replica(findings, planned, replica)
        for sentence in preflight_sentences([finding._asdict()], finding.where)
    ]


def fabric_limits(thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """All limits of the fabric, with those of dgx_vllm_fabric_thresholds instead of the known ones."""
    try:
        return limits.limits_from(thresholds)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "fabric_limits": fabric_limits,
            "gate_collect": gate_collect,
            "gate_evaluate": gate_evaluate,
            "gate_plan": gate_plan,
        }
