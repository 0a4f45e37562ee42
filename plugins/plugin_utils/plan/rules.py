"""What a replica must be before anything is deployed: every broken rule is one sentence with the lines to change."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan import addresses as fabric
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.nodes import (
    RAY_PORTS,
    RAY_WORKER_PORTS,
    SAME,
    SIZES,
    Node,
    Replica,
)

Rails = Mapping[str, Sequence[fabric.Rail]]


def broken_rules(replicas: Sequence[Replica], rails: Rails, groups: Mapping[str, Iterable[str]]) -> list[str]:
    """Sentences about replicas and their addresses; [] when all is well."""
    found: list[str] = []
    for replica in replicas:
        found += _members_differ(replica)
        sizes = [*_size(replica)]
        found += sizes or [*_kind(replica)]
        found += _ports(replica)
        if len(replica.members) > 1 and not sizes:
            found += _rails(replica, rails)
    found += _groups(replicas, groups)
    found += _shared_rings(replicas)
    found += _duplicates(replicas, rails)
    found += _management(replicas, rails)
    return list(dict.fromkeys(found))


def _names(hosts: Iterable[str]) -> str:
    return ", ".join(hosts)


def _size(replica: Replica) -> Iterator[str]:
    nodes, head = len(replica.members), replica.head
    if nodes not in SIZES:
        yield (
            f"Replica {replica.name} has {nodes} nodes ({_names(replica.hosts)}); vLLM serves a model from "
            "1, 2, 4 or 8: "
            f"take `dgx_vllm_replica: {replica.name}`{head.at('replica')} from some of them, or add nodes to "
            "it."
        )
        return
    tensor, pipeline = head.numbers["tensor_parallel_size"], head.numbers["pipeline_parallel_size"]
    if tensor * pipeline == nodes:
        return
    fitting = nodes // pipeline if nodes % pipeline == 0 else nodes
    lines = f"`dgx_vllm_tensor_parallel_size: {fitting}`"
    if fitting * pipeline != nodes:
        lines += " and `dgx_vllm_pipeline_parallel_size: 1`"
    places = head.at("tensor_parallel_size") + head.at("pipeline_parallel_size")
    yield (
        f"Replica {replica.name} has {nodes} node{'s' * (nodes > 1)} ({_names(replica.hosts)}) of one GPU "
        "each, but "
        f"dgx_vllm_tensor_parallel_size {tensor} x dgx_vllm_pipeline_parallel_size {pipeline} is "
        f"{tensor * pipeline}"
        f"{places}; write {lines} for them, or put {tensor * pipeline} nodes into it with dgx_vllm_replica."
    )


def _kind(replica: Replica) -> Iterator[str]:
    nodes, head = len(replica.members), replica.head
    if replica.kind == "direct" and nodes > 2:
        yield (
            f"Replica {replica.name} has {nodes} nodes, and a cable joins two{head.at('fabric_kind')}; "
            "write `dgx_vllm_fabric_kind: switch` or `dgx_vllm_fabric_kind: ring`."
        )
    if replica.kind == "ring" and nodes == 2:
        yield (
            f"Replica {replica.name} has two nodes, which make no ring{head.at('fabric_kind')}; "
            "write `dgx_vllm_fabric_kind: direct`."
        )
    if replica.kind == "ring" and nodes > 2:
        for node in replica.members:
            control = node.texts["control_address"] or node.management
            if not _is_ipv4(control):
                yield (
                    f"{node.host} is in the ring {replica.name}, where no rail reaches every node, so the "
                    "nodes find each "
                    "other over the management network: write its IPv4 address there, as "
                    "`dgx_vllm_control_address: 192.0.2.11`."
                )


def _is_ipv4(text: str) -> bool:
    return fabric.is_address(text) and ipaddress.ip_address(text).version == 4


def _members_differ(replica: Replica) -> Iterator[str]:
    head = replica.head
    for name in SAME:
        ours = _shown(head, name)
        other = next((node for node in replica.members if _shown(node, name) != ours), None)
        if other is not None:
            yield (
                f"Replica {replica.name}: dgx_vllm_{name} is {ours} on {head.host}{head.at(name)} and "
                f"{_shown(other, name)} on {other.host}{other.at(name)}; write one value for all of "
                f"{_names(replica.hosts)}."
            )


def _shown(node: Node, name: str) -> str:
    """A value as text: `-e name=1` gives a string where the inventory has a number."""
    value = node.same.get(name)
    return "not set" if value is None or value == "" else str(value)


def _ports(replica: Replica) -> Iterator[str]:
    head = replica.head
    used = {"dgx_vllm_port": head.numbers["port"], "dgx_vllm_watch_port": head.numbers["watch_port"]}
    if len(replica.members) > 1:
        used["dgx_vllm_master_port"] = head.numbers["master_port"]
        if head.texts["executor"] == "ray":
            ray = head.numbers["ray_port"]
            used["dgx_vllm_ray_port"] = ray
            used["dgx_vllm_ray_dashboard_port"] = head.numbers["ray_dashboard_port"]
            for number, name in enumerate(RAY_PORTS, ray + 1):
                used[f"Ray's {name} (dgx_vllm_ray_port + {number - ray})"] = number
    for (left, a), (right, b) in combinations(used.items(), 2):
        if a == b:
            yield (
                f"Replica {replica.name}: {left} and {right} are both {a} on {head.host}{head.at(left[9:])}; "
                "give one of them another port."
            )
    first, last = RAY_WORKER_PORTS
    if head.texts["executor"] == "ray" and len(replica.members) > 1:
        for name, port in used.items():
            if first <= port <= last:
                yield f"Replica {replica.name}: {name} is {port}, inside {first}-{last} of Ray's workers; move it out."


def _rails(replica: Replica, rails: Rails) -> Iterator[str]:
    head = replica.head
    without = [node.host for node in replica.members if not rails[node.host]]
    if without:
        yield (
            f"{_names(without)} of replica {replica.name}: no address on the fabric; write one network for "
            "all, as "
            "`dgx_vllm_fabric_prefix: 198.51.100.0/24`, or `dgx_vllm_fabric_addresses` for each host, one "
            "address a rail."
        )
        return
    for node in replica.members[1:]:
        mine, wanted = len(rails[node.host]), len(rails[head.host])
        if mine != wanted:
            yield (
                f"Replica {replica.name}: {node.host} has {mine} "
                f"rail{'s' * (mine != 1)}{node.at('fabric_addresses')} "
                f"and {head.host} has {wanted}{head.at('fabric_addresses')}; write the missing addresses of "
                f"dgx_vllm_fabric_addresses on {node.host if mine < wanted else head.host}."
            )
            return
    if len(rails[head.host]) % fabric.HALVES:
        yield (
            f"Replica {replica.name} has {len(rails[head.host])} rails a node, but each port has two halves "
            "and half a "
            f"port is half the bandwidth{head.at('fabric_addresses')}; write two addresses a cabled port."
        )
    for node in replica.members:
        yield from _own_subnets(node, rails[node.host])
    if replica.kind == "ring":
        yield from _ring_meets(replica, rails)
    else:
        yield from _rails_meet(replica, rails)


def _own_subnets(node: Node, rails: Sequence[fabric.Rail]) -> Iterator[str]:
    for left, right in combinations(rails, 2):
        if left.interface.network.overlaps(right.interface.network):
            yield (
                f"{node.host}: rails {left.rail} and {right.rail} ({left.address}, {right.address}) are in "
                "one subnet"
                f"{node.at('fabric_addresses')}, where the kernel mixes them up; put each rail into a subnet "
                "of its own."
            )


def _rails_meet(replica: Replica, rails: Rails) -> Iterator[str]:
    head = replica.head
    for node in replica.members[1:]:
        for ours, theirs in zip(rails[head.host], rails[node.host], strict=False):
            if ours.interface.network != theirs.interface.network:
                yield (
                    f"Replica {replica.name}: rail {ours.rail} is {ours.address} on "
                    f"{head.host}{head.at('fabric_addresses')} "
                    f"and {theirs.address} on {node.host}{node.at('fabric_addresses')}, which are different "
                    "subnets; "
                    f"take an address of {ours.interface.network} for {node.host}."
                )


def _ring_meets(replica: Replica, rails: Rails) -> Iterator[str]:
    joined = {frozenset((link.a, link.b)) for link in fabric.links(rails)}
    hosts = replica.hosts
    for position, host in enumerate(hosts):
        following = hosts[(position + 1) % len(hosts)]
        if frozenset((host, following)) not in joined:
            yield (
                f"Ring {replica.name}: {host} and {following} are neighbours, but no subnet joins them; give "
                "the two ends "
                "of each cable addresses of one subnet in dgx_vllm_fabric_addresses."
            )


def _shared_rings(replicas: Sequence[Replica]) -> Iterator[str]:
    users: dict[str, list[Replica]] = {}
    for replica in replicas:
        for prefix in sorted({node.texts["fabric_prefix"] for node in replica.members} - {""}):
            users.setdefault(prefix, []).append(replica)
    for prefix, sharing in users.items():
        if len(sharing) > 1 and any(
            replica.kind == "ring" and len(replica.members) > 2 for replica in sharing
        ):
            yield (
                f"Replicas {_names(replica.name for replica in sharing)} share dgx_vllm_fabric_prefix "
                f"{prefix}, and one is "
                "a ring, which needs all of it; give each ring a prefix of its own."
            )


def _groups(replicas: Sequence[Replica], groups: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """A replica that is called like an inventory group must be that group: else a host is in two of them."""
    named = {replica.name: replica for replica in replicas if replica.head.replica}
    member_of = {node.host: replica for replica in replicas for node in replica.members}
    for name, replica in named.items():
        for host in groups.get(name, ()):
            other = member_of.get(host)
            if other is not None and other is not replica:
                line = f"`dgx_vllm_replica: {name}`"
                yield (
                    f"{host} is in the group {name}, but its dgx_vllm_replica is "
                    f"{other.head.replica or 'not set'}"
                    f"{other.head.at('replica')}; a node serves one model: write {line} for it or take it "
                    "out of the group."
                )


def _duplicates(replicas: Sequence[Replica], rails: Rails) -> Iterator[str]:
    owners: dict[str, list[str]] = {}
    for replica in replicas:
        for node in replica.members:
            for rail in rails[node.host]:
                owners.setdefault(str(rail.interface.ip), []).append(f"rail {rail.rail} of {node.host}")
    for address, users in owners.items():
        if len(users) > 1:
            yield (
                f"The address {address} is given to {' and '.join(users)}; change one of them in "
                "dgx_vllm_fabric_addresses (or dgx_vllm_fabric_index, where addresses are planned)."
            )
    machines: dict[tuple[str, str], list[tuple[str, Replica]]] = {}
    for replica in replicas:
        for node in replica.members:
            if fabric.is_address(node.management) and not ipaddress.ip_address(node.management).is_loopback:
                machines.setdefault((node.management, node.ssh_port), []).append((node.host, replica))
    for (address, _), places in machines.items():
        if len(places) > 1:
            hosts, names = [host for host, _ in places], [replica.name for _, replica in places]
            yield (
                f"{' and '.join(hosts)} have the same ansible_host {address}, so one machine is in "
                f"{len(places)} places (replicas {_names(dict.fromkeys(names))}); take one of the hosts out "
                "of the inventory, "
                "or correct its ansible_host."
            )


def _management(replicas: Sequence[Replica], rails: Rails) -> Iterator[str]:
    for replica in replicas:
        for node in replica.members:
            for variable, text in (
                ("ansible_host", node.management),
                ("dgx_vllm_control_address", node.texts["control_address"] if replica.kind == "ring" else ""),
            ):
                if not _is_ipv4(text):
                    continue
                address = ipaddress.IPv4Address(text)
                for rail in rails[node.host]:
                    if address in rail.interface.network:
                        yield (
                            f"{node.host}: the {variable} {address} lies in the subnet of rail {rail.rail} "
                            f"({rail.address}); "
                            "the management network can be no rail: take another dgx_vllm_fabric_prefix or "
                            "other "
                            "dgx_vllm_fabric_addresses."
                        )
