"""The tuner's command line: which layer it is, what it refuses, in one sentence each."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
from moe_config import tune
from moe_config.__main__ import main
from moe_config.space import Shape

LAYER = ["--experts", "512", "--intermediate", "512", "--hidden", "2048", "--topk", "10"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give --model, or all of"),
        (["--experts", "8"], "Give --model, or all of"),
        ([*LAYER, "--model", "x"], "not both"),
        (LAYER, "cannot be imported|sees no NVIDIA GPU"),
    ],
)
def test_refused_in_one_sentence(
    arguments: list[str], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments]) == 2
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1 and re.search(sentence, printed)


@pytest.mark.parametrize("text", ["", "0", "1,x", "1,,2"])
def test_batch_sizes_must_be_numbers(text: str) -> None:
    with pytest.raises(SystemExit):
        main(["tune", *LAYER, "--batch-sizes", text])


CHANNEL = {
    "quant_method": "compressed-tensors",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
            "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
        }
    },
}


def model(place: Path, quantization: dict[str, Any] | None, experts: int = 512) -> list[str]:
    config = {
        "architectures": ["Qwen3NextForCausalLM"],
        "num_experts": experts,
        "moe_intermediate_size": 512,
        "hidden_size": 2048,
        "num_experts_per_tok": 10,
    } | ({"quantization_config": quantization} if quantization else {})
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return ["--model", str(place)]


def test_layer_of_a_model(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    tune.add_arguments(parser)
    options = parser.parse_args([*model(tmp_path, CHANNEL), "--tp", "2"])
    assert tune.shape_of(options) == Shape(512, 256, 2048, 10)


def test_plan_needs_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *model(tmp_path, CHANNEL), "--plan", "--output", str(tmp_path / "none")]) == 0
    assert re.fullmatch(
        r"512 experts of size 512, hidden size 2048, top-10, fp8-channel: 18 batch sizes, \d+ "
        r"configurations left of 34560\.\n",
        capsys.readouterr().out,
    )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("quantization", "kind"),
    [
        (None, "not quantised"),
        ({"quant_method": "fp8"}, "fp8-tensor"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block"),
    ],
)
def test_other_quantisations_are_refused(
    tmp_path: Path, quantization: dict[str, Any] | None, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *model(tmp_path, quantization), "--plan"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f" are {kind}, and tune measures fp8-channel only: use vLLM's own" in printed


def test_a_dense_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *model(tmp_path, None, experts=0), "--plan"]) == 2
    assert "has no experts: there is nothing to tune" in capsys.readouterr().err
