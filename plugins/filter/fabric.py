"""Filters of the fabric stage: rounds of tests, verdicts on what was measured, the netplan file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.module_utils import fabric_diagnosis, fabric_measure, netplan
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric_rounds import schedule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.text_table import preflight_table


def fabric_diagnosis_filter(
    planned: Mapping[str, Any],
    facts: Mapping[str, Any],
    measured: Mapping[str, Any],
    thresholds: Mapping[str, Any] | None = None,
) -> list[dict[str, str]]:
    """Findings with where, check, status, found, reason and remedy."""
    try:
        found = fabric_diagnosis.diagnose(planned, facts, measured, thresholds)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error
    return [dict(finding._asdict()) for finding in found]


def fabric_rounds(planned: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Rounds of pair tests for the whole topology."""
    return schedule(list(planned["replicas"].values()))


def fabric_table(findings: Sequence[Mapping[str, Any]], width: int = 110) -> str:
    """The findings as a table, one group a node, link or replica."""
    places: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings:
        places.setdefault(str(finding["where"]), []).append(finding)
    return preflight_table(places, int(width))


def fabric_netplan(
    rails: Sequence[Mapping[str, Any]],
    addresses: Sequence[str],
    management: Sequence[str] = (),
    mtu: int = 9000,
) -> str:
    """Content of /etc/netplan/40-cx7.yaml."""
    try:
        return netplan.render(rails, addresses, management, int(mtu))
    except netplan.NetplanError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "fabric_diagnosis": fabric_diagnosis_filter,
            "fabric_netplan": fabric_netplan,
            "fabric_parse_nccl": fabric_measure.parse_nccl,
            "fabric_parse_ping": fabric_measure.parse_ping,
            "fabric_parse_write_bw": fabric_measure.parse_write_bw,
            "fabric_rounds": fabric_rounds,
            "fabric_table": fabric_table,
        }
