"""Which connections the nodes of a replica and its clients may open."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.firewall import rules

from helpers.fleets import hosts, replica

NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "2001:db8::/32"]


def wall(fleet: dict[str, Any], name: str, **more: Any) -> dict[str, Any]:
    planned = plan(fleet)
    assert planned["mistakes"] == []
    return rules(
        planned, name, {"ssh_port": "22", "host": "0.0.0.0", "api_from": NETWORKS, "readers": [], **more}
    )


def test_m12_only_the_head_has_the_port_of_the_store() -> None:
    pair = replica(2)
    assert wall(pair, "spark1")["ports"] == ["29501", "29590"]
    assert wall(pair, "spark2")["ports"] == ["29590"], "on a worker that port is somebody else's"


def test_every_address_of_every_peer_may_come() -> None:
    assert wall(replica(2), "spark1")["peers"] == ["198.51.100.2", "198.51.100.66"]
    ring = replica(3, fabric_kind="ring")
    found = wall(ring, "spark1")
    assert {"192.0.2.2", "192.0.2.3"} <= set(found["peers"]), (
        "the nodes of a ring meet on the management network"
    )
    assert "192.0.2.1" not in found["peers"]
    assert all(address not in found["rails"] for address in found["peers"])


def test_the_ports_of_ray() -> None:
    pair = replica(2, executor="ray")
    known = ["6380", "6381", "6382", "6383", "6384", "6385"]
    workers = ["10002-10999", "29590"]
    assert wall(pair, "spark2")["ports"] == [*known, *workers]
    head = wall(pair, "spark1")["ports"]
    assert head == ["6379", *known, "6386", "8265", "10002-10999", "29501", "29590"]


def test_a_standalone_node_has_its_api_alone() -> None:
    found = wall(hosts(1), "spark1")
    assert (found["peers"], found["api"]["port"], found["api"]["at"]) == ([], 8000, "")
    assert found["api"]["sources"] == ["ip saddr { 10.0.0.0/8, 192.0.2.7/32 }", "ip6 saddr { 2001:db8::/32 }"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_rule(host: str) -> None:
    assert wall(hosts(1), "spark1", host=host)["api"] == {}


@pytest.mark.parametrize(
    ("host", "at"),
    [("192.0.2.1", "ip daddr 192.0.2.1 "), ("[2001:db8::1]", "ip6 daddr 2001:db8::1 "), ("::", "")],
)
def test_another_program_may_have_the_port_at_another_address(host: str, at: str) -> None:
    assert wall(hosts(1), "spark1", host=host)["api"]["at"] == at


def test_everybody_and_nobody() -> None:
    assert wall(hosts(1), "spark1", api_from=["0.0.0.0/0", "::/0"])["api"]["sources"] == [
        "meta nfproto ipv4", "meta nfproto ipv6",
    ]  # fmt: skip
    assert wall(hosts(1), "spark1", api_from=[])["api"]["sources"] == []


def test_a_worker_has_no_api() -> None:
    assert wall(replica(2), "spark2")["api"] == {}


def test_ssh_is_let_through_before_anything_is_judged() -> None:
    assert wall(hosts(1), "spark1", ssh_port="2222")["ssh"] == [22, 2222]


def test_readers_of_the_watch_are_let_in() -> None:
    found = wall(hosts(2), "spark1", readers=["192.0.2.7", "192.0.2.0/28", "203.0.113.9"])
    assert found["readers"] == ["192.0.2.0/28", "203.0.113.9/32"]
    assert str(found["watch_port"]) in found["ports"]
