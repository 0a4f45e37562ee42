"""read_node: variables keep their names, whatever types the inventory or -e gave them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.nodes import DEFAULTS, SAME, Node
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.read import read_node

OF_THE_HOST = {"host", "management", "ssh_port", "compared", "origins"}


def node(**values: Any) -> Node:
    mistakes: list[str] = []
    found = read_node("spark1", {f"dgx_vllm_{name}": value for name, value in values.items()}, mistakes)
    assert mistakes == []
    return found


def test_every_default_is_a_field_of_its_name() -> None:
    assert set(Node._fields) - OF_THE_HOST - {"model"} == set(DEFAULTS)


def test_fields_have_the_default_values() -> None:
    defaults = node()
    for name, value in DEFAULTS.items():
        assert getattr(defaults, name) == (None if value == -1 else value), name


@pytest.mark.parametrize("name", [name for name, value in DEFAULTS.items() if isinstance(value, int)])
def test_number_given_as_text_is_a_number(name: str) -> None:
    assert getattr(node(**{name: "2"}), name) == 2


@pytest.mark.parametrize("name", ["rank", "fabric_index"])
def test_minus_one_means_that_the_plan_chooses(name: str) -> None:
    assert getattr(node(**{name: -1}), name) is None
    assert getattr(node(**{name: 0}), name) == 0


def test_everything_that_must_be_the_same_can_be_shown() -> None:
    for name in SAME:
        assert node().shown(name)
    assert node().shown("max_model_len") == "not set"
    assert node(max_model_len=4096).shown("max_model_len") == node(max_model_len="4096").shown(
        "max_model_len"
    )


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("port", 0, "spark1: dgx_vllm_port is 0 (hosts.yml:2); set it to a port from 1 to 65535."),
        (
            "tensor_parallel_size",
            0,
            "spark1: dgx_vllm_tensor_parallel_size is 0 (hosts.yml:2); set it to a whole number from 1 to 1024.",
        ),
        (
            "fabric_kind",
            "mesh",
            "spark1: dgx_vllm_fabric_kind is 'mesh' (hosts.yml:2); write one of direct, switch, ring.",
        ),
        (
            "fabric_addresses",
            ["fast"],
            "spark1: dgx_vllm_fabric_addresses (hosts.yml:2): 'fast' is not an IPv4 address with a prefix length; "
            "write it as 198.51.100.1/26.",
        ),
    ],
)
def test_wrong_value_is_named_with_its_place_and_the_default_is_taken(
    name: str, value: Any, sentence: str
) -> None:
    mistakes: list[str] = []
    found = read_node(
        "spark1", {f"dgx_vllm_{name}": value}, mistakes, lambda at: "hosts.yml:2" if at == value else ""
    )
    assert mistakes == [sentence]
    assert getattr(found, name) == DEFAULTS[name]
