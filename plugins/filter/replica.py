"""Filters over a host's row of the topology: what this node of its replica runs with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import server as replica


def _refused(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except replica.ReplicaError as error:
        raise AnsibleFilterError(str(error)) from error


def replica_environment(
    row: Mapping[str, Any],
    rails: Sequence[Mapping[str, Any]] = (),
    addresses: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """Environment variables of the node; `rails` and `addresses` are those that dgx_vllm_fabric found."""
    return _refused(lambda: replica.environment(row, rails, addresses or {}))


def replica_arguments(row: Mapping[str, Any]) -> list[str]:
    """Flags of `vllm serve`."""
    return replica.serve_arguments(row)


def replica_container_arguments(row: Mapping[str, Any], rails: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Options of `docker run` for RDMA."""
    return replica.container_arguments(row, rails)


def replica_serves(row: Mapping[str, Any]) -> bool:
    """Whether this node runs `vllm serve`."""
    return replica.serves(row)


def replica_ray_command(row: Mapping[str, Any]) -> list[str]:
    """`ray start` of this node."""
    return replica.ray_command(row)


def replica_watch_config(
    row: Mapping[str, Any], api: Mapping[str, Any], limits: Mapping[str, Any] | None = None
) -> Any:
    """/etc/dgx-vllm/watch.json of this node."""
    return _refused(lambda: replica.watch_config(row, api, limits or {}))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "replica_arguments": replica_arguments,
            "replica_container_arguments": replica_container_arguments,
            "replica_environment": replica_environment,
            "replica_ray_command": replica_ray_command,
            "replica_serves": replica_serves,
            "replica_watch_config": replica_watch_config,
        }
