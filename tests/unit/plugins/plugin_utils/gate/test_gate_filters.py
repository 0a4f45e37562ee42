"""The gate over the variables of the hosts: what it reads of them, and its three filters one after another."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.filter.gate import FilterModule

from helpers.pair import Pair

FILTERS = FilterModule().filters()
HOSTS = ["spark1", "spark2"]
TIME = "2026-11-25T20:00:00Z"


class Variables(Mapping[str, Any]):
    """Variables of a host, as Ansible gives them: each is templated when it is asked for."""

    def __init__(self, **known: Any) -> None:
        self.known = known

    def __getitem__(self, name: str) -> Any:
        assert name.startswith("__dgx_vllm_"), f"{name} was templated"
        return self.known[name]

    def __contains__(self, name: object) -> bool:
        return name in self.known

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


def variables(pair: Pair, **more: Any) -> dict[str, Variables]:
    """What a run has read of two idle nodes with an image."""
    state = {"service": {"active_state": "inactive"}, "image": {"present": True}}
    request = {"thresholds": {}, "beside_server": False, "nccl": True}
    return {
        host: Variables(
            dgx_vllm_api_key="{{ lookup('a secret') }}",
            __dgx_vllm_fabric_read={"fabric": pair.read(host)},
            __dgx_vllm_node={"state": state},
            __dgx_vllm_gate_request=request,
            **more,
        )
        for host in HOSTS
    }


def planned(pair: Pair, hostvars: Mapping[str, Any], hosts: list[str] = HOSTS, always: bool = False) -> Any:
    return FILTERS["gate_plan"](pair.plan, hostvars, hosts, HOSTS, always)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_the_three_filters_from_plan_to_report(pair: Pair) -> None:
    hostvars = variables(pair)
    gate = planned(pair, hostvars)
    assert (gate["replicas"], gate["rounds"], gate["gathers"]) == (["chat"], 1, ["chat"])
    assert gate["limits"]["chat"]["mtu"] == 9000
    for host in HOSTS:
        own = {name: [one for one in getattr(pair, name) if one["from"] == host] for name in gate["measured"]}
        hostvars[host].known |= {
            "__dgx_vllm_pinged": {"pings": own["pings"], "bandwidth": []},
            "__dgx_vllm_written": {"bandwidth": own["bandwidth"]},
            "__dgx_vllm_served": {"skipped": True},
        }
    gate = FILTERS["gate_collect"](gate, hostvars, HOSTS, "__dgx_vllm_pinged")
    gate = FILTERS["gate_collect"](gate, hostvars, HOSTS, "__dgx_vllm_served", "__dgx_vllm_written")
    assert (len(gate["measured"]["pings"]), len(gate["measured"]["bandwidth"])) == (4, 2)
    output = "NET/IB : Using [0]rocep1s0f0:1/RoCE [1]roceP2p1s0f0:1/RoCE\n# Avg bus bandwidth    : 22.5"
    for host in HOSTS:
        hostvars[host].known["__dgx_vllm_gathered"] = {"rc": 0, "stdout": output if host == "spark1" else ""}
    figures = {"all-gather": 30.0}
    history = base64.b64encode(json.dumps([{"time": "t", "figures": figures}]).encode()).decode()
    report = FILTERS["gate_evaluate"](gate, hostvars, HOSTS, [{"content": history}], TIME)
    assert {one["check"] for one in report["findings"] if one["status"] != "pass"} == {"trend"}
    assert report["failures"] == {"chat": []}
    assert "22.5 GB/s over IB" in report["table"]
    assert [run["time"] for run in report["history"]["chat"]] == ["t", TIME]
    assert set(report["measured"]) == {"pings", "bandwidth", "busy", "nccl", "history"}
    json.dumps(report)


def test_a_failure_is_a_sentence_of_its_replica(pair: Pair) -> None:
    pair.change("spark2", "enP2p1s0f0np0", "mtu", 1500)
    hostvars = variables(pair)
    report = FILTERS["gate_evaluate"](planned(pair, hostvars), hostvars, HOSTS, [], TIME)
    assert next(text for text in report["failures"]["chat"] if "mtu" in text).startswith(
        "spark2: mtu: enP2p1s0f0np0 MTU 1500."
    )


def test_a_replica_that_serves_is_not_measured_unless_its_fabric_changed(pair: Pair) -> None:
    serving = {"state": {"service": {"active_state": "active", "release": "1"}}}
    hostvars = variables(pair)
    for host in HOSTS:
        hostvars[host].known["__dgx_vllm_node"] = serving
    assert planned(pair, hostvars)["replicas"] == []
    gate = planned(pair, hostvars, always=True)
    assert (gate["busy"], gate["gathers"], gate["tests"]["spark1"]["serve"]) == ({"chat": HOSTS}, [], [])
    hostvars["spark2"].known["__dgx_vllm_fabric_changed"] = True
    assert planned(pair, hostvars)["replicas"] == ["chat"]
    hostvars["spark1"].known["__dgx_vllm_gate_request"] = {"beside_server": True, "nccl": True}
    gate = planned(pair, hostvars)
    assert (gate["busy"], gate["gathers"], gate["rounds"]) == ({}, ["chat"], 1)


def test_the_head_decides_for_its_replica(pair: Pair) -> None:
    hostvars = variables(pair)
    hostvars["spark2"].known["__dgx_vllm_gate_request"] = {"thresholds": {"rdma": False, "mtu": 1500}}
    assert planned(pair, hostvars)["limits"]["chat"]["rdma"] is True
    hostvars["spark1"].known["__dgx_vllm_gate_request"] = {"thresholds": {"rdma": False, "mtu": 1500}}
    gate = planned(pair, hostvars)
    assert (gate["limits"]["chat"]["mtu"], gate["rounds"], gate["gathers"]) == (1500, 0, [])


def test_no_all_gather_without_an_image_on_every_node(pair: Pair) -> None:
    hostvars = variables(pair)
    state = {"service": {"active_state": "inactive", "release": None}, "image": {"present": False}}
    hostvars["spark2"].known["__dgx_vllm_node"] = {"state": state}
    assert planned(pair, hostvars)["gathers"] == []


def test_no_all_gather_once_a_node_is_lost(pair: Pair) -> None:
    hostvars = variables(pair)
    gate = planned(pair, hostvars)
    assert FILTERS["gate_collect"](gate, hostvars, ["spark1"], "__dgx_vllm_pinged")["gathers"] == []


def test_a_node_that_was_not_read_or_failed_is_left_to_the_report(pair: Pair) -> None:
    hostvars = variables(pair)
    hostvars["spark2"].known.clear()
    gate = planned(pair, hostvars, ["spark1"])
    assert gate["tests"]["spark2"] == {"pings": [], "serve": [[]], "write": [[]]}
    report = FILTERS["gate_evaluate"](gate, hostvars, ["spark1"], [], TIME)
    assert "spark2: rails: not read." in report["failures"]["chat"][0]


def test_an_unknown_limit_is_refused(pair: Pair) -> None:
    hostvars = variables(pair)
    hostvars["spark1"].known["__dgx_vllm_gate_request"] = {"thresholds": {"rail_gbit": 1}}
    with pytest.raises(AnsibleFilterError, match="has rail_gbit; known are mtu"):
        planned(pair, hostvars)


def test_a_host_without_a_place_in_the_plan_has_nothing_to_measure(pair: Pair) -> None:
    """A node that is removed (state absent) takes part in playbooks/fabric.yml, and its tasks ask for its tests."""
    hostvars = {**variables(pair), "gone": Variables()}
    gate = FILTERS["gate_plan"](pair.plan, hostvars, [*HOSTS, "gone"], [*HOSTS, "gone"], True)
    assert gate["replicas"] == ["chat"]
    assert gate["tests"]["gone"] == {"pings": [], "serve": [[]], "write": [[]]}
    later = FILTERS["gate_collect"](gate, hostvars, [*HOSTS, "gone"], "__dgx_vllm_pinged")
    assert later["tests"]["gone"]["pings"] == []
