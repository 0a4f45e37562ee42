"""Class D: every public variable is used by some test for its purpose, with another value than its default."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.plan import topology

from helpers.ansible_run import ROOT
from helpers.fleets import Variables, replica
from helpers.stages import Stages

# Tests that only refuse values, or walk over all variables, show no variable at work.
NO_EVIDENCE = (
    "test_mistakes.py",
    "test_topology_mistakes.py",
    "test_variables.py",
    "test_validation.py",
    "golden",
)
# Variable -> its name in the tests of the plugin that it is given to.
BY_ANOTHER_NAME = {"fabric_beside_server": "beside_server"}


def evidence() -> dict[str, str]:
    """File -> text of every test in which a variable can be at work."""
    files = [path for part in ("molecule", "tests") for path in (ROOT / part).rglob("*")]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in files
        if path.suffix in (".py", ".yml", "") and path.is_file() and not {*path.parts} & {*NO_EVIDENCE}
    }


def test_class_d_every_variable_is_used_by_a_test(defaults: dict[str, Any]) -> None:
    """Given as a host's variable, as an argument of a helper, or as a setting of the plugin that reads it."""
    texts = evidence()
    unused = []
    for name in defaults:
        short = name.removeprefix("dgx_vllm_")
        short = BY_ANOTHER_NAME.get(short, short)
        given = re.compile(rf"\b{name}[\"']?\s*[:=]|(?<![\w.-]){short}=[^=]|[\"']{short}[\"']:")
        if not any(given.search(text) for text in texts.values()):
            unused.append(name)
    assert not unused, "set each once in a test that shows what it does"


def changed(fleet: Variables, host: str, **more: Any) -> Variables:
    own = {f"dgx_vllm_{name}": value for name, value in more.items()}
    return {**fleet, host: {**fleet[host], **own}}


def test_rank_and_index_move_a_node() -> None:
    fleet = changed(changed(replica(2), "spark1", rank=1), "spark2", rank=0, fabric_index=7)
    planned = topology(fleet, [*fleet])
    assert planned["mistakes"] == []
    assert [planned["hosts"][name]["rank"] for name in ("spark1", "spark2")] == [1, 0]
    assert planned["hosts"]["spark2"]["is_head"]
    assert [rail["address"].split(".")[3].split("/")[0] for rail in planned["hosts"]["spark2"]["rails"]] == [
        "8",
        "72",
    ]


def test_ports_of_a_replica() -> None:
    fleet = replica(2, master_port=29700, watch_port=29800)
    row = topology(fleet, [*fleet])["hosts"]["spark1"]
    assert (row["master_port"], row["watch_port"]) == (29700, 29800)
    fleet = replica(2, executor="ray", ray_port=6400, ray_dashboard_port=8300)
    ray = topology(fleet, [*fleet])["hosts"]["spark1"]["ray"]
    assert (ray["port"], ray["dashboard_port"]) == (6400, 8300)


def notes(place: Path, stage: str, **variables: Any) -> dict[str, Any]:
    """The packages and the repository that a stage asks for."""
    stages = Stages(place, "common/state", "common/ledger")
    asked = (
        "{'packages': __dgx_vllm_packages | default([]), 'repository': __dgx_vllm_repository | default({})}"
    )
    text = f"{{{{ {asked} | to_json }}}}"
    for stub in ("common/packages", "common/apt_repository"):
        note = {"ansible.builtin.copy": {"content": text, "dest": f"{place}/{stub.replace('/', '-')}"}}
        stages.stub(stub, note)
    run = stages.run(stage, {"spark1": variables})
    assert run.rc == 0, run.failure("spark1")
    return {path.name: json.loads(path.read_text()) for path in place.glob("common-*")}


def test_docker_package(tmp_path: Path) -> None:
    node = {"__dgx_vllm_node": {"state": {"ledger": {}}}}
    asked = notes(tmp_path, "runtime/docker", dgx_vllm_docker_package="docker-ce", **node)
    assert asked["common-packages"]["packages"] == ["docker-ce"]


def test_packages_and_repository_of_the_fabric(tmp_path: Path) -> None:
    asked = notes(
        tmp_path,
        "fabric/packages",
        __dgx_vllm_node={
            "state": {
                "arch": "aarch64",
                "apt": [],
                "packages": {"iputils-ping": "1", "rdma-core": "1", "perftest": None},
            }
        },
        __dgx_vllm_plan={"hosts": {"spark1": {"world_size": 2, "rails": []}}},
        dgx_vllm_fabric_packages=["rdma-core", "perftest"],
        dgx_vllm_fabric_repo_url="https://packages.example.com/doca",
        dgx_vllm_fabric_repo_key_url="https://packages.example.com/key",
        dgx_vllm_fabric_repo_key_fingerprint="A" * 40,
    )
    assert asked["common-packages"]["packages"] == ["perftest"]
    repository = asked["common-apt_repository"]["repository"]
    assert (repository["url"], repository["key_url"], repository["fingerprint"]) == (
        "https://packages.example.com/doca", "https://packages.example.com/key", "A" * 40,
    )  # fmt: skip


@pytest.mark.slow
def test_a_build_is_given_up_after_its_time(tmp_path: Path) -> None:
    stages = Stages(tmp_path, "common/state", "common/ledger")
    stages.tool("docker", 'case "$1" in build) sleep 60 ;; image) exit 1 ;; esac\n')
    node = {
        "__dgx_vllm_node": {"state": {"docker": {"running": True}, "ledger": {}}},
        "dgx_vllm_image_timeout": 1,
    }
    run = stages.run("image/build", {"spark1": node})
    assert run.rc != 0 and "Timeout exceeded" in run.failure("spark1")
