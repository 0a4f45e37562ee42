"""The module as Ansible runs it, on the machine of the test."""

from __future__ import annotations

import os

import yaml
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.collect import Query, collect
from ansible_collections.dgx_vllm.spark.plugins.modules import dgx_vllm_state as module


def test_it_reads_this_machine_in_check_mode(run_module, tmp_path):
    found = run_module(
        "dgx_vllm_state", port=0, config_dir=str(tmp_path), data_dir=str(tmp_path), _ansible_check_mode=True
    )
    state = found["state"]
    assert found["changed"] is False
    assert state["arch"] == os.uname().machine
    assert state["memory"]["total_bytes"] > 0
    assert state["disks"]["models"]["total_bytes"] > 0
    assert (state["releases"], state["ledger"]) == ({}, {})


def test_documentation_names_every_argument_and_default():
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    defaults = {name: option["default"] for name, option in options.items()}
    assert defaults == {**Query()._asdict(), "packages": [], "other_models": []}


def test_documentation_names_every_key_of_the_state(tmp_path, runner):
    documented = yaml.safe_load(module.RETURN)["state"]["contains"]
    assert set(documented) == set(collect(Query(), tmp_path, runner))
