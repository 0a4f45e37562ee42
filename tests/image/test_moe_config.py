"""moe_config name: the file vLLM asks for, where it is found, and which markers belong to the model."""

from __future__ import annotations

import ast
import importlib.util
import json
import struct
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moe_config import __main__ as cli
from moe_config.name import file_name

from helpers import vllm_sources

Run = Callable[..., dict[str, Any]]
GB10 = "device_name=NVIDIA_GB10"
SHIPPED = f"E=512,N=512,{GB10},dtype=fp8_w8a8.json"
CONFIGS = "vllm/model_executor/layers/fused_moe/configs"


def compressed(strategy: str = "channel", bits: int = 8, **more: Any) -> dict[str, Any]:
    weights: dict[str, Any] = {"num_bits": bits, "type": "float", "strategy": strategy, "symmetric": True}
    if strategy == "block":
        weights["block_structure"] = [128, 128]
    if bits == 4:
        weights |= {"group_size": 16, "strategy": "tensor_group"}
    group = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": {"num_bits": bits, "type": "float"},
    }
    ignore = ["lm_head", "re:.*mlp.gate$", "re:.*shared_expert_gate$"]
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": group},
        "ignore": ignore,
        **more,
    }


QWEN3_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"],
    "model_type": "qwen3_next",
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "moe_intermediate_size": 512,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 48,
    "shared_expert_intermediate_size": 512,
    "torch_dtype": "bfloat16",
}
DENSE = {"model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 2}
FP8_BLOCK = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
}


