"""Rules that replicas must follow before anything is deployed; a broken one is a sentence with the lines to change."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan import addresses as fabric
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.nodes import (
    RAY_PORTS,
    RAY_WORKER_PORTS,
    SAME,
    Node,
    Replica,
)

Rails = Mapping[str, Sequence[fabric.Rail]]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
"""What a host or a replica may be called: reports, files and the fabric's findings are named after it."""


def broken_rules(replicas: Sequence[Replica], rails: Rails, groups: Mapping[str, Iterable[str]]) -> list[str]:
    """Sentences about replicas and their addresses; [] if no rule is broken."""
    sentences = [*_bad_names(replicas)]
    for replica in replicas:
        sentences += _members_differ(replica)
        wrong_size = [*_size(replica)]
        sentences += wrong_size or [*_kind(replica)]
        sentences += _ports(replica)
        if len(replica.members) > 1 and not wrong_size:
            sentences += _rails(replica, rails)
    sentences += _groups(replicas, groups)
    sentences += _shared_rings(replicas)
    sentences += _duplicate_addresses(replicas, rails)
    sentences += _duplicate_machines(replicas)
    sentences += _management(replicas, rails)
    return list(dict.fromkeys(sentences))


def _bad_names(replicas: Sequence[Replica]) -> Iterator[str]:
    allowed = "use letters, digits, and . _ - between them"
    for replica in replicas:
        if replica.head.replica and not NAME.fullmatch(replica.name):
            yield f"The replica is called {replica.name!r}{replica.head.at('replica')}; {allowed}, as `chat-large`."
        for node in replica.members:
            if not NAME.fullmatch(str(node.host)):
                yield f"A host of the inventory is called {node.host!r}; {allowed}, as `spark1`."


def _names(hosts: Iterable[str]) -> str:
    return ", ".join(hosts)


def _size(replica: Replica) -> Iterator[str]:
    nodes, head = len(replica.members), replica.head
    tensor, pipeline = head.tensor_parallel_size, head.pipeline_parallel_size
    if tensor * pipeline == nodes:
        return
    fitting = nodes // pipeline if nodes % pipeline == 0 else nodes
    lines = f"`dgx_vllm_tensor_parallel_size: {fitting}`"
    if fitting * pipeline != nodes:
        lines += " and `dgx_vllm_pipeline_parallel_size: 1`"
    if nodes & (nodes - 1):
        lines += f", or `dgx_vllm_pipeline_parallel_size: {nodes}` alone if {nodes} does not divide the model's heads,"
    places = head.at("tensor_parallel_size") + head.at("pipeline_parallel_size")
    yield (
        f"Replica {replica.name} has {nodes} node{'s' * (nodes > 1)} ({_names(replica.hosts)}) of one GPU each, but "
        f"dgx_vllm_tensor_parallel_size {tensor} x dgx_vllm_pipeline_parallel_size {pipeline} is "
        f"{tensor * pipeline}{places}; write {lines} for them, or put {tensor * pipeline} nodes into it with "
        "dgx_vllm_replica."
    )


def _kind(replica: Replica) -> Iterator[str]:
    nodes, head = len(replica.members), replica.head
    if replica.kind == "direct" and nodes > 2:
        yield (
            f"Replica {replica.name} has {nodes} nodes, but a cable joins only two{head.at('fabric_kind')}; "
            "write `dgx_vllm_fabric_kind: switch` or `dgx_vllm_fabric_kind: ring`."
        )
    if replica.kind == "ring" and nodes == 2:
        yield (
            f"Replica {replica.name} has two nodes, which cannot form a ring{head.at('fabric_kind')}; "
            "write `dgx_vllm_fabric_kind: direct`."
        )
    if (
        replica.kind == "ring"
        and nodes > fabric.MAX_RING
        and any(node.fabric_prefix and not node.fabric_addresses for node in replica.members)
    ):
        yield (
            f"Ring {replica.name} has {nodes} nodes, and this role plans addresses for rings of up to {fabric.MAX_RING}"
            f"{head.at('fabric_kind')}; write dgx_vllm_fabric_addresses for each node, or use a switch."
        )
    if replica.kind == "ring" and nodes > 2:
        for node in replica.members:
            if not _is_ipv4(node.control_address or node.management):
                yield (
                    f"{node.host} is in the ring {replica.name}, where no rail reaches every node, so the nodes "
                    "find each other over the management network; write its IPv4 address there, as "
                    "`dgx_vllm_control_address: 192.0.2.11`."
                )


