"""Filters of the fabric gate: what is measured between the nodes, and what that means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate import limits, steps


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
    return steps.evaluate(gate, hostvars, hosts, files, time)


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
