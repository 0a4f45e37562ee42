"""Filters over what dgx_vllm_state read: the preflight verdicts and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.checks import preflight as judge
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.drift import drift, served_drift
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.fabric import fabric_rows
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.text_table import preflight_table as render


def preflight(state: Any, settings: Any) -> list[dict[str, str]]:
    """Rows of check, status, found, reason, remedy."""
    if not isinstance(state, Mapping) or not isinstance(settings, Mapping):
        raise AnsibleFilterError(
            "preflight wants the `state` of dgx_vllm_state and a dictionary of settings, "
            f"not {type(state).__name__} and {type(settings).__name__}; see ansible-doc."
        )
    return [row._asdict() for row in judge(state, settings)]


def _nodes(hostvars: Mapping[str, Any], members: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What this run has read of each member; members that it did not read are left out."""
    known = [host for host in members if host in hostvars and "__dgx_vllm_node" in hostvars[host]]
    return {
        host: {
            "state": hostvars[host]["__dgx_vllm_node"]["state"],
            "fabric": (hostvars[host].get("__dgx_vllm_fabric_read") or {}).get("fabric"),
        }
        for host in known
        if "state" in hostvars[host]["__dgx_vllm_node"]
    }


def preflight_drift(
    hostvars: Mapping[str, Any], members: Sequence[str], settings: Any
) -> list[dict[str, str]]:
    """Rows about what the nodes of a replica must have in common; nodes that this run did not read do not count."""
    return [row._asdict() for row in drift(_nodes(hostvars, members), settings)]


def preflight_served_drift(
    hostvars: Mapping[str, Any], members: Sequence[str], settings: Any
) -> list[dict[str, str]]:
    """Rows about image and model of a replica's nodes, once the stages that bring them are over."""
    return [row._asdict() for row in served_drift(_nodes(hostvars, members), settings)]


def preflight_fabric(facts: Mapping[str, Any], row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows about the rails that are planned for a node."""
    return [one._asdict() for one in fabric_rows(facts, row)]


def preflight_table(rows_by_host: Mapping[str, Sequence[Mapping[str, Any]]], width: int = 110) -> str:
    """The rows of every host as one plain table."""
    if not isinstance(rows_by_host, Mapping):
        raise AnsibleFilterError(
            "preflight_table wants a dictionary of host name to preflight rows, "
            f"not {type(rows_by_host).__name__}; write `{{inventory_hostname: rows}} | preflight_table`."
        )
    return render(rows_by_host, int(width))


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
