#!/usr/bin/env python3
"""Models with random weights for the trial, one folder each below DIR; what is there already stays.

    gen_model.py DIR      prints {name: {"gib", "layers", "seconds"}}

fp8-channel (MoE, a scale a channel), fp8-block (MoE, 128 x 128), bf16 (MoE) and dense (no experts, FP8 per channel),
with the expert layer of Qwen3-Next-80B-A3B (512 x 512, hidden 2048, top-10), and the first one again as a hub's cache
keeps it. Needs torch and safetensors; seconds on a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import toy

HIDDEN, EXPERTS, SIZE, BLOCK = 2048, 512, 512, 128
KINDS = {"fp8-channel": 2, "fp8-block": 1, "bf16": 1, "dense": 2}
"""Name -> layers."""
HUB = "DevQuasar/Qwen.Qwen3-Next-80B-A3B-Instruct-FP8-Dynamic"
REVISION = "0" * 40
WORDS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Tokens that the parsers of Qwen3 look for; they take the last numbers of the vocabulary."""
FP8_MAX = 448.0


class Weights:
    """The tensors of one model, made one after the other from one seed."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.generator = torch.Generator(device=self.device).manual_seed(0)
        self.tensors: dict[str, torch.Tensor] = {}

    def random(self, rows: int, columns: int, std: float = 0.02) -> torch.Tensor:
        return torch.randn(rows, columns, generator=self.generator, device=self.device) * std

    def plain(self, name: str, value: torch.Tensor) -> None:
        self.tensors[name] = value.to(torch.bfloat16).cpu()

    def linear(self, name: str, rows: int, columns: int, std: float = 0.02) -> None:
        """A weight in the form that the kind asks for."""
        weight = self.random(rows, columns, std)
        if self.kind == "bf16":
            self.plain(f"{name}.weight", weight)
        elif self.kind == "fp8-block":
            tiles = weight.view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
            scale = tiles.abs().amax((1, 3), keepdim=True) / FP8_MAX
            self.tensors[f"{name}.weight"] = (tiles / scale).view(rows, columns).to(torch.float8_e4m3fn).cpu()
            self.tensors[f"{name}.weight_scale_inv"] = scale[:, 0, :, 0].contiguous().cpu()
        else:
            scale = weight.abs().amax(1, keepdim=True) / FP8_MAX
            self.tensors[f"{name}.weight"] = (weight / scale).to(torch.float8_e4m3fn).cpu()
            self.plain(f"{name}.weight_scale", scale)


def weights(kind: str, layers: int) -> dict[str, torch.Tensor]:
    """Every tensor of a model."""
    made = Weights(kind)
    made.plain("model.embed_tokens.weight", made.random(toy.VOCABULARY, HIDDEN, 1.0))
    made.plain("lm_head.weight", made.random(toy.VOCABULARY, HIDDEN, 0.05))
    made.plain("model.norm.weight", torch.ones(HIDDEN))
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for norm, size in (("input_layernorm", HIDDEN), ("post_attention_layernorm", HIDDEN),
                           ("self_attn.q_norm", 128), ("self_attn.k_norm", 128)):  # fmt: skip
            made.plain(f"{prefix}{norm}.weight", torch.ones(size))
        for name, rows, columns in (("q_proj", 2048, HIDDEN), ("k_proj", 256, HIDDEN),
                                    ("v_proj", 256, HIDDEN), ("o_proj", HIDDEN, 2048)):  # fmt: skip
            made.linear(f"{prefix}self_attn.{name}", rows, columns)
        if kind == "dense":
            blocks, size = [f"{prefix}mlp."], 5120
        else:
            made.plain(f"{prefix}mlp.gate.weight", made.random(EXPERTS, HIDDEN))
            blocks, size = [f"{prefix}mlp.experts.{number}." for number in range(EXPERTS)], SIZE
        for block in blocks:
            made.linear(f"{block}gate_proj", size, HIDDEN)
            made.linear(f"{block}up_proj", size, HIDDEN)
            # Large enough that an error in the experts shows in the tokens.
            made.linear(f"{block}down_proj", HIDDEN, size, 0.08)
    return made.tensors


def settings(kind: str, folder: Path) -> None:
    """Turn the files of tests/gpu/toy.py into those of the kind, with a chat template and the parsers' tokens."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 262144
    if kind == "bf16":
        del config["quantization_config"]
    if kind == "fp8-block":
        gates = [f"model.layers.{number}.mlp.gate" for number in range(config["num_hidden_layers"])]
        config["quantization_config"] = {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "weight_block_size": [BLOCK, BLOCK],
            "modules_to_not_convert": ["lm_head", *gates],
        }
    if kind == "dense":
        config.update(architectures=["Qwen3ForCausalLM"], model_type="qwen3")
        of_experts = ("moe", "mlp", "decoder", "norm_topk", "num_experts")
        for name in [name for name in config if name.startswith(of_experts)]:
            del config[name]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    for number, word in enumerate(WORDS, toy.VOCABULARY - len(WORDS)):
        del vocabulary[f"t{number}"]
        vocabulary[word] = number
        tokenizer["added_tokens"].append(
            {"id": number, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}
        )  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["chat_template"] = "{% for message in messages %}{{ message.content }} {% endfor %}"
    file.write_text(json.dumps(content), encoding="utf-8")


def make(directory: Path, kind: str, layers: int) -> dict[str, Any]:
    """One model; its size, and the seconds it took (0 if it was there)."""
    folder, start = directory / kind, time.monotonic()
    if not (folder / "model.safetensors").exists():
        unfinished = directory / f".{kind}"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        toy.write(unfinished, layers)
        settings(kind, unfinished)
        save_file(weights(kind, layers), str(unfinished / "model.safetensors"), metadata={"format": "pt"})
        unfinished.rename(folder)
    size = (folder / "model.safetensors").stat().st_size
    return {"gib": round(size / 2**30, 2), "layers": layers, "seconds": round(time.monotonic() - start, 1)}


def hub_cache(directory: Path, source: Path) -> None:
    """The first model under the name of a hub's model, in the layout of a hub's cache."""
    target = directory / "hub" / f"models--{HUB.replace('/', '--')}"
    snapshot = target / "snapshots" / REVISION
    if snapshot.exists():
        return
    (target / "refs").mkdir(parents=True, exist_ok=True)
    (target / "refs" / "main").write_text(REVISION, encoding="utf-8")
    unfinished = target / "snapshots" / ".new"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, copy_function=os.link)
    unfinished.rename(snapshot)


def main() -> int:
    """Make all of them."""
    directory = Path(sys.argv[1])
    made = {kind: make(directory, kind, layers) for kind, layers in KINDS.items()}
    hub_cache(directory, directory / "fp8-channel")
    print(json.dumps(made, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
