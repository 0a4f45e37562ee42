"""What one node of a replica runs with: environment, vLLM's flags, Ray's commands, the container's devices.

Pure functions over a row of the topology and the node's rails as fabric discovery found them. Everything is
rendered per node: interface names differ between machines, and Ray does not carry the environment reliably.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import connect_host

Row = Mapping[str, Any]
Interfaces = Sequence[Mapping[str, Any]]
"""One entry a rail, in the order of the rails: `interface`, `rdma` ('' without an RDMA device), `rdma_port`."""

Addresses = Mapping[str, Sequence[str]]
"""Interface -> its IPv4 addresses with their lengths."""


class ReplicaError(ValueError):
    """A node that cannot take its place; the text is a sentence for the operator."""


def _control_interface(row: Row, rails: Interfaces, addresses: Addresses) -> str:
    """The interface that has the node's control address: rail 0, in a ring one of the management network."""
    if row["kind"] != "ring":
        return str(rails[0]["interface"])
    for interface, own in addresses.items():
        if row["address"] in [address.partition("/")[0] for address in own]:
            return interface
    raise ReplicaError(
        f"{row['host']} has no interface with its control address {row['address']}; "
        "write the IPv4 address that it has on the management network as dgx_vllm_control_address."
    )


def environment(row: Row, rails: Interfaces, addresses: Addresses) -> dict[str, str]:
    """Variables of the node's environment file; {} for a replica of one.

    NCCL_IB_GID_INDEX stays unset: the index of the RoCE v2 entry moves, and NCCL finds it. `=` makes NCCL match
    names whole: mlx5_1 would also mean mlx5_10.
    """
    if row["world_size"] == 1:
        return {}
    if len(rails) != len(row["rails"]):
        raise ReplicaError(
            f"{row['host']} has {len(rails)} cabled half-port{'s' * (len(rails) != 1)} and "
            f"{len(row['rails'])} planned rails; "
            "see the fabric report for what is missing."
        )
    control = _control_interface(row, rails, addresses)
    found = {
        "VLLM_HOST_IP": str(row["address"]),
        "NCCL_SOCKET_IFNAME": f"={control}",
        "GLOO_SOCKET_IFNAME": control,
        "TP_SOCKET_IFNAME": control,
        "UCX_NET_DEVICES": ",".join(str(rail["interface"]) for rail in rails),
        "NCCL_IGNORE_CPU_AFFINITY": "1",
    }
    if all(rail.get("rdma") for rail in rails):
        devices = ",".join(f"{rail['rdma']}:{rail.get('rdma_port', 1)}" for rail in rails)
        found["NCCL_IB_DISABLE"] = "0"
        found["NCCL_IB_HCA"] = f"={devices}"
    if row["kind"] == "ring":
        found["NCCL_IB_SUBNET_AWARE_ROUTING"] = "1"
    if row["executor"] == "ray":
        found["RAY_ADDRESS"] = f"{row['head_address']}:{row['ray']['port']}"
        found["RAY_memory_monitor_refresh_ms"] = "0"
        found["RAY_USAGE_STATS_ENABLED"] = "0"
        if row["is_head"]:
            found["RAY_START"] = " ".join(ray_arguments(row))
    return found


def serve_arguments(row: Row) -> list[str]:
    """Flags of `vllm serve` that come from the topology; tensor parallelism goes through TENSOR_PARALLEL_SIZE."""
    found: list[str] = []
    if row["pipeline_parallel_size"] > 1:
        found += ["--pipeline-parallel-size", str(row["pipeline_parallel_size"])]
    if row["world_size"] == 1:
        return found
    if row["executor"] == "ray":
        return [*found, "--distributed-executor-backend", "ray"]
    found += ["--distributed-executor-backend", "mp", "--nnodes", str(row["world_size"])]
    found += ["--node-rank", str(row["rank"]), "--master-addr", str(row["head_address"])]
    found += ["--master-port", str(row["master_port"])]
    return found if row["is_head"] else [*found, "--headless"]


def serves(row: Row) -> bool:
    """Whether this node runs `vllm serve`: with Ray only the head does, the others run `ray start`."""
    return bool(row["is_head"]) or row["executor"] == "mp"


def ray_command(row: Row) -> list[str]:
    """What a node without the API runs: Ray in the foreground."""
    return ["ray", "start", "--block", *ray_arguments(row)]


def ray_arguments(row: Row) -> list[str]:
    """Arguments of `ray start` on this node.

    The dashboard asks for no key, so it listens on the fabric, and in a ring, whose nodes meet on the management
    network, on the head's loopback.
    """
    ray, address = row["ray"], str(row["address"])
    words = [
        "--disable-usage-stats",
        "--num-gpus=1",
        f"--node-ip-address={address}",
    ]
    for name, port in ray["ports"].items():
        if name != "ray_client_server":
            words.append(f"--{name.replace('_', '-')}-port={port}")
    first, last = ray["worker_ports"]
    words += [f"--min-worker-port={first}", f"--max-worker-port={last}"]
    if not row["is_head"]:
        return [*words, f"--address={row['head_address']}:{ray['port']}"]
    return [
        *words,
        "--head",
        f"--port={ray['port']}",
        f"--dashboard-host={'127.0.0.1' if row['kind'] == 'ring' else address}",
        f"--dashboard-port={ray['dashboard_port']}",
        f"--ray-client-server-port={ray['ports']['ray_client_server']}",
    ]


def container_arguments(row: Row, rails: Interfaces) -> list[str]:
    """docker run's options for RDMA without --privileged; memlock is the role's own option."""
    if row["world_size"] == 1 or not all(rail.get("rdma") for rail in rails):
        return []
    return ["--device=/dev/infiniband", "--cap-add=IPC_LOCK"]


WATCH_LIMITS = (
    "peer_grace", "stall", "probe_interval", "probe_deadline", "probe_failures", "start_timeout", "backoff",
    "backoff_limit", "failure_limit", "failure_window",
)  # fmt: skip
"""Limits of the watch that may be given; its own defaults stand in its replica_watch/model.py."""


def watch_config(row: Row, api: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    """watch.json of the node's release. `api` has `host` (where the server listens), `model` (a served name).
    `engine` is where the head takes its workers for as long as its server lives.

    @RELEASE@ stands for the release's name, which is not known before its files are.
    """
    unknown = sorted(set(limits) - set(WATCH_LIMITS))
    if unknown:
        raise ReplicaError(
            f"dgx_vllm_watch_limits has {', '.join(unknown)}; known are {', '.join(WATCH_LIMITS)}."
        )
    return {
        "host": row["host"],
        "rank": int(row["rank"]),
        "head": row["head"],
        "address": row["address"],
        "port": int(row["watch_port"]),
        "peers": dict(row["peer_addresses"]),
        "unit": "dgx-vllm.service",
        "container": "dgx-vllm",
        "api": {
            "address": connect_host(str(api["host"])),
            "port": int(row["port"]),
            "model": str(api["model"]),
            "env_file": "/etc/dgx-vllm/releases/@RELEASE@/vllm.env",
        },
        "engine": {
            "address": row["head_address"],
            "port": int(row["ray"]["port"] if row["executor"] == "ray" else row["master_port"]),
        },
        "state": "/var/lib/dgx-vllm/state/watch.json",
        "limits": {name: float(value) for name, value in limits.items()},
    }
