"""Detect a model's quantisation from its configuration, for its experts and for its other linear layers.

Kinds: none, fp8-channel, fp8-tensor, fp8-block, nvfp4, other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from . import ConfigError
from .model import Model, quantization_config, tensor_names

#: Kinds whose linear layers the patch sends to torch, and whose experts it sends to Triton.
LINEAR_ROUTED = ("fp8-channel", "fp8-tensor")
MOST_LAYERS = 10_000
MOE_ROUTED = ("fp8-channel", "fp8-tensor", "fp8-block")

_MODELOPT = {
    "FP8": "fp8-tensor",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8-channel",
    "FP8_PB_WO": "fp8-block",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
}


@dataclass(frozen=True)
class Quantization:
    """Kinds of the experts and of the other linear layers; block is (n, k) for fp8-block, else None."""

    experts: str
    linear: str
    block: tuple[int, int] | None

    @property
    def kind(self) -> str:
        """The kind to name the model by: that of the experts, or of the linear layers if the experts have none."""
        return self.experts if self.experts != "none" else self.linear


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _block(value: Any) -> tuple[int, int] | None:
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(n, int) and n > 0 for n in value)
    ):
        return value[0], value[1]
    return None


def _group_kind(group: dict[str, Any]) -> tuple[str, tuple[int, int] | None]:
    """Kind of one config group of compressed-tensors."""
    weights = group.get("weights")
    weights = weights if isinstance(weights, dict) else {}
    inputs = group.get("input_activations")
    bits, kind, strategy = weights.get("num_bits"), weights.get("type"), weights.get("strategy")
    if kind == "float" and bits == 4:
        return "nvfp4" if weights.get("group_size") == 16 else "other", None
    if kind == "float" and bits == 8 and isinstance(inputs, dict) and inputs.get("num_bits", 8) == 8:
        if strategy == "block":
            return "fp8-block", _block(weights.get("block_structure")) or (128, 128)
        if strategy in ("channel", "tensor"):
            return f"fp8-{strategy}", None
    return "other", None


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], name) is not None
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(
                f"The pattern {pattern!r} of the ignore list is not valid ({error}): correct config.json."
            ) from None
    return name == pattern or name.startswith(pattern + ".") or name.endswith("." + pattern)


def _excluded(model: Model, section: dict[str, Any]) -> bool:
    """Whether the ignore list excludes the attention output projection of every layer.

    Used without weights at hand: that projection is the one linear layer that nearly every model has.
    """
    ignored = []
    for key in ("ignore", "ignored_layers", "modules_to_not_convert", "exclude_modules", "exclude"):
        value = section.get(key)
        ignored += [str(item) for item in value] if isinstance(value, list) else []
    if not ignored:
        return False
    patterns = [
        p if p.startswith("re:") or "*" not in p else "re:" + re.escape(p).replace(r"\*", ".*")
        for p in ignored
    ]
    layers = model.text.get("num_hidden_layers")
    for layer in range(min(layers, MOST_LAYERS) if isinstance(layers, int) else 1):
        names = []
        for prefix in ("model.layers", "model.language_model.layers", "language_model.model.layers"):
            for tail in ("self_attn.o_proj", "linear_attn.out_proj"):
                names.append(f"{prefix}.{layer}.{tail}")
        if not any(_matches(pattern, name) for name in names for pattern in patterns):
            return False
    return True


def _compressed(section: dict[str, Any]) -> tuple[str, str, tuple[int, int] | None]:
    """(experts, linear, block): a group whose targets name experts is theirs, the others are the rest's."""
    groups = section.get("config_groups")
    groups = [g for g in groups.values() if isinstance(g, dict)] if isinstance(groups, dict) else []
    experts = linear = ""
    block = None
    for group in groups:
        kind, shape = _group_kind(group)
        targets = " ".join(str(target) for target in _list(group.get("targets")))
        if "expert" in targets and "shared_expert" not in targets:
            experts, block = kind, shape
        elif "attn" in targets:
            linear = kind
        else:
            linear = linear or kind
            if not experts:
                experts, block = kind, shape
    return experts or "other", linear or "other", block


def detect(model: Model) -> Quantization:
    """The quantisation of a model; weights on disk, if there are any, decide what its linear layers are."""
    section = quantization_config(model)
    if not section:
        return Quantization("none", "none", None)
    method = str(section.get("quant_method", "")).lower()
    block = None
    if method == "compressed-tensors":
        experts, linear, block = _compressed(section)
    elif method == "fp8":
        block = _block(section.get("weight_block_size"))
        experts = linear = "fp8-block" if block else "fp8-tensor"
    elif method == "fbgemm_fp8":
        experts = linear = "fp8-channel"
    elif method.startswith("modelopt"):
        algorithm = str(section.get("quant_algo", "")).upper()
        experts = linear = _MODELOPT.get(algorithm, "other")
        block = (128, 128) if experts == "fp8-block" else None
    else:
        experts = linear = "other"
    names = tensor_names(model)
    if names:
        scaled = [n for n in names if re.search(r"\.weight_scale(_inv|_2)?$", n)]
        if not any(not _of_expert(name) for name in scaled):
            linear = "none"
        if model.is_moe and not any(_of_expert(name) for name in scaled):
            experts = "none"
    elif _excluded(model, section):
        linear = "none"
    if not model.is_moe:
        experts, block = "none", block if linear == "fp8-block" else None
    return Quantization(experts, linear, block)


def _of_expert(name: str) -> bool:
    return re.search(r"\.experts\.", name) is not None
