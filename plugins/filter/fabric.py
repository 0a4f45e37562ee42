"""Filters of the fabric stage: the gate's tests, verdicts on what was measured, the netplan file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.finding_table import as_findings, table
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate import diagnosis as fabric_diagnosis
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate import tests as fabric_gate
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.history import extended, figures
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nodes import address_commands
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.messages import preflight_sentences

MEASURED = ("jumbo_ping", "bandwidth", "port_bandwidth", "nccl")


def fabric_diagnosis_filter(
    planned: Mapping[str, Any],
    facts: Mapping[str, Any],
    measured: Mapping[str, Any],
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, str]]:
    """Findings with where, check, status, found, reason and remedy; `thresholds` by replica."""
    try:
        found = fabric_diagnosis.diagnose(planned, facts, measured, thresholds)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error
    return [dict(finding._asdict()) for finding in found]


def fabric_table(findings: Sequence[Mapping[str, Any]], width: int = 110) -> str:
    """The findings as a table, one group a node, link or replica; what was measured is always shown."""
    return table(as_findings(findings), int(width), MEASURED)


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


def fabric_gate_plan(
    planned: Mapping[str, Any],
    facts: Mapping[str, Any],
    replicas: Sequence[str],
    busy: Mapping[str, Any] | None = None,
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The gate's tests by host: pings, and servers and measurements by round; `thresholds` by replica."""
    try:
        return fabric_gate.gate_plan(planned, facts, replicas, busy, thresholds)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def fabric_earlier(results: Sequence[Mapping[str, Any]], loop_var: str) -> dict[str, Any]:
    """Replica -> its earlier runs, out of the files that slurp found; one that is no history counts as none."""
    found = {}
    for result in results:
        try:
            runs = json.loads(base64.b64decode(result.get("content", "")))
        except ValueError:
            continue
        if isinstance(runs, list):
            found[str(result[loop_var])] = runs
    return found


def fabric_sentences(
    findings: Sequence[Mapping[str, Any]], planned: Mapping[str, Any], replica: str
) -> list[str]:
    """One sentence a finding of the replica."""
    return [
        sentence
        for one in fabric_gate.of_replica(findings, planned, replica)
        for sentence in preflight_sentences([one], str(one["where"]))
    ]


def fabric_history(measured: Mapping[str, Any], planned: Mapping[str, Any], time: str) -> dict[str, Any]:
    """Replica -> its runs with this one, as they are kept on the operator's machine."""
    before = measured.get("history") or {}
    return {
        name: extended(before.get(name) or [], time, figures(name, measured, entry["hosts"]))
        for name, entry in planned["replicas"].items()
        if entry["size"] > 1
    }


def fabric_address_commands(facts: Mapping[str, Any], row: Mapping[str, Any], mtu: int = 9000) -> list[str]:
    """What would have to be typed for the rails to be as planned; [] when they are."""
    return address_commands(facts, row, int(mtu))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "fabric_address_commands": fabric_address_commands,
            "fabric_diagnosis": fabric_diagnosis_filter,
            "fabric_earlier": fabric_earlier,
            "fabric_gate_busy": fabric_gate.busy,
            "fabric_gate_replicas": fabric_gate.to_measure,
            "fabric_gathered": fabric_gate.gathered,
            "fabric_sentences": fabric_sentences,
            "fabric_gate_plan": fabric_gate_plan,
            "fabric_history": fabric_history,
            "fabric_netplan": fabric_netplan,
            "fabric_passable": fabric_gate.passable,
            "fabric_table": fabric_table,
        }
