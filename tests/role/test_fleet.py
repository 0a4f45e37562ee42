"""Twelve hosts in five replicas (inventory/fleet.yml), rendered and checked in check mode without a clash."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.rails import Options, collect
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.checks import CHECKS

from helpers import readers
from helpers.ansible_run import LOCAL, ROOT, play
from helpers.machine import Machine

Fleet = dict[str, dict[str, Any]]


def environments(fleet: Fleet) -> dict[str, dict[str, str]]:
    return {host: readers.docker_env_file(one["env"]) for host, one in fleet.items()}


def option(one: dict[str, Any], name: str) -> str:
    words = [str(word) for word in one["serve_args"]]
    return words[words.index(name) + 1]


def test_every_host_has_an_address_of_its_own(fleet: Fleet) -> None:
    addresses = [found["VLLM_HOST_IP"] for found in environments(fleet).values()]
    assert len(addresses) == len(set(addresses)) == 12


def test_every_replica_has_its_ranks_once_and_one_head(fleet: Fleet) -> None:
    ranks = Counter((option(one, "--master-addr"), option(one, "--node-rank")) for one in fleet.values())
    sizes = Counter(head for head, _ in ranks)
    assert set(ranks.values()) == {1}
    assert sorted(sizes.values()) == [2, 2, 2, 2, 4]
    assert [
        option(one, "--node-rank") for one in fleet.values() if "--headless" not in one["serve_args"]
    ] == ["0"] * 5


def test_the_master_is_the_head_of_the_same_replica(fleet: Fleet) -> None:
    own = {host: found["VLLM_HOST_IP"] for host, found in environments(fleet).items()}
    for host, one in fleet.items():
        watch = json.loads(one["watch"])
        assert option(one, "--master-addr") == own[watch["head"]]
        assert watch["address"] == own[host]
        assert watch["peers"] == {peer: own[peer] for peer in watch["peers"]}
        assert int(option(one, "--nnodes")) == len(watch["peers"]) + 1


def test_tensor_parallelism_is_the_number_of_nodes(fleet: Fleet) -> None:
    for host, found in environments(fleet).items():
        assert found["TENSOR_PARALLEL_SIZE"] == option(fleet[host], "--nnodes")


def test_site_checks_the_fleet_and_changes_nothing(tmp_path: Path) -> None:
    """The first play of site.yml as it is; this machine stands in for each node, so what it lacks is accepted,
    and the adapter is a described one."""
    given = {
        **LOCAL,
        "dgx_vllm_api_key": "key-of-the-fleet",
        "dgx_vllm_image_source": "load",
        "dgx_vllm_image_archive": "/srv/dgx-vllm.tar",
        "dgx_vllm_preflight_accept": list(CHECKS),
        "dgx_vllm_registry_username": "",
        "dgx_vllm_registry_password": "",
    }
    adapter = Machine(tmp_path / "adapter")
    adapter.port(0)
    read = collect(Options(rails=2), adapter.root, adapter.runner)
    given["__dgx_vllm_fabric_read"] = {"fabric": read}
    (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
    words = ("--check", "--tags", "only-what-always-runs", "-e", f"@{tmp_path}/given.json")
    run = play(ROOT / "site.yml", ROOT / "inventory/fleet.yml", *words, home=tmp_path / "home")
    assert run.rc == 0, run.failure("spark01")
    assert {one["changed"] for one in run.out["stats"].values()} == {0}
    passed = [
        host for task, host, _ in run.results() if task.endswith("Check that the whole replica is here")
    ]
    assert len(passed) == 2 * len(set(passed)) == 24, "before the lock and under it"
