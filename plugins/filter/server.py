"""Filters that say what a node runs with: its server, its rails' access, the tuner."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server import docker, fabric, firewall, watch
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server import node as server
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.models import server_models
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import ServerError


def node_server(
    settings: Mapping[str, Any],
    row: Mapping[str, Any],
    rails: Sequence[Mapping[str, Any]],
    addresses: Mapping[str, Sequence[str]],
    node: Mapping[str, Any],
) -> dict[str, Any]:
    """Environment, vLLM's and Docker's arguments, command, and the watch's configuration of a node."""
    try:
        return server.node_server(settings, row, rails, addresses, node)
    except ServerError as error:
        raise AnsibleFilterError(str(error)) from error


def node_fabric(
    row: Mapping[str, Any], rails: Sequence[Mapping[str, Any]], addresses: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Environment and arguments of `docker run` with which a container of the node uses its rails."""
    try:
        environment = fabric.environment(row, rails, addresses)
    except ServerError as error:
        raise AnsibleFilterError(str(error)) from error
    return {"env": environment, "docker": fabric.container_arguments(row, rails)}


def node_firewall(planned: Mapping[str, Any], host: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of templates/firewall.nft.j2: who may reach which port of the node."""
    return firewall.rules(planned, host, settings)


def tuner_command(settings: Mapping[str, Any], node: Mapping[str, Any], plan: bool = False) -> list[str]:
    """The command that tunes the MoE kernels on a standalone node; with `plan`, the one that says what it would do."""
    return docker.tuner_command(settings, node, plan)


def watch_addresses(row: Mapping[str, Any], api: str, readers: Sequence[str]) -> str:
    """The lines of the watch's unit about the addresses that it may talk to."""
    return watch.addresses(row, api, readers)


def systemd_quote(argument: str) -> str:
    """`argument` as one word of an ExecStart= line (systemd.service(5), "Command lines")."""
    text = str(argument).replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./\\$-]+", text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "node_fabric": node_fabric,
            "node_firewall": node_firewall,
            "node_server": node_server,
            "server_models": server_models,
            "systemd_quote": systemd_quote,
            "tuner_command": tuner_command,
            "watch_addresses": watch_addresses,
        }