@pytest.fixture
def name(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Write a config.json, run `name --json` on it, return the answer."""
    for variable in (
        "VLLM_TUNED_CONFIG_FOLDER",
        "DGX_VLLM_FP8_LINEAR",
        "DGX_VLLM_FP8_MOE",
        "HF_HOME",
        "HF_HUB_CACHE",
    ):
        monkeypatch.delenv(variable, raising=False)
    package = tmp_path / "root" / CONFIGS
    package.mkdir(parents=True)
    (package / SHIPPED).write_text((vllm_sources.IMAGE / "configs" / SHIPPED).read_text())
    model = tmp_path / "model"
    model.mkdir()

    def run(config: dict[str, Any], *more: str) -> dict[str, Any]:
        (model / "config.json").write_text(json.dumps(config))
        assert (
            cli.main(["name", "--json", "--model", str(model), "--root", str(tmp_path / "root"), *more]) == 0
        )
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return run


@pytest.mark.parametrize(
    ("split", "shape"),
    [
        ([], "E=512,N=512"),
        (["--tp", "2"], "E=512,N=256"),
        (["--tp", "2", "--ep", "2"], "E=256,N=512"),
        (["--ep", "4"], "E=128,N=512"),
    ],
)
def test_qwen3_next_fp8_dynamic(split: list[str], shape: str, name: Run, tmp_path: Path) -> None:
    answer = name({**QWEN3_NEXT, "quantization_config": compressed()}, *split)
    place = tmp_path / "root" / CONFIGS
    assert answer["quantization"] == "fp8-channel" and answer["is_moe"] is True
    assert answer["file"] == f"{shape},{GB10},dtype=fp8_w8a8.json"
    assert answer["searched"] == [str(place)]
    assert answer["expected_markers"] == ["linear", "moe"]
    if split:
        assert answer["found"] is None and answer["similar"] == [SHIPPED]
        assert "in none of the directories" in answer["reason"]
    else:
        assert answer["found"] == str(place / SHIPPED) and answer["similar"] == []


def test_contract_keys(name: Run) -> None:
    assert list(name(QWEN3_NEXT)) == [
        "model", "quantization", "is_moe", "file", "found", "searched", "similar", "expected_markers", "reason",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("quantization", "kind", "file", "markers"),
    [
        (None, "none", f"E=512,N=512,{GB10}.json", []),
        (compressed("tensor"), "fp8-tensor", SHIPPED, ["linear", "moe"]),
        (
            compressed("block"),
            "fp8-block",
            f"E=512,N=512,{GB10},dtype=fp8_w8a8,block_shape=[128,128].json",
            ["moe"],
        ),
        (FP8_BLOCK, "fp8-block", f"E=512,N=512,{GB10},dtype=fp8_w8a8,block_shape=[128,128].json", ["moe"]),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8-tensor", SHIPPED, ["linear", "moe"]),
        ({"quant_method": "fbgemm_fp8"}, "fp8-channel", SHIPPED, ["linear", "moe"]),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8-tensor", SHIPPED, ["linear", "moe"]),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", None, []),
        (compressed(bits=4), "nvfp4", None, []),
        ({"quant_method": "awq", "bits": 4}, "other", None, []),
    ],
)
def test_quantisation(
    quantization: dict[str, Any] | None, kind: str, file: str | None, markers: list[str], name: Run
) -> None:
    answer = name({**QWEN3_NEXT, **({"quantization_config": quantization} if quantization else {})})
    assert (answer["quantization"], answer["file"], answer["expected_markers"]) == (kind, file, markers)


def test_dense_model(name: Run) -> None:
    answer = name({**DENSE, "quantization_config": compressed()})
    assert (answer["is_moe"], answer["file"], answer["found"], answer["similar"]) == (False, None, None, [])
    assert answer["expected_markers"] == ["linear"]
    assert name(DENSE)["expected_markers"] == []
    assert name({**DENSE, "quantization_config": FP8_BLOCK})["expected_markers"] == []


def test_nested_text_config(name: Run) -> None:
    config = {"model_type": "qwen3_vl_moe", "vision_config": {"hidden_size": 1}, "text_config": QWEN3_NEXT}
    assert name({**config, "quantization_config": compressed()})["file"] == SHIPPED
    inner = {"text_config": {**QWEN3_NEXT, "quantization_config": compressed()}}
    assert name(inner)["expected_markers"] == ["linear", "moe"]
    thinker = {"thinker_config": {"text_config": QWEN3_NEXT}, "quantization_config": compressed()}
    assert name(thinker)["file"] == SHIPPED


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"num_local_experts": 8, "intermediate_size": 14336, "hidden_size": 4096}, "E=8,N=14336"),
        ({"n_routed_experts": 256, "moe_intermediate_size": 2048, "hidden_size": 7168}, "E=256,N=2048"),
        ({"moe_num_experts": 64, "moe_intermediate_size": [1536, 512], "hidden_size": 2560}, "E=64,N=1536"),
    ],
)
def test_other_families_names_of_the_same_sizes(config: dict[str, Any], shape: str, name: Run) -> None:
    assert str(name(config)["file"]).startswith(shape + ",")


def test_uneven_splits(name: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert str(name({**QWEN3_NEXT, "num_experts": 10}, "--ep", "4")["file"]).startswith("E=3,N=512")
    block = {**QWEN3_NEXT, "moe_intermediate_size": 768, "quantization_config": FP8_BLOCK}
    assert "block_shape=[64,64]" in name(block, "--tp", "4")["file"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(QWEN3_NEXT))
    assert cli.main(["name", "--model", str(tmp_path / "model"), "--tp", "3"]) == 2
    assert "is not divisible by 3" in capsys.readouterr().err


def test_tuned_folder_comes_first(name: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    monkeypatch.setenv("VLLM_TUNED_CONFIG_FOLDER", str(tuned))
    config = {**QWEN3_NEXT, "quantization_config": compressed()}
    place = tmp_path / "root" / CONFIGS
    assert name(config)["searched"] == [str(tuned), str(place)]
    assert name(config)["found"] == str(place / SHIPPED)
    (tuned / SHIPPED).write_text("{}")
    assert name(config)["found"] == str(tuned / SHIPPED)


def test_switches_and_explicit_backends_take_markers_away(name: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**QWEN3_NEXT, "quantization_config": compressed()}
    assert name(config, "--moe-backend", "marlin")["expected_markers"] == ["linear"]
    assert name(config, "--linear-backend", "cutlass")["expected_markers"] == ["moe"]
    monkeypatch.setenv("DGX_VLLM_FP8_LINEAR", "auto")
    assert name(config)["expected_markers"] == ["moe"]


def test_ignored_attention_prints_no_linear_marker(name: Run) -> None:
    section = compressed(ignore=["lm_head", "re:.*self_attn.*", "re:.*linear_attn.*"])
    assert name({**QWEN3_NEXT, "quantization_config": section})["expected_markers"] == ["moe"]


def test_weights_on_disk_settle_it(name: Run, tmp_path: Path) -> None:
    config = {**QWEN3_NEXT, "quantization_config": compressed()}
    index = tmp_path / "model" / "model.safetensors.index.json"
    expert = "model.layers.0.mlp.experts.0.up_proj.weight_scale"
    attention = "model.layers.0.self_attn.o_proj.weight_scale"
    index.write_text(json.dumps({"weight_map": {expert: "a", attention: "a"}}))
    assert name(config)["expected_markers"] == ["linear", "moe"]
    index.write_text(json.dumps({"weight_map": {expert: "a", "model.layers.0.self_attn.o_proj.weight": "a"}}))
    assert name(config)["expected_markers"] == ["moe"]
    index.unlink()
    header = json.dumps({"__metadata__": {}, expert: {}, attention: {}}).encode()
    (tmp_path / "model" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert name(config)["expected_markers"] == ["linear", "moe"]


def test_mixed_groups(name: Run) -> None:
    section = compressed()
    experts = compressed(bits=4)["config_groups"]["group_0"]
    section["config_groups"]["group_1"] = {**experts, "targets": ["re:.*experts.*"]}
    answer = name({**QWEN3_NEXT, "quantization_config": section})
    assert (answer["quantization"], answer["file"], answer["expected_markers"]) == ("nvfp4", None, ["linear"])


def test_hugging_face_id_from_the_cache(
    name: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    base = tmp_path / "hf" / "hub" / "models--org--model"
    snapshot = base / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("abc123")
    (snapshot / "config.json").write_text(json.dumps({**QWEN3_NEXT, "quantization_config": compressed()}))
    for more in ([], ["--revision", "abc123"]):
        assert cli.main(["name", "--json", "--model", "org/model", *more]) == 0
        assert json.loads(capsys.readouterr().out)["file"] == SHIPPED
    assert cli.main(["name", "--json", "--model", "org/other"]) == 2
    assert "is not in" in capsys.readouterr().err
    assert cli.main(["name", "--model", "org/model", "--revision", "v2"]) == 2


@pytest.mark.parametrize(
    ("text", "part"), [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "not a JSON object")]
)
def test_unreadable_model(
    text: str | None, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert cli.main(["name", "--model", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moe_config: ") and part in line


@pytest.mark.parametrize("version", vllm_sources.versions(*vllm_sources.ALL_VERSIONS))
def test_same_name_as_vllm(version: str, tmp_path: Path) -> None:
    """Ours against vLLM's own get_config_file_name, taken from the release."""
    path = vllm_sources.fetch(version) / "vllm/model_executor/layers/fused_moe/fused_moe.py"
    text = path.read_text()
    wanted = [
        n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "get_config_file_name"
    ]
    (tmp_path / "theirs.py").write_text(ast.unparse(wanted[0]))
    spec = importlib.util.spec_from_file_location("theirs", tmp_path / "theirs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    module.__dict__["current_platform"] = types.SimpleNamespace(get_device_name=lambda: "NVIDIA GB10")
    module.__dict__["get_device_name_as_file_name"] = lambda: "NVIDIA_GB10"
    spec.loader.exec_module(module)
    for dtype in (None, "fp8_w8a8"):
        for block in (None, (128, 128)):
            theirs = module.get_config_file_name(512, 256, dtype, list(block) if block else None)
            assert file_name(512, 256, "NVIDIA_GB10", dtype, block) == theirs
