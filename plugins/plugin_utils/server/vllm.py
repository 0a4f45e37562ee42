"""Which variable of the role becomes which environment variable or which flag of `vllm serve`: all of them.

The image's entry point turns MODEL, HOST, PORT and their like into flags (files/image/entrypoint.py lists them). What
has no variable there is a word of VLLM_EXTRA_ARGS, which the entry point hands to `vllm serve` as it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.replica import serve_arguments
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import Node, Row, Settings

Pair = tuple[str, str]

STOP_MARGIN = 15
"""Seconds that vLLM needs to end after it has waited for its requests, before Docker kills it."""

OVERRIDABLE = {
    # FlashInfer compiles with as many nvcc as there are cores plus two, several GiB each (flashinfer#3634).
    "MAX_JOBS": "4",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # Compiled kernels outlive the container, which is removed at every stop: the driver's, and those of libraries that
    # go by the XDG cache folder.
    "CUDA_CACHE_PATH": "/cache/nv",
    "CUDA_CACHE_MAXSIZE": "4294967296",
    "XDG_CACHE_HOME": "/cache/xdg",
}
"""Variables that dgx_vllm_extra_env may replace."""


def environment(settings: Settings, words: Sequence[str], fabric: Mapping[str, str]) -> list[Pair]:
    """Names and values of vllm.env, in its order.

    `words` are the arguments of `vllm serve`; `fabric` is what the node's rails need.
    """
    return [
        ("MODEL", str(settings["dgx_vllm_model"])),
        ("HOST", str(settings["dgx_vllm_host"])),
        ("PORT", str(settings["dgx_vllm_port"])),
        ("TENSOR_PARALLEL_SIZE", str(settings["dgx_vllm_tensor_parallel_size"])),
        ("GPU_MEMORY_UTIL", str(settings["dgx_vllm_gpu_memory_utilization"])),
        *_if_set("MAX_MODEL_LEN", settings["dgx_vllm_max_model_len"], unset=0),
        *_if_set("MAX_NUM_SEQS", settings["dgx_vllm_max_num_seqs"], unset=0),
        *_if_set("SHUTDOWN_TIMEOUT", max(0, int(settings["dgx_vllm_stop_timeout"]) - STOP_MARGIN), unset=0),
        ("VLLM_EXTRA_ARGS", " ".join(shlex.quote(word) for word in words)),
        ("DGX_VLLM_FP8_LINEAR", str(settings["dgx_vllm_fp8_linear"])),
        ("DGX_VLLM_FP8_MOE", str(settings["dgx_vllm_fp8_moe"])),
        ("HF_HOME", "/models"),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_MODULES_CACHE", "/cache/huggingface"),
        ("VLLM_CACHE_ROOT", "/cache/vllm"),
        ("TRITON_CACHE_DIR", "/cache/triton"),
        ("TORCHINDUCTOR_CACHE_DIR", "/cache/inductor"),
        ("FLASHINFER_WORKSPACE_BASE", "/cache/flashinfer"),
        *((name, value) for name, value in OVERRIDABLE.items() if name not in settings["dgx_vllm_extra_env"]),
        *([("VLLM_TUNED_CONFIG_FOLDER", "/tuned")] if settings["dgx_vllm_tuned_config_dir"] else []),
        *_if_set("VLLM_API_KEY", settings["dgx_vllm_api_key"], unset=""),
        *_sorted(fabric),
        *_sorted(settings["dgx_vllm_extra_env"]),
    ]


def arguments(settings: Settings, row: Row, node: Node) -> list[str]:
    """Arguments of `vllm serve`; the operator's own are the last ones, so that they win."""
    flags = [
        *_if_set("--revision", revision(settings, node), unset=""),
        *_if_set("--kv-cache-dtype", settings["dgx_vllm_kv_cache_dtype"], unset="auto"),
        *_if_set("--kv-cache-memory-bytes", settings["dgx_vllm_kv_cache_memory_bytes"], unset=0),
    ]
    parser = settings["dgx_vllm_tool_call_parser"]
    tools = ["--enable-auto-tool-choice", "--tool-call-parser", parser] if parser else []
    reasoning = _if_set("--reasoning-parser", settings["dgx_vllm_reasoning_parser"], unset="")
    words = [
        "--served-model-name",
        *node["served_names"],
        *(word for flag in flags for word in flag),
        *tools,
        *(word for flag in reasoning for word in flag),
        *serve_arguments(row),
        *settings["dgx_vllm_extra_args"],
    ]
    return [str(word) for word in words]


def on_hub(settings: Settings) -> bool:
    """Whether the model is one of a hub, not a folder of the node."""
    return not str(settings["dgx_vllm_model"]).startswith("/")


def revision(settings: Settings, node: Node) -> str:
    """The commit of the model that is on the node, else what the operator wrote; '' for a folder."""
    return str(node["commit"] or settings["dgx_vllm_model_revision"]) if on_hub(settings) else ""


def _if_set(name: str, value: Any, unset: int | str) -> list[Pair]:
    """Name and value, or nothing for the value that leaves vLLM its own default; numbers count from `unset` up."""
    given = int(value) > unset if isinstance(unset, int) else str(value) != unset
    return [(name, str(value))] if given else []


def _sorted(variables: Mapping[str, Any]) -> list[Pair]:
    pairs = [(str(name), "" if value is None else str(value)) for name, value in variables.items()]
    return sorted(pairs, key=lambda pair: pair[0].lower())
