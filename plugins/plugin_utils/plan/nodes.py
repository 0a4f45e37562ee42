"""Nodes and replicas: which hosts serve a model together, as which rank, over which addresses.

Computed here and nowhere else; a standalone host is a replica of one. Nothing depends on the order in which the
inventory lists its hosts: they are sorted by name, numbers in names as numbers, unless `dgx_vllm_rank` says
otherwise. All mistakes are found in one pass, each a sentence with the lines to change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan import addresses as fabric

DEFAULTS: dict[str, Any] = {
    "replica": "",
    "rank": -1,
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "executor": "mp",
    "port": 8000,
    "master_port": 29501,
    "ray_port": 6379,
    "ray_dashboard_port": 8265,
    "watch_port": 29590,
    "control_address": "",
    "fabric_kind": "direct",
    "fabric_prefix": "",
    "fabric_addresses": [],
    "fabric_index": -1,
    "fabric_ports": 1,
}
"""The role's defaults of the variables that are read here (without `dgx_vllm_`); a test compares them."""

SAME = (
    "model", "model_revision", "image", "image_source", "image_archive", "image_build_base", "port",
    "tensor_parallel_size", "pipeline_parallel_size", "executor", "master_port", "ray_port",
    "ray_dashboard_port", "watch_port", "fabric_kind", "fabric_ports", "served_model_names", "max_model_len",
    "max_num_seqs", "gpu_memory_utilization", "kv_cache_memory_bytes", "kv_cache_dtype", "tool_call_parser",
    "reasoning_parser", "extra_args", "fp8_linear", "fp8_moe",
)  # fmt: skip
"""Variables that must be the same on all nodes of a replica: vLLM needs the same flags on every node."""

RAY_PORTS = (
    "node_manager", "object_manager", "runtime_env_agent", "dashboard_agent_grpc", "dashboard_agent_listen",
    "metrics_export", "ray_client_server",
)  # fmt: skip
"""Ports that Ray would choose at random; here they follow dgx_vllm_ray_port, so that a firewall can name them."""

RAY_WORKER_PORTS = (10002, 10999)
"""First and last port of Ray's worker processes, from the lower end of Ray's own default."""


class Node(NamedTuple):
    """One host as its variables describe it: each field is the variable dgx_vllm_<field>, unless it says otherwise."""

    host: str
    """inventory_hostname"""
    management: str
    """ansible_host"""
    ssh_port: str
    """ansible_port"""
    replica: str
    rank: Optional[int]
    model: str
    tensor_parallel_size: int
    pipeline_parallel_size: int
    executor: str
    port: int
    master_port: int
    ray_port: int
    ray_dashboard_port: int
    watch_port: int
    control_address: str
    fabric_kind: str
    fabric_prefix: str
    fabric_addresses: list[str]
    fabric_index: Optional[int]
    fabric_ports: int
    compared: dict[str, Any]
    """The other variables of SAME, as they are written: the plan only compares them."""
    origins: dict[str, str]
    """Variable (without dgx_vllm_) -> file:line, where that is known."""

    def at(self, name: str) -> str:
        """' (file:line)' of a variable, or ''."""
        return f" ({self.origins[name]})" if name in self.origins else ""

    def shown(self, name: str) -> str:
        """A variable of SAME as text: `-e name=1` gives a string if the inventory has a number."""
        value = getattr(self, name) if name in self._fields else self.compared[name]
        return "not set" if value is None or value == "" else str(value)


