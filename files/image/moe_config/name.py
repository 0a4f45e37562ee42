"""name: a forecast, from config.json alone, of the tuned file that vLLM will look for and of the markers it will print.

vLLM may decide otherwise; what a running server did is in its record (sm121_patch/record.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from . import ConfigError
from .model import Model, load
from .quant import LINEAR_ROUTED, MOE_ROUTED, Quantization, detect

DEVICE = "NVIDIA_GB10"
_CONFIGS = Path("model_executor/layers/fused_moe/configs")
_INSTALLED = Path("/app/vllm")


@dataclass(frozen=True)
class Answer:
    """What `name` prints; paths are those of this container."""

    model: str
    quantization: str
    is_moe: bool
    file: str | None
    found: str | None
    searched: list[str]
    similar: list[str]
    expected_markers: list[str]
    reason: str


def file_name(
    experts: int,
    size: int,
    device: str = DEVICE,
    dtype: str | None = None,
    block: tuple[int, int] | None = None,
) -> str:
    """vLLM's name of a tuned file: experts and intermediate size as one GPU holds them."""
    name = f"E={experts},N={size},device_name={device}"
    if dtype:
        name += f",dtype={dtype}"
    if block:
        name += f",block_shape=[{block[0]},{block[1]}]"
    return name + ".json"


def local_shape(model: Model, tp: int, ep: int) -> tuple[int, int]:
    """(experts, intermediate size) on the first GPU: tensor parallelism splits sizes, expert parallelism experts.

    With an uneven number of experts vLLM gives the first ranks one more.
    """
    if ep > 1:
        return -(-model.experts // ep), model.expert_size
    if model.expert_size % tp:
        raise ConfigError(
            f"The expert size {model.expert_size} of {model.name} is not divisible by {tp}: choose another --tp."
        )
    return model.experts, model.expert_size // tp


def refined_block(block: tuple[int, int], size: int, hidden: int, tp: int) -> tuple[int, int]:
    """The block shape that vLLM from 0.29 on uses for a shard that is not a whole number of blocks."""
    if size % block[0] == 0 and (tp == 1 or size % block[1] == 0):
        return block
    side = math.gcd(*block, size, hidden)
    return (side, side) if side >= 32 else block


def search_path(root: Path | None) -> list[Path]:
    """The directories in vLLM's order: VLLM_TUNED_CONFIG_FOLDER, then the installed package's own."""
    places = []
    if os.environ.get("VLLM_TUNED_CONFIG_FOLDER"):
        places.append(Path(os.environ["VLLM_TUNED_CONFIG_FOLDER"]))
    if root is None and (_INSTALLED / "vllm").is_dir():
        root = _INSTALLED
    if root is None:
        spec = importlib.util.find_spec("vllm")
        found = list(spec.submodule_search_locations or []) if spec else []
        root = Path(found[0]).parent if found else None
    if root is not None:
        places.append(root / "vllm" / _CONFIGS)
    return places


def _file_for(model: Model, quant: Quantization, tp: int, ep: int, device: str) -> tuple[str | None, str]:
    """(file name or None, reason)."""
    if not model.is_moe:
        return None, "The model has no experts, so vLLM looks for no file."
    experts, size = local_shape(model, tp, ep)
    split = f"{ep} expert-parallel ranks" if ep > 1 else f"tensor parallel size {tp}"
    what = f"{model.experts} experts of size {model.expert_size} at {split}"
    if quant.experts == "none":
        return file_name(experts, size, device), f"Unquantised experts, {what}."
    if quant.experts not in MOE_ROUTED:
        return None, f"Experts quantised as {quant.experts} use no tuned Triton file."
    block = refined_block(quant.block, size, model.hidden_size, 1 if ep > 1 else tp) if quant.block else None
    return file_name(experts, size, device, "fp8_w8a8", block), f"{quant.experts} experts, {what}."


def _markers(model: Model, quant: Quantization, options: argparse.Namespace) -> list[str]:
    """The routes that will probably announce themselves: not those switched off or overruled by an explicit backend."""

    def is_active(switch: str, backend: str) -> bool:
        return os.environ.get(switch, "").strip().lower() != "auto" and backend == "auto"

    markers = []
    if quant.linear in LINEAR_ROUTED and is_active("DGX_VLLM_FP8_LINEAR", options.linear_backend):
        markers.append("linear")
    if model.is_moe and quant.experts in MOE_ROUTED and is_active("DGX_VLLM_FP8_MOE", options.moe_backend):
        markers.append("moe")
    return markers


def answer(options: argparse.Namespace) -> Answer:
    """The answer for parsed options."""
    model = load(options.model, options.revision)
    quant = detect(model)
    file, reason = _file_for(model, quant, options.tp, options.ep, options.device)
    places = search_path(options.root)
    present = {
        path: place for place in reversed(places) if place.is_dir() for path in _names(place, options.device)
    }
    found = str(present[file] / file) if file in present else None
    if file and not found:
        reason += (
            f" {file} is in none of the directories searched: ship it, tune it, or accept vLLM's default."
        )
    similar = sorted(name for name in present if name != file)
    return Answer(
        model=options.model,
        quantization=quant.kind,
        is_moe=model.is_moe,
        file=file,
        found=found,
        searched=[str(place) for place in places],
        similar=similar if file else [],
        expected_markers=_markers(model, quant, options),
        reason=reason,
    )


def _names(place: Path, device: str) -> list[str]:
    return [p.name for p in place.iterdir() if f"device_name={device}" in p.name and p.suffix == ".json"]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--model", required=True, metavar="DIR_OR_HF_ID")
    parser.add_argument("--revision", default="main", help="branch or commit of a Hugging Face id")
    parser.add_argument("--tp", type=_positive, default=1, metavar="N", help="tensor parallel size")
    parser.add_argument("--ep", type=_positive, default=1, metavar="N", help="expert parallel size (1: off)")
    parser.add_argument("--device", default=DEVICE, help="GPU name as vLLM writes it in file names")
    parser.add_argument(
        "--linear-backend", default="auto", help="the server's --linear-backend, if it has one"
    )
    parser.add_argument("--moe-backend", default="auto", help="the server's --moe-backend, if it has one")
    parser.add_argument("--root", type=Path, help="directory that holds vllm/ (default: the installed one)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the answer."""
    result = asdict(answer(options))
    if options.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    return 0
