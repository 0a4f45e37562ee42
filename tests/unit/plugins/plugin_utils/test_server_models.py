"""Class D: what a server needs beside its model, named by its arguments, is fetched before it runs offline."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import needed, wanted_of
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.models import server_models

NO_WEIGHTS = ("config.json", "tokenizer.json", "tokenizer.model")


def others(*words: str) -> list[tuple[str, str]]:
    found: list[dict[str, Any]] = server_models(words, "org/model", [], [])["others"]
    return [(one["model"], one["revision"]) for one in found]


@pytest.mark.parametrize(
    "words",
    [
        ["--speculative-config", '{"model": "org/draft", "num_speculative_tokens": 3}'],
        ['--speculative_config={"model": "org/draft"}'],
        ["--speculative-config.model", "org/draft", "--speculative-config.num_speculative_tokens", "3"],
        ["-sc.model=org/draft"],
        ["-sc", '{"model": "org/draft", "revision": "main"}'],
        ["--spec-model", "org/draft"],
        ["--speculative-conf", '{"model": "org/draft"}'],
    ],
)
def test_class_d_a_draft_model_in_every_form(words: list[str]) -> None:
    assert others(*words) == [("org/draft", "main")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-sc", '{"method": "ngram", "model": "ngram"}'], []),
        (["-sc", '{"method": "mtp", "model": "org/model"}'], []),
        (["-sc", '{"model": "/srv/draft"}'], []),
        (["-sc", "not json"], []),
        (["-sc", '{"model": "org/draft", "revision": "v2"}'], [("org/draft", "v2")]),
        (["--tokenizer", "org/tok", "--tokenizer-revision=v1"], [("org/tok", "v1")]),
        (["--hf-config-path", "org/config"], [("org/config", "main")]),
        (["--lora-modules", "a=org/lora", '{"name": "b", "path": "org/other"}', "c=/srv/lora"],
         [("org/lora", "main"), ("org/other", "main")]),
        (["--seed", "1"], []),
    ],
)  # fmt: skip
def test_class_d_what_the_arguments_name(words: list[str], expected: list[tuple[str, str]]) -> None:
    assert others(*words) == expected


def test_of_a_tokenizers_repository_no_weights_are_fetched() -> None:
    (one,) = server_models(["--tokenizer", "org/tok"], "org/model", [], [])["others"]
    sizes = dict.fromkeys([*NO_WEIGHTS, "model.safetensors", "pytorch_model.bin"], 9)
    assert needed(sizes, None, wanted_of(one["files"])) == {*NO_WEIGHTS}


def test_the_files_of_the_model() -> None:
    found = server_models(["--load-f=fastsafetensors"], "org/model", ["*.json"], ["x"])["files"]
    assert found == {"include": ["*.json"], "exclude": ["x"], "load_format": "fastsafetensors"}
    assert server_models([], "org/model", [], [])["files"]["load_format"] == "auto"
