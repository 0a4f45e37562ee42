"""Wrong variables are refused on the operator's side, before anything is read from a node; each with its sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.ansible_run import Run, inventory, play

SECRET = "secret-key-for-tests-000"
LONG_SECRET = "hf_" + "s" * 30

# Host name: the variables that differ from a good set, and words that the refusal must have.
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "misspelt": (
        {"dgx_vllm_modle": "x"},
        ["dgx_vllm_modle is not a variable of this role", "dgx_vllm_model?"],
    ),
    "unknown": ({"dgx_vllm_zzz": "x"}, ["dgx_vllm_zzz is not a variable of this role"]),
    "not_a_boolean": ({"dgx_vllm_service_enabled": "maybe"}, ["dgx_vllm_service_enabled", "bool"]),
    "list_as_boolean": ({"dgx_vllm_drop_page_cache": ["true"]}, ["dgx_vllm_drop_page_cache", "bool"]),
    "not_a_number": ({"dgx_vllm_port": "http"}, ["dgx_vllm_port", "int"]),
    "port_too_large": ({"dgx_vllm_port": 80000}, ["dgx_vllm_port is 80000", "1 to 65535"]),
    "not_a_choice": ({"dgx_vllm_image_source": "magic"}, ["dgx_vllm_image_source", "build, pull, load"]),
    "string_for_list": ({"dgx_vllm_extra_args": "--a b"}, ["dgx_vllm_extra_args must be a list"]),
    "string_for_dict": ({"dgx_vllm_extra_env": "A=1"}, ["dgx_vllm_extra_env must be a dictionary"]),
    "too_much_memory": (
        {"dgx_vllm_gpu_memory_utilization": 0.95},
        ["dgx_vllm_gpu_memory_utilization", "freezes"],
    ),
    "memory_no_number": (
        {"dgx_vllm_gpu_memory_utilization": "most"},
        ["dgx_vllm_gpu_memory_utilization", "float"],
    ),
    "no_model": ({"dgx_vllm_model": ""}, ["dgx_vllm_model is not set"]),
    "own_flag": ({"dgx_vllm_extra_args": ["--port=1"]}, ["dgx_vllm_extra_args has --port", "dgx_vllm_port"]),
    "privileged": ({"dgx_vllm_container_extra_args": ["--privileged"]}, ["--privileged"]),
    "key_line_break": ({"dgx_vllm_api_key": f"{SECRET}\nx"}, ["dgx_vllm_api_key has a line break"]),
    "l7_empty_host": ({"dgx_vllm_host": None}, ["dgx_vllm_host has no value"]),
    "l7_model_is_a_number": ({"dgx_vllm_model": 7}, ["dgx_vllm_model is 7", "quotes"]),
    "l7_replica_is_a_number": ({"dgx_vllm_replica": 1}, ["dgx_vllm_replica is 1", "quotes"]),
    "l7_key_is_a_number": ({"dgx_vllm_api_key": 12345678}, ["dgx_vllm_api_key", "quotes"]),
    "l7_key_cannot_be_made": ({"dgx_vllm_api_key": "{{ nobody_knows }}"}, ["nobody_knows"]),
    "m10_limit_of_a_wrong_type": (
        {"dgx_vllm_watch_limits": {"stall": True}},
        ["dgx_vllm_watch_limits.stall"],
    ),
    "half_a_login": ({"dgx_vllm_registry_password": SECRET}, ["dgx_vllm_registry_username"]),
    "two_mistakes": (
        {"dgx_vllm_port": 0, "dgx_vllm_host": "", "dgx_vllm_hf_token": LONG_SECRET},
        ["dgx_vllm_port is 0", "dgx_vllm_host"],
    ),
}
ACCEPTED: dict[str, dict[str, Any]] = {
    "good": {},
    "boolean_as_string": {"dgx_vllm_service_enabled": "false", "dgx_vllm_drop_page_cache": "yes"},
    "numbers_as_strings": {"dgx_vllm_port": "8001", "dgx_vllm_gpu_memory_utilization": "0.7"},
    "absent_without_model": {"dgx_vllm_state": "absent", "dgx_vllm_model": ""},
    "secrets": {"dgx_vllm_api_key": SECRET, "dgx_vllm_hf_token": LONG_SECRET},
}


def validation(place: Path, hosts: dict[str, dict[str, Any]], stage: str, *words: str) -> Run:
    """Run one stage of the role for every host; the hosts are variable sets on this machine."""
    task = {
        "name": "Stage",
        "ansible.builtin.include_role": {"name": "dgx_vllm.spark.dgx_vllm", "tasks_from": stage},
    }
    name = stage.replace("/", "-")
    playbook = place / f"{name}.yml"
    playbook.write_text(
        json.dumps([{"hosts": "dgx_vllm", "gather_facts": False, "tasks": [task]}]), encoding="utf-8"
    )
    return play(
        playbook, inventory(place / name, hosts, dgx_vllm_model="org/name"), *words, home=place / "home"
    )


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Run:
    hosts = {name: changes for name, (changes, _) in REFUSED.items()}
    return validation(tmp_path_factory.mktemp("refused"), hosts, "preflight", "-vvv")


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return validation(tmp_path_factory.mktemp("accepted"), ACCEPTED, "common/validate")


@pytest.mark.parametrize("host", REFUSED)
def test_refusal_says_what_is_wrong(refused: Run, host: str) -> None:
    message = refused.failure(host)
    assert all(word in message for word in REFUSED[host][1]), message or "not refused"


@pytest.mark.parametrize("host", REFUSED)
def test_refused_before_the_node_is_read(refused: Run, host: str) -> None:
    tasks = [task for task, name, _ in refused.results() if name == host]
    assert not [task for task in tasks if "Read the state" in task], tasks


def test_no_secret_is_shown(refused: Run) -> None:
    everything = json.dumps(refused.out) + refused.err
    assert SECRET not in everything
    assert LONG_SECRET not in everything


@pytest.mark.parametrize("host", ACCEPTED)
def test_good_set_is_accepted(accepted: Run, host: str) -> None:
    assert accepted.failure(host) == ""


def test_extra_variables_are_checked_too(tmp_path: Path) -> None:
    run = validation(tmp_path, {"one": {}}, "common/validate", "-e", "dgx_vllm_prot=8001")
    assert "did you mean dgx_vllm_port?" in run.failure("one")
