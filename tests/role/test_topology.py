"""playbooks/topology.yml over inventories of replicas and a bad one: no host is contacted."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_run import ROOT, Run, command

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
