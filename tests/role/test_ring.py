"""A ring whose nodes meet in a VLAN of the management network, rendered by the role."""

from __future__ import annotations

from typing import Any

from helpers import readers

Ring = dict[str, dict[str, Any]]


def test_the_nodes_meet_on_the_interface_with_the_control_address(ring: Ring) -> None:
    for number in range(1, 5):
        environment = readers.docker_env_file(ring[f"spark{number}"]["env"])
        assert environment["VLLM_HOST_IP"] == f"192.0.2.{number}"
        assert environment["NCCL_SOCKET_IFNAME"] == "=enP7s7.20"
        assert environment["GLOO_SOCKET_IFNAME"] == environment["TP_SOCKET_IFNAME"] == "enP7s7.20"


def test_the_control_address_cannot_be_a_rail(ring: Ring) -> None:
    assert ring["spark3"]["management_addresses"] == ["203.0.113.3", "192.0.2.3"]


def test_the_dashboard_is_not_on_the_management_network(ring: Ring) -> None:
    assert "--dashboard-host=127.0.0.1" in readers.docker_env_file(ring["spark1"]["env"])["RAY_START"]
