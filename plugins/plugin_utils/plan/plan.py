"""The whole plan of an inventory: one row per host, one entry per replica, and sentences about its mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.columns import aligned
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan import addresses as fabric
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.nodes import (
    RAY_PORTS,
    RAY_WORKER_PORTS,
    Node,
    Replica,
    addresses_of,
    replicas_of,
)
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.read import Origin, no_origin, read_node
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.rules import broken_rules

COLUMNS = ("REPLICA", "RANK", "HOST", "HEAD", "TP x PP", "EXECUTOR", "FABRIC", "RAILS", "API", "MODEL")


def plan(
    variables: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Iterable[str]] | None = None,
    origin: Origin = no_origin,
) -> dict[str, Any]:
    """`hosts` (host -> its row), `replicas` (name -> its entry) and `mistakes` (sentences).

    `variables` holds every host that serves, `groups` the inventory's groups. If there are mistakes, the rows are
    incomplete and must not be deployed.
    """
    mistakes: list[str] = []
    nodes = [
        read_node(str(host), host_variables, mistakes, origin) for host, host_variables in variables.items()
    ]
    nodes.sort(key=lambda node: node.host)
    replicas = replicas_of(nodes, mistakes)
    rails = addresses_of(replicas, mistakes)
    mistakes += broken_rules(replicas, rails, groups or {})
    return {
        "hosts": {
            node.host: _row(replica, rank, node, rails)
            for replica in replicas
            for rank, node in enumerate(replica.members)
        },
        "replicas": {replica.name: _entry(replica, rails) for replica in replicas},
        "mistakes": list(dict.fromkeys(mistakes)),
    }


def _routed(replica: Replica) -> bool:
    """Whether every node reaches every other one over rail 0."""
    return len(replica.members) > 1 and replica.kind != "ring"


def control_address(replica: Replica, node: Node, rails: Mapping[str, Sequence[fabric.Rail]]) -> str:
    """The address at which the other nodes of the replica reach this one: its rail 0, in a ring its management address.

    '' for a standalone node.
    """
    if len(replica.members) == 1:
        return ""
    if _routed(replica):
        node_rails = rails[node.host]
        return str(node_rails[0].interface.ip) if node_rails else ""
    return node.control_address or node.management


def _ray(node: Node) -> dict[str, Any]:
    first = node.ray_port
    return {
        "port": first,
        "dashboard_port": node.ray_dashboard_port,
        "ports": {name: first + number for number, name in enumerate(RAY_PORTS, 1)},
        "worker_ports": list(RAY_WORKER_PORTS),
    }


def _row(
    replica: Replica, rank: int, node: Node, rails: Mapping[str, Sequence[fabric.Rail]]
) -> dict[str, Any]:
    head = replica.head
    size = len(replica.members)
    return {
        "host": node.host,
        "replica": replica.name,
        "rank": rank,
        "head": head.host,
        "is_head": rank == 0,
        "members": replica.hosts,
        "peers": [other for other in replica.hosts if other != node.host],
        "world_size": size,
        "tensor_parallel_size": head.tensor_parallel_size,
        "pipeline_parallel_size": head.pipeline_parallel_size,
        "executor": head.executor,
        "model": node.model,
        "port": head.port,
        "kind": replica.kind if size > 1 else "none",
        "prefix": node.fabric_prefix,
        "pinned": bool(node.fabric_addresses) or not node.fabric_prefix or node.fabric_index is not None,
        "rails": [dict(rail._asdict()) for rail in rails[node.host]],
        "addresses": [str(rail.interface.ip) for rail in rails[node.host]],
        "address": control_address(replica, node, rails),
        "head_address": control_address(replica, head, rails),
        "peer_addresses": {
            other.host: control_address(replica, other, rails)
            for other in replica.members
            if other.host != node.host
        },
        "master_port": head.master_port,
        "watch_port": head.watch_port,
        "ray": _ray(head),
    }


def _entry(replica: Replica, rails: Mapping[str, Sequence[fabric.Rail]]) -> dict[str, Any]:
    members = {node.host: rails[node.host] for node in replica.members}
    return {
        "name": replica.name,
        "head": replica.head.host,
        "hosts": replica.hosts,
        "size": len(replica.members),
        "kind": replica.kind if len(replica.members) > 1 else "none",
        "model": replica.head.model,
        "links": [dict(link._asdict()) for link in fabric.links(members)] if len(members) > 1 else [],
    }


def rank_table(planned: Mapping[str, Any]) -> str:
    """The plan as text for a terminal, one line per host, replica by replica in the order of the ranks."""
    lines: list[Sequence[str]] = [COLUMNS]
    for entry in planned["replicas"].values():
        for host in entry["hosts"]:
            row = planned["hosts"][host]
            head = row["rank"] == 0
            lines.append(
                (
                    row["replica"],
                    str(row["rank"]),
                    host,
                    "head" if head else row["head"],
                    f"{row['tensor_parallel_size']} x {row['pipeline_parallel_size']}",
                    row["executor"] if row["world_size"] > 1 else "-",
                    row["kind"],
                    " ".join(rail["address"] for rail in row["rails"]) or "-",
                    f":{row['port']}" if head else "-",
                    row["model"] or "-",
                )
            )
    return "\n".join(aligned(lines))