def _is_ipv4(text: str) -> bool:
    return fabric.is_address(text) and ipaddress.ip_address(text).version == 4


def _members_differ(replica: Replica) -> Iterator[str]:
    head = replica.head
    for name in SAME:
        value = head.shown(name)
        other = next((node for node in replica.members if node.shown(name) != value), None)
        if other is not None:
            yield (
                f"Replica {replica.name}: dgx_vllm_{name} is {value} on {head.host}{head.at(name)} and "
                f"{other.shown(name)} on {other.host}{other.at(name)}; write one value for all of "
                f"{_names(replica.hosts)}."
            )


def _ports(replica: Replica) -> Iterator[str]:
    head = replica.head
    with_ray = head.executor == "ray" and len(replica.members) > 1
    ports = {"dgx_vllm_port": head.port, "dgx_vllm_watch_port": head.watch_port}
    if len(replica.members) > 1:
        ports["dgx_vllm_master_port"] = head.master_port
    if with_ray:
        ports["dgx_vllm_ray_port"] = head.ray_port
        ports["dgx_vllm_ray_dashboard_port"] = head.ray_dashboard_port
        for offset, name in enumerate(RAY_PORTS, 1):
            ports[f"Ray's {name} (dgx_vllm_ray_port + {offset})"] = head.ray_port + offset
    for (left, left_port), (right, right_port) in combinations(ports.items(), 2):
        if left_port == right_port:
            place = head.at(left.removeprefix("dgx_vllm_"))
            yield (
                f"Replica {replica.name}: {left} and {right} are both {left_port} on {head.host}{place}; "
                "give one of them another port."
            )
    first, last = RAY_WORKER_PORTS
    for name, port in ports.items():
        if with_ray and first <= port <= last:
            yield (
                f"Replica {replica.name}: {name} is {port}, within {first}-{last} of Ray's workers; "
                "choose a port outside."
            )


def _rails(replica: Replica, rails: Rails) -> Iterator[str]:
    head = replica.head
    without = [node.host for node in replica.members if not rails[node.host]]
    if without:
        yield (
            f"{_names(without)} of replica {replica.name}: no address on the fabric; write one network for all, as "
            "`dgx_vllm_fabric_prefix: 198.51.100.0/24`, or `dgx_vllm_fabric_addresses` for each host, one address "
            "per rail."
        )
        return
    count = len(rails[head.host])
    for node in replica.members[1:]:
        other_count = len(rails[node.host])
        if other_count != count:
            yield (
                f"Replica {replica.name}: {node.host} has {other_count} "
                f"rail{'s' * (other_count != 1)}{node.at('fabric_addresses')} and {head.host} has "
                f"{count}{head.at('fabric_addresses')}; write the missing addresses of dgx_vllm_fabric_addresses on "
                f"{node.host if other_count < count else head.host}."
            )
            return
    if count % fabric.FUNCTIONS_PER_PORT:
        yield (
            f"Replica {replica.name} has {count} rail{'s' * (count != 1)} per node, but each port has two PCIe "
            f"functions and one of them carries half the bandwidth{head.at('fabric_addresses')}; write two addresses "
            "per cabled port."
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
                f"{node.host}: rails {left.rail} and {right.rail} ({left.address}, {right.address}) are in one "
                f"subnet{node.at('fabric_addresses')}, where the kernel mixes them up; put each rail into its own "
                "subnet."
            )


def _rails_meet(replica: Replica, rails: Rails) -> Iterator[str]:
    head = replica.head
    for node in replica.members[1:]:
        for head_rail, rail in zip(rails[head.host], rails[node.host], strict=False):
            if head_rail.interface.network != rail.interface.network:
                yield (
                    f"Replica {replica.name}: rail {rail.rail} is {head_rail.address} on "
                    f"{head.host}{head.at('fabric_addresses')} and {rail.address} on "
                    f"{node.host}{node.at('fabric_addresses')}, which are different subnets; give {node.host} an "
                    f"address of {head_rail.interface.network}."
                )


