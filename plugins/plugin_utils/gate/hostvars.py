"""What the gate reads of the hosts' variables; no other variable is touched, so no lookup of a secret runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

HostVars = Mapping[str, Mapping[str, Any]]


class Node(NamedTuple):
    """What this run knows of a host: its variables __dgx_vllm_fabric_read, _node and _fabric_changed.

    `fabric` is what dgx_vllm_fabric returned, {} if it was not read; `image` says whether the node has one in which
    an all-gather can run.
    """

    fabric: Mapping[str, Any]
    serves: bool
    recabled: bool
    image: bool


class Request(NamedTuple):
    """What the head of a replica asks of the gate: its variable __dgx_vllm_gate_request."""

    thresholds: Mapping[str, Any]
    beside_server: bool
    nccl: bool


def variable(hostvars: HostVars, host: str, name: str) -> Mapping[str, Any]:
    """A dictionary among the host's variables; {} if this run has not set it."""
    variables = hostvars[host]
    return (variables[name] or {}) if name in variables else {}


def read_nodes(hostvars: HostVars, hosts: Iterable[str]) -> dict[str, Node]:
    """Host -> what this run knows of it."""
    return {host: _node(hostvars, host) for host in hosts}


def _node(hostvars: HostVars, host: str) -> Node:
    state = variable(hostvars, host, "__dgx_vllm_node").get("state") or {}
    service = state.get("service") or {}
    return Node(
        fabric=variable(hostvars, host, "__dgx_vllm_fabric_read").get("fabric") or {},
        serves=service.get("active_state") in ("active", "activating"),
        recabled="__dgx_vllm_fabric_changed" in hostvars[host],
        image=bool((state.get("image") or {}).get("present") or service.get("release")),
    )


def read_requests(hostvars: HostVars, planned: Mapping[str, Any]) -> dict[str, Request]:
    """Replica -> what its head asks; a head that is not in this run asks nothing."""
    found = {}
    for name, replica in planned["replicas"].items():
        given = variable(hostvars, replica["head"], "__dgx_vllm_gate_request")
        found[name] = Request(
            given.get("thresholds", {}), given.get("beside_server", False), given.get("nccl", False)
        )
    return found


def read_results(
    hostvars: HostVars, hosts: Iterable[str], registered: Iterable[str]
) -> list[Mapping[str, Any]]:
    """The hosts' results of dgx_vllm_fabric_probe, out of the variables `registered`."""
    names = list(registered)
    return [variable(hostvars, host, name) for host in hosts for name in names]
