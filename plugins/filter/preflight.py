"""Filters over what the nodes of a run have reported: the preflight findings and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.finding_table import as_findings, table
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight import checks, drift, fabric
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.values import as_dict

Row = dict[str, str]
"""A finding as a dictionary: where, check, status, found, reason, remedy."""


def preflight(state: Any, settings: Any, host: str = "", only: Sequence[str] | None = None) -> list[Row]:
    """The findings about one node, of all checks or of those in `only`."""
    if not isinstance(state, Mapping) or not isinstance(settings, Mapping):
        raise AnsibleFilterError(
            "preflight needs the `state` of dgx_vllm_state and a dictionary of settings, "
            f"not {type(state).__name__} and {type(settings).__name__}; see ansible-doc."
        )
    return [finding._asdict() for finding in checks.preflight(state, settings, host, only or checks.CHECKS)]


def _nodes(hostvars: Mapping[str, Any], members: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What this run has read of each member; members that it did not read are left out."""
    known = [host for host in members if host in hostvars and "__dgx_vllm_node" in as_dict(hostvars[host])]
    return {
        host: {
            "state": hostvars[host]["__dgx_vllm_node"]["state"],
            "fabric": as_dict(hostvars[host].get("__dgx_vllm_fabric_read")).get("fabric"),
        }
        for host in known
        if "state" in as_dict(hostvars[host]["__dgx_vllm_node"])
    }


def preflight_drift(
    hostvars: Mapping[str, Any], members: Sequence[str], settings: Mapping[str, Any], host: str = ""
) -> list[Row]:
    """The findings about what the nodes of a replica must have in common; unread nodes are left out."""
    return [finding._asdict() for finding in drift.drift(_nodes(hostvars, members), settings, host)]


def preflight_served_drift(
    hostvars: Mapping[str, Any], members: Sequence[str], settings: Mapping[str, Any], host: str = ""
) -> list[Row]:
    """The findings about image and model of a replica's nodes, after the stages that bring them."""
    return [finding._asdict() for finding in drift.served_drift(_nodes(hostvars, members), settings, host)]


def preflight_fabric(
    facts: Mapping[str, Any], row: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> list[Row]:
    """The findings about the rails that are planned for a node."""
    return [finding._asdict() for finding in fabric.fabric_findings(facts, row, settings or {})]


def preflight_table(rows_by_host: Mapping[str, Sequence[Mapping[str, Any]]], width: int = 110) -> str:
    """The findings of every host as one plain table."""
    if not isinstance(rows_by_host, Mapping):
        raise AnsibleFilterError(
            "preflight_table needs a dictionary of host name to preflight rows, "
            f"not {type(rows_by_host).__name__}; write `{{inventory_hostname: rows}} | preflight_table`."
        )
    findings = [finding for host, rows in rows_by_host.items() for finding in as_findings(rows, host)]
    return table(findings, int(width))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "preflight": preflight,
            "preflight_drift": preflight_drift,
            "preflight_fabric": preflight_fabric,
            "preflight_served_drift": preflight_served_drift,
            "preflight_table": preflight_table,
        }