class Replica(NamedTuple):
    """The nodes that serve one copy of a model, rank by rank."""

    name: str
    members: list[Node]

    @property
    def head(self) -> Node:
        """Rank 0."""
        return self.members[0]

    @property
    def hosts(self) -> list[str]:
        """Names, rank by rank."""
        return [node.host for node in self.members]

    @property
    def kind(self) -> str:
        """direct, switch or ring."""
        return self.head.fabric_kind


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts spark2 before spark10."""
    return [
        (0, int(part), "") if re.fullmatch(r"[0-9]{1,18}", part) else (1, 0, part)
        for part in re.split(r"([0-9]{1,18})", str(name))
        if part
    ]


def ranked(members: Sequence[Node], mistakes: list[str]) -> list[Node]:
    """Members by rank: the ranks that are given, the others by name in the remaining places."""
    by_name = sorted(members, key=_name)
    places: dict[int, Node] = {}
    for node in by_name:
        if node.rank is None:
            continue
        if node.rank >= len(by_name):
            mistakes.append(
                f"{node.host}: dgx_vllm_rank is {node.rank}{node.at('rank')}, but its replica has "
                f"{len(by_name)} nodes; write a rank from 0 to {len(by_name) - 1}, or remove the line."
            )
        elif node.rank in places:
            mistakes.append(
                f"{places[node.rank].host} and {node.host} both have `dgx_vllm_rank: {node.rank}`{node.at('rank')}; "
                "give one of them another rank, or remove the line."
            )
        else:
            places[node.rank] = node
    others = [node for node in by_name if node not in places.values()]
    return [places[rank] if rank in places else others.pop(0) for rank in range(len(by_name))]


def _name(node: Node) -> tuple[list[tuple[int, int, str]], str]:
    return natural(node.host), node.host


def replicas_of(nodes: Sequence[Node], mistakes: list[str]) -> list[Replica]:
    """Nodes grouped by the name of their replica; a node without one is a replica of one."""
    names = {node.replica for node in nodes if node.replica}
    standalone = {node.host for node in nodes if not node.replica}
    for name in sorted(names & standalone):
        members = ", ".join(node.host for node in nodes if node.replica == name)
        mistakes.append(
            f"`dgx_vllm_replica: {name}` of {members} is the name of a standalone host; "
            f"set dgx_vllm_replica on {name} too, or choose another name."
        )
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        groups.setdefault((node.replica, "" if node.replica else node.host), []).append(node)
    replicas = [Replica(name or host, ranked(members, mistakes)) for (name, host), members in groups.items()]
    return sorted(replicas, key=lambda replica: (natural(replica.name), replica.name, replica.head.host))


def addresses_of(replicas: Sequence[Replica], mistakes: list[str]) -> dict[str, list[fabric.Rail]]:
    """Host -> its rails: the given addresses, or those planned from its prefix; [] for a node without either."""
    nodes = sorted((node for replica in replicas for node in replica.members), key=_name)
    ring_places = {
        node.host: (rank, len(replica.members))
        for replica in replicas
        if replica.kind == "ring"
        for rank, node in enumerate(replica.members)
    }
    indexes = _indexes(node for node in nodes if node.host not in ring_places)
    rails: dict[str, list[fabric.Rail]] = {}
    refused: set[str] = set()
    for node in nodes:
        addresses = node.fabric_addresses
        try:
            if not addresses and node.fabric_prefix and node.host in ring_places:
                addresses = fabric.plan_ring(node.fabric_prefix, *ring_places[node.host])
            elif not addresses and node.fabric_prefix:
                addresses = fabric.plan_shared(node.fabric_prefix, indexes[node.host], node.fabric_ports)
        except fabric.AddressError as error:
            if str(error) not in refused:
                mistakes.append(f"{node.host}{node.at('fabric_prefix')}: {error}")
            refused.add(str(error))
        rails[node.host] = fabric.as_rails(addresses)
    return rails


def _indexes(nodes: Iterable[Node]) -> dict[str, int]:
    """Host -> its number in its prefix."""
    by_prefix: dict[str, dict[str, int | None]] = {}
    for node in nodes:
        if node.fabric_prefix:
            by_prefix.setdefault(node.fabric_prefix, {})[node.host] = node.fabric_index
    return {host: index for hosts in by_prefix.values() for host, index in fabric.indexes(hosts).items()}
