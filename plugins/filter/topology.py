"""Filters over the inventory: who serves what together, and the table of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.nodes import DEFAULTS, SAME
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan, rank_table

NAMES = ("ansible_host", "ansible_port", *(f"dgx_vllm_{name}" for name in sorted({*DEFAULTS, *SAME})))
"""What is read of a host; nothing else of its variables is touched, so no lookup of a secret is run."""

PLACED = ("dgx_vllm_replica", "dgx_vllm_fabric_prefix")
"""A host with one of these has a place that others count on, whatever group it is in and whatever --limit says."""


def _origin(value: Any) -> str:
    """file:line of an inventory value, where this Ansible keeps it (core 2.19); '' otherwise."""
    try:
        from ansible._internal._datatag._tags import Origin
    except ImportError:
        return ""
    tag = Origin.get_tag(value)
    if tag is None or not tag.path or not tag.line_num:
        return ""
    return f"{os.path.relpath(tag.path)}:{tag.line_num}"


def _placed(variables: Mapping[str, Any]) -> bool:
    return any(name in variables and variables[name] for name in PLACED)


def topology(hostvars: Any, hosts: Any, groups: Any = None) -> dict[str, Any]:
    """hosts, replicas and mistakes of the inventory: of `hosts`, and of all of its hosts that have a place in it.

    A host whose dgx_vllm_state is absent has none.
    """
    if (
        not isinstance(hostvars, Mapping)
        or isinstance(hosts, (str, Mapping))
        or not isinstance(hosts, Iterable)
    ):
        raise AnsibleFilterError(
            "topology wants the variables of the hosts and a list of hosts; "
            "write `hostvars | dgx_vllm.spark.topology(groups['dgx_vllm'], groups)`."
        )
    groups = groups if isinstance(groups, Mapping) else {}
    placed = [host for host in groups.get("all", ()) if _placed(hostvars[host])]
    variables = {}
    for host in dict.fromkeys([*hosts, *placed]):
        known = hostvars[host]
        if known.get("dgx_vllm_state") == "absent":
            continue
        variables[str(host)] = {name: known[name] for name in NAMES if name in known}
    return plan(variables, groups, _origin)


def topology_table(planned: Any) -> str:
    """The rank table as text."""
    if not isinstance(planned, Mapping) or "replicas" not in planned:
        raise AnsibleFilterError("topology_table wants what the filter topology returned.")
    return rank_table(planned)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"topology": topology, "topology_table": topology_table}
