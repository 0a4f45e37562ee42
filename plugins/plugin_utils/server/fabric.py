"""What a node of a replica needs to reach the others through its rails: variables of NCCL, Gloo and Ray, devices.

Rendered per node: interface names differ between machines, and Ray does not carry the environment reliably.
"""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.replica import ray_arguments
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import (
    Addresses,
    Interfaces,
    Row,
    ServerError,
)


def _control_interface(row: Row, rails: Interfaces, addresses: Addresses) -> str:
    """The interface that has the node's control address: rail 0, in a ring one of the management network."""
    if row["kind"] != "ring":
        return str(rails[0]["interface"])
    for interface, own in addresses.items():
        if row["address"] in [address.partition("/")[0] for address in own]:
            return interface
    raise ServerError(
        f"{row['host']} has no interface with its control address {row['address']}; "
        "write the IPv4 address that it has on the management network as dgx_vllm_control_address."
    )


def environment(row: Row, rails: Interfaces, addresses: Addresses) -> dict[str, str]:
    """Variables of the node's environment file; {} for a standalone node.

    NCCL_IB_GID_INDEX stays unset: the index of the RoCE v2 entry moves, and NCCL finds it. `=` makes NCCL match
    names whole: mlx5_1 would also mean mlx5_10.
    """
    if row["world_size"] == 1:
        return {}
    if len(rails) != len(row["rails"]):
        raise ServerError(
            f"{row['host']} has {len(rails)} cabled interface{'s' * (len(rails) != 1)} and "
            f"{len(row['rails'])} planned rails; see the fabric report for what is missing."
        )
    control = _control_interface(row, rails, addresses)
    variables = {
        "VLLM_HOST_IP": str(row["address"]),
        "NCCL_SOCKET_IFNAME": f"={control}",
        "GLOO_SOCKET_IFNAME": control,
        "TP_SOCKET_IFNAME": control,
        "UCX_NET_DEVICES": ",".join(str(rail["interface"]) for rail in rails),
        "NCCL_IGNORE_CPU_AFFINITY": "1",
    }
    if all(rail.get("rdma") for rail in rails):
        devices = ",".join(f"{rail['rdma']}:{rail.get('rdma_port', 1)}" for rail in rails)
        variables["NCCL_IB_DISABLE"] = "0"
        variables["NCCL_IB_HCA"] = f"={devices}"
    if row["kind"] == "ring":
        variables["NCCL_IB_SUBNET_AWARE_ROUTING"] = "1"
    if row["executor"] == "ray":
        variables["RAY_ADDRESS"] = f"{row['head_address']}:{row['ray']['port']}"
        variables["RAY_memory_monitor_refresh_ms"] = "0"
        variables["RAY_USAGE_STATS_ENABLED"] = "0"
        if row["is_head"]:
            variables["RAY_START"] = " ".join(ray_arguments(row))
    return variables


def container_arguments(row: Row, rails: Interfaces) -> list[str]:
    """docker run's options for RDMA without --privileged; memlock is the role's own option."""
    if row["world_size"] == 1 or not all(rail.get("rdma") for rail in rails):
        return []
    return ["--device=/dev/infiniband", "--cap-add=IPC_LOCK"]
