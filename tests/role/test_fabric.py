"""The fabric's tasks over facts of machines that are not there: nothing to do, refusals, and the gate's report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.ansible_run import Run, inventory, play
from helpers.machine import Machine
from helpers.netplan_text import arp_text, netplan_text
from helpers.pair import Pair

PACKAGES = ("iputils-ping", "rdma-core", "ibverbs-providers", "ibverbs-utils", "perftest", "infiniband-diags")
VARIABLES: dict[str, Any] = {
    "dgx_vllm_model": "org/name",
    "dgx_vllm_replica": "chat",
    "dgx_vllm_tensor_parallel_size": 2,
    "dgx_vllm_fabric_prefix": "198.51.100.0/24",
}


def configured(pair: Pair) -> None:
    """Everything that the fabric stage brings is there."""
    for host, machine in pair.machines.items():
        machine.write("proc/modules", "mlx5_ib 1 0 - Live 0x0\nib_uverbs 1 0 - Live 0x0\n")
        machine.write("etc/modules-load.d/dgx-vllm.conf", "mlx5_ib\nib_uverbs")
        addresses = [rail["address"] for rail in pair.plan["hosts"][host]["rails"]]
        names = [rail["interface"] for rail in machine.read()["rails"]]
        machine.write("etc/netplan/40-cx7.yaml", netplan_text(names, addresses))
        (machine.root / "etc/netplan/40-cx7.yaml").chmod(0o600)
        machine.write("etc/sysctl.d/90-dgx-vllm.conf", arp_text(names))


def state(**more: Any) -> dict[str, Any]:
    return {
        "service": {"active_state": "inactive"},
        "image": {"present": False, "id": None},
        "packages": dict.fromkeys(PACKAGES, "1"),
        "ledger": {},
        **more,
    }


def run(place: Path, pair: Pair, stage: str, *words: str, node: Any = None, **variables: Any) -> Run:
    """One stage of the role for both machines, as if their facts had just been read."""
    hosts = {
        host: {"facts": {"fabric": machine.read()}, "node": {"state": node or state()}}
        for host, machine in pair.machines.items()
    }
    facts = {"__dgx_vllm_fabric_read": "{{ facts }}", "__dgx_vllm_node": "{{ node }}"}
    tasks: list[dict[str, Any]] = [{"name": "Facts", "ansible.builtin.set_fact": facts}]
    tasks += [
        {
            "name": "Stage",
            "ansible.builtin.include_role": {"name": "dgx_vllm.spark.dgx_vllm", "tasks_from": name},
        }
        for name in ("common/validate", stage)
    ]
    playbook = place / "play.yml"
    content = [{"hosts": "dgx_vllm", "gather_facts": False, "tasks": tasks}]
    playbook.write_text(json.dumps(content), encoding="utf-8")
    given = {**VARIABLES, "dgx_vllm_report_dir": str(place / "reports"), **variables}
    return play(playbook, inventory(place / "inventory", hosts, **given), *words, home=place / "home")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    found = Pair(tmp_path / "machines")
    configured(found)
    return found


def test_a_fabric_as_planned_is_left_alone(pair: Pair, tmp_path: Path) -> None:
    done = run(tmp_path, pair, "fabric/main")
    assert done.rc == 0, done.failure("spark1")
    ran = {task.rpartition(" : ")[2] for task, _, result in done.results() if not result.get("skipped")}
    assert ran <= {
        "Facts", "Stage", "Plan replicas, ranks and addresses", "Check the variables",
        "Check that the fabric is as planned", "Stop if a rail is missing", "Stop if a rail does not carry its address",
    }  # fmt: skip


def test_addresses_of_the_site_are_only_checked(pair: Pair, tmp_path: Path) -> None:
    machine: Machine = pair.machines["spark2"]
    machine.addresses["enP2p1s0f0np0"] = []
    done = run(tmp_path, pair, "fabric/main", dgx_vllm_fabric_manage=False)
    assert "ip address add 198.51.100.66/26 dev enP2p1s0f0np0" in done.failure("spark2")
    assert done.failure("spark1") == ""


def test_check_mode_says_what_it_cannot_know(pair: Pair, tmp_path: Path) -> None:
    machine = pair.machines["spark1"]
    (machine.root / "etc/netplan/40-cx7.yaml").unlink()
    for half in ("enp1s0f0np0", "enP2p1s0f0np0"):
        (machine.root / f"sys/class/net/{half}/carrier").unlink()
    done = run(tmp_path, pair, "fabric/main", "--check")
    assert done.rc == 0, done.failure("spark1")
    said = [
        result["msg"] for task, _, result in done.results() if "cannot know" in task and result.get("msg")
    ]
    assert [text[:38] for text in said] == ["spark1 shows 0 of 2 planned rails; a r"]


def test_a_rail_without_a_link_is_named_with_its_problem(pair: Pair, tmp_path: Path) -> None:
    pair.change("spark1", "enp1s0f0np0", "carrier", 0)
    done = run(tmp_path, pair, "fabric/check")
    assert done.failure("spark1").startswith("spark1 has 1 of 2 planned rails (enP2p1s0f0np0). enp1s0f0np0")
    assert "has no link" in done.failure("spark1")
    assert done.failure("spark2") == ""


def test_modules_are_not_loaded_without_rdma(pair: Pair, tmp_path: Path) -> None:
    for machine in pair.machines.values():
        machine.write("proc/modules", "")
        (machine.root / "etc/modules-load.d/dgx-vllm.conf").unlink()
    thresholds = {"rdma": False}
    node = state(packages={"iputils-ping": "1"})
    done = run(tmp_path, pair, "fabric/main", node=node, dgx_vllm_fabric_thresholds=thresholds)
    assert done.rc == 0, done.failure("spark1")
    assert not [task for task, _, _ in done.results() if "RDMA modules" in task]


def test_the_report_names_causes_and_keeps_the_results(pair: Pair, tmp_path: Path) -> None:
    """The addresses are those of a documentation network: nobody answers on them."""
    report = tmp_path / "fabric.json"
    node = state(docker={"version": None})
    done = run(tmp_path, pair, "fabric/gate/main", node=node, dgx_vllm_fabric_json=str(report))
    assert "spark1 - spark2 rail 0: jumbo_ping:" in done.failure("spark1")
    assert "spark1 - spark2 rail 0: bandwidth:" in done.failure("spark2")
    found = json.loads(report.read_text(encoding="utf-8"))
    assert {one["where"] for one in found["findings"] if one["status"] == "fail"} == {
        "spark1 - spark2 rail 0",
        "spark1 - spark2 rail 1",
    }
    assert (tmp_path / "reports/fabric-history/chat.json").is_file()


@pytest.mark.parametrize("words", [("--check",), ()])
def test_a_replica_that_serves_is_not_measured(pair: Pair, tmp_path: Path, words: tuple[str, ...]) -> None:
    node = state() if words else state(service={"active_state": "active"})
    done = run(tmp_path, pair, "fabric/gate/main", *words, node=node)
    assert done.rc == 0, done.failure("spark1")
    assert not [task for task, _, _ in done.results() if "Ping" in task]
