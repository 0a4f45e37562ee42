"""Replicas from inventory variables: who serves which model together, as which rank, over which addresses.

Computed here and nowhere else; a host alone is a replica of one. Nothing depends on the order in which the
inventory lists its hosts: they are sorted by name, numbers in names as numbers, unless `dgx_vllm_rank` says
otherwise. All mistakes are found in one go, each a sentence with the lines to change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan import addresses as fabric

SIZES = (1, 2, 4, 8)
"""Nodes of a replica. With three, tensor parallelism fails for most models: heads do not divide by three."""

EXECUTORS = ("mp", "ray")
KINDS = ("direct", "switch", "ring")

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
"""What all nodes of a replica must agree on: vLLM wants the same flags on every node."""

RAY_PORTS = (
    "node_manager", "object_manager", "runtime_env_agent", "dashboard_agent_grpc", "dashboard_agent_listen",
    "metrics_export", "ray_client_server",
)  # fmt: skip
"""Ray's own ports that it would choose at random; they follow dgx_vllm_ray_port, so that a firewall can name them."""

RAY_WORKER_PORTS = (10002, 10999)
"""Range for Ray's worker processes, from the lower end of Ray's own default."""

Origin = Callable[[Any], str]
"""Where in the inventory a value stands, as file:line; '' when nobody knows."""


class Node(NamedTuple):
    """One host as its variables describe it."""

    host: str
    replica: str
    rank: Optional[int]
    management: str
    ssh_port: str
    numbers: dict[str, int]
    texts: dict[str, str]
    addresses: list[str]
    fabric_index: Optional[int]
    same: dict[str, Any]
    origins: dict[str, str]

    def at(self, name: str) -> str:
        """' (file:line)' of a variable, or ''."""
        return f" ({self.origins[name]})" if self.origins.get(name) else ""


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
        return self.head.texts["fabric_kind"]


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts spark2 before spark10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part
    ]


def nowhere(value: Any) -> str:
    return ""


_NUMBERS = (
    "tensor_parallel_size", "pipeline_parallel_size", "port", "master_port", "ray_port", "ray_dashboard_port",
    "watch_port", "fabric_ports",
)  # fmt: skip
_TEXTS = ("executor", "control_address", "fabric_kind", "fabric_prefix")
_CHOICES = {"executor": EXECUTORS, "fabric_kind": KINDS}


def read_node(host: str, variables: Mapping[str, Any], wrong: list[str], origin: Origin = nowhere) -> Node:
    """The host's variables with their types; what is wrong with a value goes to `wrong`, its default is taken."""
    origins: dict[str, str] = {}

    def get(name: str) -> Any:
        value = variables.get(f"dgx_vllm_{name}", DEFAULTS.get(name))
        place = origin(value)
        if place:
            origins[name] = place
        return DEFAULTS[name] if value is None and name in DEFAULTS else value

    def place(name: str) -> str:
        return f" ({origins[name]})" if origins.get(name) else ""

    def number(name: str, least: int) -> int:
        value = get(name)
        try:
            found = int(str(value))
        except ValueError:
            wrong.append(f"{host}: dgx_vllm_{name} is {value!r}{place(name)}; give it a whole number.")
            return int(DEFAULTS[name])
        if found < least or (name.endswith("port") and found > 65535):
            limit = f"from {least} to 65535" if name.endswith("port") else f"of {least} or more"
            wrong.append(f"{host}: dgx_vllm_{name} is {found}{place(name)}; give it a number {limit}.")
            return int(DEFAULTS[name])
        return found

    def text(name: str) -> str:
        value = str(get(name))
        choices = _CHOICES.get(name)
        if choices and value not in choices:
            wrong.append(
                f"{host}: dgx_vllm_{name} is {value!r}{place(name)}; write one of {', '.join(choices)}."
            )
            return str(DEFAULTS[name])
        return value

    replica = get("replica")
    if isinstance(replica, (list, tuple)):
        wrong.append(
            f"{host} is in {len(replica)} replicas ({', '.join(map(str, replica))}){place('replica')}, but a "
            "node has one GPU "
            "and serves one model; write one name, as `dgx_vllm_replica: chat`."
        )
        replica = replica[0] if replica else ""
    given = get("fabric_addresses")
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        wrong.append(
            f"{host}: dgx_vllm_fabric_addresses{place('fabric_addresses')} must be a list; write one address "
            "a rail, "
            "as `dgx_vllm_fabric_addresses: [198.51.100.1/26, 198.51.100.65/26]`."
        )
        given = []
    addresses = []
    for one in given:
        try:
            addresses.append(fabric.read_address(one))
        except fabric.AddressError as error:
            wrong.append(f"{host}: dgx_vllm_fabric_addresses{place('fabric_addresses')}: {error}")
    rank, index = number("rank", -1), number("fabric_index", -1)
    same = {name: get(name) for name in SAME if f"dgx_vllm_{name}" in variables or name in DEFAULTS}
    numbers = {name: number(name, 1) for name in _NUMBERS}
    if numbers["fabric_ports"] > fabric.MAX_PORTS:
        wrong.append(
            f"{host}: dgx_vllm_fabric_ports is {numbers['fabric_ports']}{place('fabric_ports')}; the machine "
            "has two: "
            "write 1 or 2."
        )
        numbers["fabric_ports"] = fabric.MAX_PORTS
    texts = {name: text(name) for name in _TEXTS}
    return Node(
        host=host,
        replica=str(replica or ""),
        rank=None if rank < 0 else rank,
        management=str(variables.get("ansible_host") or ""),
        ssh_port=str(variables.get("ansible_port") or 22),
        numbers=numbers,
        texts=texts,
        addresses=addresses,
        fabric_index=None if index < 0 else index,
        same={name: {**numbers, **texts}.get(name, value) for name, value in same.items()},
        origins=origins,
    )


