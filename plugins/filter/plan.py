"""Filters that plan the inventory: which hosts serve a model together, and the table of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.origin import origin
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.nodes import DEFAULTS, SAME
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan, rank_table

NAMES = ("ansible_host", "ansible_port", *(f"dgx_vllm_{name}" for name in sorted({*DEFAULTS, *SAME})))
"""The only variables that are read of a host: touching others could run the lookup of a secret."""

PLACED = ("dgx_vllm_replica", "dgx_vllm_fabric_prefix")
"""A host with one of these takes part in the plan, whatever its group and whatever --limit says."""


def _placed(variables: Mapping[str, Any]) -> bool:
    return any(name in variables and variables[name] for name in PLACED)


def topology(hostvars: Any, hosts: Any, groups: Any = None) -> dict[str, Any]:
    """`hosts`, `replicas` and `mistakes` of the plan over `hosts` and over all hosts of the inventory with a place.

    A host whose dgx_vllm_state is absent is left out.
    """
    if (
        not isinstance(hostvars, Mapping)
        or isinstance(hosts, (str, Mapping))
        or not isinstance(hosts, Iterable)
    ):
        raise AnsibleFilterError(
            "topology needs the variables of the hosts and a list of hosts; "
            "write `hostvars | dgx_vllm.spark.topology(groups['dgx_vllm'], groups)`."
        )
    groups = groups if isinstance(groups, Mapping) else {}
    placed = [host for host in groups.get("all", ()) if _placed(hostvars[host])]
    variables = {}
    for host in dict.fromkeys([*hosts, *placed]):
        host_variables = hostvars[host]
        if host_variables.get("dgx_vllm_state") == "absent":
            continue
        variables[str(host)] = {name: host_variables[name] for name in NAMES if name in host_variables}
    return plan(variables, groups, origin)


def topology_table(planned: Any) -> str:
    """The rank table as text."""
    if not isinstance(planned, Mapping) or "replicas" not in planned:
        raise AnsibleFilterError("topology_table needs what the filter topology returned.")
    return rank_table(planned)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"topology": topology, "topology_table": topology_table}
