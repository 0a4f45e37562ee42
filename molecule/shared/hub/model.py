#!/usr/bin/env python3
"""Make the testbed's model repositories: tiny models whose config.json a GB10's checks accept as real.

ROOT/<owner>/<name>/<revision>/ holds one revision's files; `main` is the newest. The weights file holds
tensors of the right names and shapes, not all of them: the simulated server loads dummy weights, so it is only read
for its header.
"""

from __future__ import annotations

import json
import struct
import sys
from itertools import islice, product
from pathlib import Path
from typing import Any

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 2048  # 256 bytes, the specials, and words, so that random weights answer in something like words
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_alphabet() -> list[str]:
    """The 256 printable characters that byte-level BPE tokenizers write for the 256 bytes."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) if byte in shown else chr(256 + hidden.index(byte)) for byte in range(256)]


def words(count: int) -> list[str]:
    """That many different made-up words of two syllables, each with the space before it."""
    syllables = [a + b for b in "aeiou" for a in "bdfgklmnprstvz"]
    return ["Ġ" + first + second for first, second in islice(product(syllables, reversed(syllables)), count)]


def tokenizer() -> dict[str, Any]:
    """A byte-level BPE tokenizer without merges: text goes in as one token per byte, and only words come out."""
    vocabulary = {character: index for index, character in enumerate(byte_alphabet())}
    first = len(vocabulary) + len(SPECIALS)
    vocabulary |= {word: first + index for index, word in enumerate(words(VOCABULARY - first))}
    added = [
        {
            "id": 256 + i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, text in enumerate(SPECIALS)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 4096,
        "chat_template": TEMPLATE,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(256 + i): {"content": text, "special": True} for i, text in enumerate(SPECIALS)
        },
    }


def fp8_dynamic() -> dict[str, Any]:
    """What llm-compressor writes for FP8-Dynamic: static weights per channel, dynamic activations per token."""
    common = {
        "num_bits": 8,
        "type": "float",
        "symmetric": True,
        "group_size": None,
        "block_structure": None,
        "actorder": None,
        "observer_kwargs": {},
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": ["lm_head", "re:.*mlp.gate$"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "output_activations": None,
                "weights": {**common, "strategy": "channel", "dynamic": False, "observer": "minmax"},
                "input_activations": {**common, "strategy": "token", "dynamic": True, "observer": None},
            }
        },
    }


def moe_config(experts: int = 512, width: int = 512) -> dict[str, Any]:
    """A Qwen3-MoE of two narrow layers; by default with Qwen3-Next-80B's expert shape (E=512, N=512)."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "torch_dtype": "bfloat16",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "num_experts": experts,
        "moe_intermediate_size": width,
        "num_experts_per_tok": 10,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "router_aux_loss_coef": 0.001,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": VOCABULARY,
        "bos_token_id": 256,
        "eos_token_id": 258,
        "quantization_config": fp8_dynamic(),
    }


def dense_config() -> dict[str, Any]:
    """A Qwen3 without experts and without quantisation: it prints no marker and needs no MoE config."""
    moe_only = {
        "num_experts",
        "moe_intermediate_size",
        "num_experts_per_tok",
        "norm_topk_prob",
        "decoder_sparse_step",
        "mlp_only_layers",
        "router_aux_loss_coef",
        "quantization_config",
    }
    config = {key: value for key, value in moe_config().items() if key not in moe_only}
    return {**config, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}


def tensors(config: dict[str, Any]) -> dict[str, tuple[str, list[int]]]:
    """Names, dtypes and shapes of some of the model's tensors: attention, and the first two experts of each layer."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    groups = config["num_key_value_heads"] * config["head_dim"]
    projections = {
        "q_proj": (heads, hidden),
        "k_proj": (groups, hidden),
        "v_proj": (groups, hidden),
        "o_proj": (hidden, heads),
    }
    modules = {f"self_attn.{name}": shape for name, shape in projections.items()}
    if "num_experts" in config:
        width = config["moe_intermediate_size"]
        for expert in range(2):
            modules |= {
                f"mlp.experts.{expert}.{name}": shape
                for name, shape in {
                    "gate_proj": (width, hidden),
                    "up_proj": (width, hidden),
                    "down_proj": (hidden, width),
                }.items()
            }
    quantized = "quantization_config" in config
    shapes: dict[str, tuple[str, list[int]]] = {
        "model.embed_tokens.weight": ("BF16", [config["vocab_size"], hidden])
    }
    for layer in range(config["num_hidden_layers"]):
        for name, (rows, columns) in modules.items():
            stem = f"model.layers.{layer}.{name}"
            shapes[f"{stem}.weight"] = ("F8_E4M3" if quantized else "BF16", [rows, columns])
            if quantized:
                shapes[f"{stem}.weight_scale"] = ("BF16", [rows, 1])
    return shapes


def safetensors(config: dict[str, Any]) -> bytes:
    """A safetensors file with the tensors above and fixed contents, about half a MiB."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors(config).items():
        start, end = end, end + shape[0] * shape[1] * (2 if dtype == "BF16" else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pattern = bytes(i * 37 & 0x3F for i in range(256))
    return struct.pack("<Q", len(text)) + text + (pattern * (end // 256 + 1))[:end]


def write_repository(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": config,
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": tokenizer_config(),
        "generation_config.json": {"eos_token_id": 258, "pad_token_id": 256},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(safetensors(config))


def main(root: Path) -> None:
    unloadable = {
        **moe_config(),
        "architectures": ["NoSuchArchitectureForCausalLM"],
        "model_type": "no_such_type",
    }
    repositories = {
        "testbed/tiny-moe-fp8": moe_config(),
        "testbed/gated-moe-fp8": moe_config(),
        "testbed/other-shape-fp8": moe_config(experts=96, width=320),
        "testbed/dense-bf16": dense_config(),
        "testbed/unloadable": unloadable,
    }
    for name, config in repositories.items():
        write_repository(root / name / "main", config)
    # A second revision, to be pinned: same weights, other generation defaults.
    write_repository(root / "testbed/tiny-moe-fp8/v1.0", {**moe_config(), "max_position_embeddings": 2048})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