def _ring_meets(replica: Replica, rails: Rails) -> Iterator[str]:
    joined = {frozenset((link.a, link.b)) for link in fabric.links(rails)}
    for host, neighbour in zip(replica.hosts, [*replica.hosts[1:], replica.hosts[0]], strict=True):
        if frozenset((host, neighbour)) not in joined:
            yield (
                f"Ring {replica.name}: {host} and {neighbour} are neighbours, but no subnet joins them; give the two "
                "ends of each cable addresses of one subnet in dgx_vllm_fabric_addresses."
            )


def _shared_rings(replicas: Sequence[Replica]) -> Iterator[str]:
    users: dict[str, list[Replica]] = {}
    for replica in replicas:
        for prefix in sorted({node.fabric_prefix for node in replica.members} - {""}):
            users.setdefault(prefix, []).append(replica)
    for prefix, sharing in users.items():
        has_ring = any(replica.kind == "ring" and len(replica.members) > 2 for replica in sharing)
        if len(sharing) > 1 and has_ring:
            yield (
                f"Replicas {_names(replica.name for replica in sharing)} share dgx_vllm_fabric_prefix {prefix}, and "
                "one is a ring, which needs all of it; give each ring its own prefix."
            )


def _groups(replicas: Sequence[Replica], groups: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """A replica with the name of an inventory group must be that group: otherwise a host is in two replicas."""
    named = {replica.name: replica for replica in replicas if replica.head.replica}
    replica_of = {node.host: replica for replica in replicas for node in replica.members}
    for name, replica in named.items():
        for host in groups.get(name, ()):
            other = replica_of.get(host)
            if other is not None and other is not replica:
                yield (
                    f"{host} is in the group {name}, but its dgx_vllm_replica is {other.head.replica or 'not set'}"
                    f"{other.head.at('replica')}; a node serves one model: write `dgx_vllm_replica: {name}` for it, "
                    "or remove it from the group."
                )


def _duplicate_addresses(replicas: Sequence[Replica], rails: Rails) -> Iterator[str]:
    owners: dict[str, list[str]] = {}
    for replica in replicas:
        for node in replica.members:
            for rail in rails[node.host]:
                owners.setdefault(str(rail.interface.ip), []).append(f"rail {rail.rail} of {node.host}")
    for address, users in owners.items():
        if len(users) > 1:
            yield (
                f"The address {address} is given to {' and '.join(users)}; change one of them in "
                "dgx_vllm_fabric_addresses (or dgx_vllm_fabric_index, if addresses are planned)."
            )


def _duplicate_machines(replicas: Sequence[Replica]) -> Iterator[str]:
    machines: dict[tuple[str, str], list[tuple[str, Replica]]] = {}
    for replica in replicas:
        for node in replica.members:
            if fabric.is_address(node.management) and not ipaddress.ip_address(node.management).is_loopback:
                machines.setdefault((node.management, node.ssh_port), []).append((node.host, replica))
    for (address, _), places in machines.items():
        if len(places) > 1:
            hosts, names = [host for host, _ in places], [replica.name for _, replica in places]
            yield (
                f"{' and '.join(hosts)} have the same ansible_host {address}, so one machine is in {len(places)} "
                f"places (replicas {_names(dict.fromkeys(names))}); remove one of the hosts from the inventory, or "
                "correct its ansible_host."
            )


def _management(replicas: Sequence[Replica], rails: Rails) -> Iterator[str]:
    for replica in replicas:
        for node in replica.members:
            for variable, text in (
                ("ansible_host", node.management),
                ("dgx_vllm_control_address", node.control_address if replica.kind == "ring" else ""),
            ):
                if not _is_ipv4(text):
                    continue
                address = ipaddress.IPv4Address(text)
                for rail in rails[node.host]:
                    if address in rail.interface.network:
                        yield (
                            f"{node.host}: the {variable} {address} is in the subnet of rail {rail.rail} "
                            f"({rail.address}), but the management network cannot be a rail; choose another "
                            "dgx_vllm_fabric_prefix or other dgx_vllm_fabric_addresses."
                        )
