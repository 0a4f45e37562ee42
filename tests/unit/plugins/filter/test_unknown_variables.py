"""Misspelt variables."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.variables import FilterModule
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.variables import mistakes, unknown_variables

KNOWN = ["dgx_vllm_model", "dgx_vllm_model_revision", "dgx_vllm_port"]


def test_known_names_give_nothing():
    assert unknown_variables(KNOWN, KNOWN) == []
    assert unknown_variables([], KNOWN) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [("dgx_vllm_modle", "dgx_vllm_model"), ("dgx_vllm_model_revison", "dgx_vllm_model_revision")],
)
def test_the_nearest_name_is_offered(name, meant):
    assert unknown_variables([name], KNOWN) == [
        f"{name} is not a variable of this role, did you mean {meant}?"
    ]


def test_a_name_like_no_other_points_at_the_table():
    (sentence,) = unknown_variables(["dgx_vllm_swap_space_gib_total"], KNOWN)
    assert "did you mean" not in sentence
    assert "README" in sentence


def test_sentences_are_sorted_and_once_each():
    found = unknown_variables(["dgx_vllm_zz", "dgx_vllm_aa", "dgx_vllm_zz"], KNOWN)
    assert [sentence.split()[0] for sentence in found] == ["dgx_vllm_aa", "dgx_vllm_zz"]


def test_ansible_finds_the_filters():
    assert FilterModule().filters() == {"mistakes": mistakes, "unknown_variables": unknown_variables}
