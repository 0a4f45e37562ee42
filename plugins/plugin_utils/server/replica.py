"""What the topology says a node of a replica runs: flags of `vllm serve`, or Ray's commands."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import Row

OBJECT_STORE = 2**30
"""Bytes of Ray's object store, by default 30 % of the memory, which is the GPU's too; vLLM hardly uses it."""


def serve_arguments(row: Row) -> list[str]:
    """Flags of `vllm serve` that come from the topology; tensor parallelism goes through TENSOR_PARALLEL_SIZE."""
    flags: list[str] = []
    if row["pipeline_parallel_size"] > 1:
        flags += ["--pipeline-parallel-size", str(row["pipeline_parallel_size"])]
    if row["world_size"] == 1:
        return flags
    if row["executor"] == "ray":
        return [*flags, "--distributed-executor-backend", "ray"]
    flags += ["--distributed-executor-backend", "mp", "--nnodes", str(row["world_size"])]
    flags += ["--node-rank", str(row["rank"]), "--master-addr", str(row["head_address"])]
    flags += ["--master-port", str(row["master_port"])]
    return flags if row["is_head"] else [*flags, "--headless"]


def by_ray(row: Row) -> bool:
    """Whether Ray joins the nodes of its replica."""
    return int(row["world_size"]) > 1 and row["executor"] == "ray"


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
        f"--object-store-memory={OBJECT_STORE}",
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
