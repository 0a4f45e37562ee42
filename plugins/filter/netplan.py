"""Filters over the rails of a node and their planned addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import netplan


def netplan_rails(facts: Mapping[str, Any], row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Interface and planned address of each rail; fails if netplan must not configure them."""
    try:
        return netplan.addressed_rails(facts, row)
    except netplan.NetplanError as error:
        raise AnsibleFilterError(str(error)) from error


def netplan_commands(facts: Mapping[str, Any], row: Mapping[str, Any], mtu: int) -> list[str]:
    """What would have to be typed for the rails to be as planned; [] if they are."""
    return netplan.address_commands(facts, row, int(mtu))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"netplan_commands": netplan_commands, "netplan_rails": netplan_rails}
