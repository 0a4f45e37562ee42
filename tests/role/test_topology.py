"""playbooks/topology.yml over inventories of replicas and a bad one: no host is contacted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.ansible_run import LOCAL, ROOT, Run, command, play

HERE = Path(__file__).parent


def topology(inventory: Path, home: Path, *words: str) -> Run:
    # An ssh that always fails shows that no host is asked.
    done = command(
        "ansible-playbook", "-i", str(inventory), "playbooks/topology.yml", *words, home=home,
        ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_SSH_EXECUTABLE="/bin/false",
    )  # fmt: skip
    return Run(done.returncode, json.loads(done.stdout[done.stdout.index("{") :]), done.stderr)


def table(run: Run) -> list[list[str]]:
    assert run.rc == 0, run.failure("localhost")
    (text,) = (result["msg"] for task, _, result in run.results() if task == "Show the rank table")
    return [line.split() for line in str(text).splitlines()[1:] if line and ": " not in line]


def test_the_pair(tmp_path: Path) -> None:
    run = topology(ROOT / "inventory/pair.yml", tmp_path)
    assert [line[:4] for line in table(run)] == [
        ["chat", "0", "spark1", "head"],
        ["chat", "1", "spark2", "spark1"],
    ]
    assert {host for _, host, _ in run.results()} == {"localhost"}


def test_a_single_machine(tmp_path: Path) -> None:
    assert [line[:4] for line in table(topology(ROOT / "inventory/single.yml", tmp_path))] == [
        ["spark1", "0", "spark1", "head"]
    ]


def test_a_fleet_of_twelve_in_five_replicas(tmp_path: Path) -> None:
    lines = table(topology(ROOT / "inventory/fleet.yml", tmp_path))
    assert len(lines) == 12
    assert sorted({line[0] for line in lines}) == ["chat_a", "chat_b", "chat_large", "coder_a", "coder_b"]
    rails = [word for line in lines for word in line if "/26" in word]
    assert len(rails) == len(set(rails)) == 24


def test_a_bad_inventory_names_file_and_line(tmp_path: Path) -> None:
    text = (ROOT / "inventory/pair.yml").read_text(encoding="utf-8")
    line = "dgx_vllm_tensor_parallel_size: 2"
    bad = tmp_path / "bad.yml"
    bad.write_text(text.replace(line, "dgx_vllm_tensor_parallel_size: 4"), encoding="utf-8")
    number = next(at for at, found in enumerate(text.splitlines(), 1) if line in found)
    message = topology(bad, tmp_path / "home").failure("localhost")
    assert f"`{line}`" in message
    assert f"bad.yml:{number})" in message


def test_a_host_in_the_groups_of_two_replicas(tmp_path: Path) -> None:
    text = (ROOT / "inventory/fleet.yml").read_text(encoding="utf-8")
    bad = tmp_path / "bad.yml"
    bad.write_text(text.replace("spark[07:08]", "spark[06:08]"), encoding="utf-8")
    message = topology(bad, tmp_path / "home").failure("localhost")
    assert "spark06 is in the group chat_a, but its dgx_vllm_replica is chat_b" in message


def planned(place: Path, hosts: dict[str, dict[str, str]], *words: str) -> dict[str, dict[str, list[str]]]:
    """By host of the run: members and addresses that the role plans in a play that knows no group dgx_vllm."""
    common = {**LOCAL, "dgx_vllm_model": "org/name", "dgx_vllm_fabric_kind": "switch"}
    inventory = {"sparks": {"hosts": hosts, "vars": common}, "others": {"hosts": {"aaa": LOCAL}}}
    (place / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    role = {"name": "dgx_vllm.spark.dgx_vllm", "tasks_from": "common/validate", "public": True}
    show = {"msg": "{{ __dgx_vllm_row }}"}
    tasks = [
        {"name": "Plan", "ansible.builtin.include_role": role},
        {"name": "Row", "ansible.builtin.debug": show},
    ]
    content = [{"hosts": "sparks", "gather_facts": False, "tasks": tasks}]
    (place / "play.yml").write_text(json.dumps(content), encoding="utf-8")
    run = play(place / "play.yml", place / "hosts.yml", *words, home=place / "home")
    assert run.rc == 0, run.out
    rows = {host: result["msg"] for task, host, result in run.results() if task == "Row"}
    return {host: {name: row[name] for name in ("members", "addresses")} for host, row in rows.items()}


def pairs() -> dict[str, dict[str, str]]:
    """spark1 and spark2, spark4 and spark5 serve together, spark3 is standalone on the same fabric."""
    fabric = {"dgx_vllm_fabric_prefix": "198.51.100.0/24"}
    a, b = ({**fabric, "dgx_vllm_replica": name, "dgx_vllm_tensor_parallel_size": "2"} for name in "ab")
    return {"spark1": a, "spark2": a, "spark3": fabric, "spark4": b, "spark5": b}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    return planned(tmp_path_factory.mktemp("everything"), pairs())


@pytest.mark.parametrize("limit", ["spark4,spark5", "spark2", "spark3"])
def test_a_limit_moves_no_address_in_a_play_over_another_group(
    everything: dict[str, dict[str, list[str]]], limit: str, tmp_path: Path
) -> None:
    assert everything["spark4"]["addresses"] == ["198.51.100.4", "198.51.100.68"]
    assert planned(tmp_path, pairs(), "--limit", limit) == {
        host: everything[host] for host in limit.split(",")
    }


def test_a_machine_without_a_replica_is_standalone_in_any_group(tmp_path: Path) -> None:
    assert planned(tmp_path, {"spark1": {}}) == {"spark1": {"members": ["spark1"], "addresses": []}}