def ranked(members: Sequence[Node], wrong: list[str]) -> list[Node]:
    """Members by rank: the ranks that are given, the others by name in what is left."""
    ordered = sorted(members, key=lambda node: (natural(node.host), node.host))
    places: dict[int, Node] = {}
    for node in ordered:
        if node.rank is None:
            continue
        if node.rank >= len(ordered):
            wrong.append(
                f"{node.host}: dgx_vllm_rank is {node.rank}{node.at('rank')}, but its replica has "
                f"{len(ordered)} nodes; "
                f"write a rank from 0 to {len(ordered) - 1}, or take the line out."
            )
        elif node.rank in places:
            wrong.append(
                f"{places[node.rank].host} and {node.host} both have `dgx_vllm_rank: "
                f"{node.rank}`{node.at('rank')}; "
                "give one of them another rank, or take the line out."
            )
        else:
            places[node.rank] = node
    rest = [node for node in ordered if node not in places.values()]
    return [places[rank] if rank in places else rest.pop(0) for rank in range(len(ordered))]


def replicas_of(nodes: Sequence[Node], wrong: list[str]) -> list[Replica]:
    """Nodes put together by the name of their replica; a node without one is a replica by itself."""
    names = {node.replica for node in nodes if node.replica}
    alone = {node.host for node in nodes if not node.replica}
    for name in sorted(names & alone):
        others = ", ".join(node.host for node in nodes if node.replica == name)
        wrong.append(
            f"`dgx_vllm_replica: {name}` of {others} is the name of a host that serves alone; "
            f"set dgx_vllm_replica on {name} too, or choose another name."
        )
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        groups.setdefault((node.replica, "" if node.replica else node.host), []).append(node)
    found = [Replica(name or host, ranked(members, wrong)) for (name, host), members in groups.items()]
    return sorted(found, key=lambda replica: (natural(replica.name), replica.name, replica.head.host))


def addresses_of(replicas: Sequence[Replica], wrong: list[str]) -> dict[str, list[fabric.Rail]]:
    """Host -> its rails: the given addresses, or those planned from its prefix; [] for a node without either."""
    nodes = [node for replica in replicas for node in replica.members]
    ordered = sorted(nodes, key=lambda node: (natural(node.host), node.host))
    ring_rank = {
        node.host: (rank, len(replica.members))
        for replica in replicas
        if replica.kind == "ring"
        for rank, node in enumerate(replica.members)
    }
    by_prefix: dict[str, dict[str, int | None]] = {}
    for node in ordered:
        if node.texts["fabric_prefix"] and node.host not in ring_rank:
            by_prefix.setdefault(node.texts["fabric_prefix"], {})[node.host] = node.fabric_index
    numbers = {host: index for wanted in by_prefix.values() for host, index in fabric.indexes(wanted).items()}
    found: dict[str, list[fabric.Rail]] = {}
    refused: set[str] = set()
    for node in ordered:
        addresses, prefix = node.addresses, node.texts["fabric_prefix"]
        try:
            if not addresses and prefix and node.host in ring_rank:
                addresses = fabric.plan_ring(prefix, *ring_rank[node.host])
            elif not addresses and prefix:
                addresses = fabric.plan_shared(prefix, numbers[node.host], node.numbers["fabric_ports"])
        except fabric.AddressError as error:
            if str(error) not in refused:
                wrong.append(f"{node.host}{node.at('fabric_prefix')}: {error}")
            refused.add(str(error))
        found[node.host] = fabric.as_rails(addresses)
    return found
