"""Read what a model's own files say: config.json, hf_quant_config.json, and the names of its tensors."""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import ConfigError

_NESTED = ("text_config", "llm_config", "language_config", "language_model")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")
_EXPERT_SIZE = ("moe_intermediate_size", "expert_intermediate_size", "moe_ffn_hidden_size", "ffn_hidden_size")
_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True)
class Model:
    """A model directory and its parsed configuration; sizes in elements, 0 if the model has none."""

    name: str
    directory: Path
    config: dict[str, Any]
    text: dict[str, Any]
    experts: int
    expert_size: int
    hidden_size: int

    @property
    def is_moe(self) -> bool:
        """Whether the model has routed experts."""
        return self.experts > 1


def _models_home() -> Path:
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"])
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]) / "hub"
    if Path("/models").is_dir():
        return Path("/models/hub")
    return Path.home() / ".cache" / "huggingface" / "hub"


def find_directory(name: str, revision: str = "main") -> Path:
    """The directory of a model given as a path or as a Hugging Face id that is in the local cache."""
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+|[\w.-]+", name):
        raise ConfigError(f"{name} is neither a directory nor a Hugging Face id: check --model.")
    cache = _models_home()
    base = cache / ("models--" + name.replace("/", "--"))
    ref = base / "refs" / revision
    snapshots = sorted((base / "snapshots").glob("*")) if (base / "snapshots").is_dir() else []
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    for snapshot in snapshots:
        if snapshot.name == commit or (len(snapshots) == 1 and revision == "main"):
            return snapshot
    raise ConfigError(
        f"{name} at revision {revision} is not in {cache}: download it first, or give its directory."
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): download the model again.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error}): download the model again.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a JSON object: download the model again.")
    return data


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of config.json that describes the language model."""
    for outer in (config, config.get("thinker_config")):
        if not isinstance(outer, dict):
            continue
        for key in _NESTED:
            inner = outer.get(key)
            if isinstance(inner, dict) and ("hidden_size" in inner or _number(inner, _EXPERTS)):
                return inner
    return config


def _number(config: dict[str, Any], keys: tuple[str, ...]) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, list) and value:
            value = max((item for item in value if isinstance(item, int)), default=0)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def load(name: str, revision: str = "main") -> Model:
    """Read a model's configuration; ConfigError if it is missing or cannot be read."""
    directory = find_directory(name, revision)
    config = _read_json(directory / "config.json")
    text = _text_config(config)
    experts = _number(text, _EXPERTS)
    size = _number(text, _EXPERT_SIZE) or (_number(text, ("intermediate_size",)) if experts else 0)
    return Model(name, directory, config, text, experts, size, _number(text, ("hidden_size",)))


def quantization_config(model: Model) -> dict[str, Any]:
    """The quantisation section wherever the model keeps it; {} if it has none."""
    for part in (model.config, model.text):
        for key in ("quantization_config", "compression_config"):
            section = part.get(key)
            if isinstance(section, dict) and section:
                return section
    separate = model.directory / "hf_quant_config.json"
    if separate.is_file():
        section = _read_json(separate).get("quantization")
        if isinstance(section, dict):
            return {"quant_method": "modelopt", **section}
    return {}


def tensor_names(model: Model) -> list[str]:
    """Names of the model's tensors, from the index or the safetensors headers; [] if there are no weights."""
    index = model.directory / "model.safetensors.index.json"
    if index.is_file():
        weights = _read_json(index).get("weight_map")
        return list(weights) if isinstance(weights, dict) else []
    names: list[str] = []
    for path in sorted(model.directory.glob("*.safetensors")):
        try:
            with path.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                if length > _HEADER_LIMIT:
                    raise ValueError("header too long")
                header = json.loads(stream.read(length))
            if not isinstance(header, dict):
                raise ValueError("its header is not an object")
            names += [key for key in header if key != "__metadata__"]
        except (OSError, ValueError, RecursionError, struct.error) as error:
            raise ConfigError(
                f"{path} is not a complete safetensors file ({error}): download it again."
            ) from None
    return names
