"""Class G: of a repository, what vLLM reads. Listings in the shape of public ones, sizes in GiB."""

from __future__ import annotations

import re

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model import selection
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.selection import (
    Wanted,
    needed,
    weight_bytes,
)

from helpers import vllm_sources


def shards(form: str, count: int, size: float) -> dict[str, float]:
    return {form.format(number, count): size for number in range(1, count + 1)}


GPT_OSS = {
    "README.md": 0, "config.json": 0, "tokenizer.json": 0, "model.safetensors.index.json": 0,
    **shards("model-{:05}-of-{:05}.safetensors", 15, 4.3), "metal/model.bin": 65,
    "original/config.json": 0, **shards("original/model--{:05}-of-{:05}.safetensors", 7, 9.3),
}  # fmt: skip
MISTRAL = {
    "params.json": 0, "config.json": 0, "tekken.json": 0, "consolidated.safetensors": 48,
    "model.safetensors.index.json": 0, **shards("model-{:05}-of-{:05}.safetensors", 10, 4.8),
}  # fmt: skip
TWO_FORMATS = {
    "config.json": 0, "model.safetensors": 2, "pytorch_model.bin": 2, "tf_model.h5": 2, "flax_model.msgpack": 2,
    "onnx/model.onnx": 2, "training_args.bin": 0, "vocab.txt": 0,
}  # fmt: skip
LLAMA = {
    "config.json": 0, "model.safetensors.index.json": 0, **shards("model-{:05}-of-{:05}.safetensors", 4, 4),
    "original/consolidated.00.pth": 16, "original/params.json": 0, "original/tokenizer.model": 0,
}  # fmt: skip
EMBEDDING = {"config.json": 0, "modules.json": 0, "model.safetensors": 1.2, "2_Dense/model.safetensors": 0.01}
AUDIO = {
    "config.json": 0, "model.safetensors.index.json": 0, "model-1-of-35.safetensors": 19,
    "whisper/model.safetensors": 3,
}  # fmt: skip
GGUF = {"README.md": 0, "m-Q4_K_M.gguf": 40, "m-Q8_0.gguf": 80, "BF16/m-00001-of-00002.gguf": 100}
DIFFUSERS = {"model_index.json": 0, "transformer/a.safetensors": 30, "vae/b.safetensors": 1}


def index(sizes: dict[str, float]) -> set[str] | None:
    named = {name for name in sizes if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)}
    return named if "model.safetensors.index.json" in sizes else None


@pytest.mark.parametrize(
    ("sizes", "dropped", "read"),
    [
        (GPT_OSS, {name for name in GPT_OSS if "/model" in name}, 64.5),
        (MISTRAL, set(index(MISTRAL) or ()), 48),
        (TWO_FORMATS, {"pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx"}, 2),
        (LLAMA, {"original/consolidated.00.pth"}, 16),
        (EMBEDDING, set(), 1.2),
        (AUDIO, set(), 19),
        (GGUF, set(), 220),
        (DIFFUSERS, set(), 31),
        ({"params.json": 0, "consolidated.safetensors": 7}, set(), 7),
        ({"config.json": 0, "pytorch_model.bin": 3, "optimizer.pt": 6}, {"optimizer.pt"}, 3),
    ],
)
def test_class_g_what_is_fetched_and_counted(sizes: dict[str, float], dropped: set[str], read: float) -> None:
    whole = {name: int(size * 1000) for name, size in sizes.items()}
    assert set(sizes) - needed(whole, index(sizes), Wanted()) - {"training_args.bin"} == dropped
    assert weight_bytes(whole, index(sizes), "auto") == pytest.approx(read * 1000, abs=15)


def test_the_load_format_decides() -> None:
    whole = {name: int(size) for name, size in MISTRAL.items()}
    kept = needed(whole, index(MISTRAL), Wanted(load_format="safetensors"))
    assert "consolidated.safetensors" not in kept and "model-00001-of-00010.safetensors" in kept
    both = {**GGUF, "config.json": 0, "model.safetensors": 160}
    whole = {name: int(size) for name, size in both.items()}
    assert not any(name.endswith("K_M.gguf") for name in needed(whole, None, Wanted()))
    assert needed(whole, None, Wanted(load_format="gguf")) == set(both), "another loader: nothing is known"


def test_the_operators_patterns_win() -> None:
    whole = dict.fromkeys(GGUF, 1)
    assert needed(whole, None, Wanted(include=("*Q4_K_M.gguf", "README.md"))) == {
        "m-Q4_K_M.gguf",
        "README.md",
    }
    assert needed(whole, None, Wanted(exclude=("BF16/", "*Q8*"))) == {"m-Q4_K_M.gguf", "README.md"}


def test_an_index_that_cannot_be_had_leaves_all_weights_of_the_root() -> None:
    whole = {name: int(size * 10) for name, size in GPT_OSS.items()}
    assert not {name for name in GPT_OSS if "/model" in name} & needed(whole, None, Wanted())


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {}}', b"\xff"]
)
def test_no_index(content: bytes) -> None:
    assert selection.named_by(content) is None


@pytest.mark.parametrize("version", vllm_sources.versions(*vllm_sources.ALL_VERSIONS))
def test_the_rule_is_that_of_each_release(version: str) -> None:
    """The patterns of vLLM's default loader, in its order."""
    text = (vllm_sources.fetch(version) / "vllm/model_executor/model_loader/default_loader.py").read_text()
    assert 'allow_patterns=["consolidated*.safetensors"]' in text
    assert 'allow_patterns = ["*.safetensors", "*.bin"]' in text and 'allow_patterns += ["*.pt"]' in text
    assert f'index_file = "{selection.MISTRAL_INDEX}"' in text
    for name in selection.NOT_WEIGHTS:
        helper = vllm_sources.fetch(version) / "vllm/model_executor/model_loader/weight_utils.py"
        assert f'"{name}"' in helper.read_text()
