"""Let each of vLLM's workers choose for its model as it would on a GB10, on a machine without one: a plugin of vLLM.

Before a worker loads the model for its CPU, vLLM's own functions choose the FP8 linear kernel and the FP8 MoE backend
on a CUDA platform that reports capability 12.1 and "NVIDIA GB10", and look for the MoE configuration. Whatever they
print and record (the markers and the record of a patched vLLM, "Using configuration from …") is theirs, in the process
that serves: an unpatched vLLM, or one without the file, prints no such line. Afterwards the platform is the CPU again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What the CUDA build's compiled queries answer for capability 12.1 (vLLM 0.32.0, CUDA 13).
COMPILED = {
    "cutlass_scaled_mm_supports_fp8": True,
    "cutlass_scaled_mm_supports_block_fp8": True,
    "cutlass_scaled_mm_supports_fp4": True,
    "cutlass_group_gemm_supported": False,
}


def import_selectors() -> None:
    """Load vLLM's selectors, and what they load, as the CPU build can: with the platform that this machine has."""
    for name in ("kernels.linear", "layers.fused_moe.fused_moe", "layers.fused_moe.oracle.fp8"):
        importlib.import_module(f"vllm.model_executor.{name}")
    from vllm.model_executor.layers.fused_moe.oracle import fp8

    for backend in fp8.Fp8MoeBackend:
        with contextlib.suppress(Exception):
            fp8.backend_to_kernel_cls(backend)


def become_a_gb10() -> None:
    """Put a CUDA platform with a GB10's answers everywhere where a loaded vLLM module holds the current platform."""
    sys.modules["vllm._C_stable_libtorch"] = types.ModuleType("vllm._C_stable_libtorch")
    import torch
    from vllm.platforms.cuda import CudaPlatformBase
    from vllm.platforms.interface import DeviceCapability

    class Gb10(CudaPlatformBase):  # type: ignore[misc]  # vLLM is not installed where this is checked
        device_name = "cuda"

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
            return DeviceCapability(12, 1)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return "NVIDIA GB10"

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return 128 << 30

        @classmethod
        def device_count(cls) -> int:
            return 1

    for name, answer in COMPILED.items():
        setattr(torch.ops._C, name, lambda _capability, answer=answer: answer)
    take_platform(Gb10())


def take_platform(platform: Any) -> None:
    """Put a platform everywhere where a loaded vLLM module holds the current one."""
    import vllm.platforms

    vllm.platforms._current_platform = platform
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.") and "current_platform" in vars(module):
            vars(module)["current_platform"] = platform


def caches() -> dict[int, tuple[Any, int]]:
    """The cached functions of all loaded vLLM modules, and how much each has kept."""
    values = [
        v for n, m in list(sys.modules.items()) if n.startswith("vllm.") for v in list(vars(m).values())
    ]
    found = (value for value in values if isinstance(value, functools._lru_cache_wrapper))
    return {id(function): (function, function.cache_info().currsize) for function in found}


@contextlib.contextmanager
def as_a_gb10() -> Iterator[None]:
    """Inside, vLLM runs on a GB10; what it has learned there is forgotten afterwards."""
    import torch
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.config.kernel import KernelConfig
    from vllm.platforms import current_platform

    import_selectors()
    before = caches()
    wanted = json.loads(os.environ.get("SIM_BACKENDS") or "{}")
    try:
        become_a_gb10()
        config = VllmConfig(kernel_config=KernelConfig(**wanted))
        with set_current_vllm_config(config):
            yield
    finally:
        take_platform(current_platform)
        del sys.modules["vllm._C_stable_libtorch"]
        for name in COMPILED:
            delattr(torch.ops._C, name)
        for function, kept in caches().values():
            if kept > before.get(id(function), (None, 0))[1]:
                function.cache_clear()


def model_config(model: str, revision: str | None) -> dict[str, Any]:
    """config.json of a directory or of a model in the hub's cache; an empty dict if there is none."""
    path = Path(model) / "config.json"
    if not path.is_file():
        from huggingface_hub import try_to_load_from_cache  # type: ignore[import-not-found]

        cached = try_to_load_from_cache(model, "config.json", revision=revision)
        if not isinstance(cached, str):
            return {}
        path = Path(cached)
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def fp8_scheme(config: dict[str, Any]) -> tuple[str, list[int] | None]:
    """("channel" | "tensor" | "block" | "", block shape) of the model's FP8 quantisation."""
    quantization = config.get("quantization_config") or {}
    if quantization.get("quant_method") == "fp8":
        block = quantization.get("weight_block_size")
        return ("block", list(block)) if block else ("tensor", None)
    for group in (quantization.get("config_groups") or {}).values():
        weights = group.get("weights") or {}
        if weights.get("type") == "float" and weights.get("num_bits") == 8:
            return str(weights.get("strategy")), weights.get("block_structure")
    return "", None


def choose_linear(scheme: str, hidden: int, tp: int) -> None:
    import torch
    from vllm.model_executor.kernels import linear
    from vllm.model_executor.layers.quantization.utils import quant_utils as keys

    weight, activation, kernels, name = {
        "channel": (
            keys.kFp8StaticChannelSym,
            keys.kFp8DynamicTokenSym,
            linear._POSSIBLE_FP8_KERNELS,
            "fp8_w8a8",
        ),
        "tensor": (
            keys.kFp8StaticTensorSym,
            keys.kFp8StaticTensorSym,
            linear._POSSIBLE_FP8_KERNELS,
            "fp8_w8a8",
        ),
        "block": (
            keys.kFp8Static128BlockSym,
            keys.kFp8Dynamic128Sym,
            linear._POSSIBLE_FP8_BLOCK_KERNELS,
            "fp8_block_w8a8",
        ),
    }[scheme]
    config = linear.FP8ScaledMMLinearLayerConfig(
        weight_quant_key=weight,
        activation_quant_key=activation,
        input_dtype=torch.bfloat16,
        out_dtype=torch.bfloat16,
        weight_shape=(hidden // tp, hidden),
    )
    try:
        kernel = linear.choose_scaled_mm_linear_kernel(config, kernels, quantization=name)
        print(f"[simulated GB10] FP8 linear kernel chosen by vLLM: {kernel.__name__}", flush=True)
    except ValueError as error:
        print(f"[simulated GB10] vLLM found no FP8 linear kernel: {error}", flush=True)


def choose_moe(config: dict[str, Any], scheme: str, block: list[int] | None, tp: int, backend: str) -> None:
    import torch
    from vllm.model_executor.layers.fused_moe import config as moe
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.fused_moe import get_moe_configs
    from vllm.model_executor.layers.fused_moe.oracle.fp8 import select_fp8_moe_backend
    from vllm.model_executor.layers.quantization.utils import quant_utils as keys

    experts, width = int(config["num_experts"]), int(config["moe_intermediate_size"])
    weight, activation = {
        "channel": (keys.kFp8StaticChannelSym, keys.kFp8DynamicTokenSym),
        "tensor": (keys.kFp8StaticTensorSym, keys.kFp8StaticTensorSym),
        "block": (keys.kFp8Static128BlockSym, keys.kFp8Dynamic128Sym),
    }[scheme]
    parallel = moe.FusedMoEParallelConfig(
        tp_size=tp,
        pcp_size=1,
        dp_size=1,
        ep_size=1,
        tp_rank=0,
        pcp_rank=0,
        dp_rank=0,
        ep_rank=0,
        sp_size=1,
        use_ep=False,
        all2all_backend="allgather_reducescatter",
        enable_eplb=False,
    )
    layer = moe.FusedMoEConfig(
        num_experts=experts,
        experts_per_token=int(config["num_experts_per_tok"]),
        hidden_dim=int(config["hidden_size"]),
        intermediate_size=width,
        num_local_experts=experts,
        num_logical_experts=experts,
        activation=MoEActivation.SILU,
        device="cpu",
        routing_method=moe.RoutingMethodType.Renormalize,
        moe_parallel_config=parallel,
        in_dtype=torch.bfloat16,
        moe_backend=backend,
    )
    try:
        chosen = select_fp8_moe_backend(layer, weight, activation)
        print(f"[simulated GB10] FP8 MoE backend chosen by vLLM: {chosen[0].value}", flush=True)
    except (NotImplementedError, ValueError) as error:
        print(f"[simulated GB10] vLLM found no FP8 MoE backend: {error}", flush=True)
    get_moe_configs(experts, width // tp, "fp8_w8a8", *(block or (None, None)))


def choose(model: str, revision: str | None, tp: int) -> None:
    """All choices for a model; a model without FP8 has none."""
    config = model_config(model, revision)
    scheme, block = fp8_scheme(config)
    if scheme not in ("channel", "tensor", "block"):
        return
    backend = json.loads(os.environ.get("SIM_BACKENDS") or "{}").get("moe_backend", "auto")
    with as_a_gb10():
        choose_linear(scheme, int(config["hidden_size"]), tp)
        if "num_experts" in config:
            choose_moe(config, scheme, block, tp, backend)


def register() -> None:
    """vLLM calls this in each of its processes; only a worker loads a model."""
    from vllm.v1.worker.gpu_worker import Worker

    load = Worker.load_model

    @functools.wraps(load)
    def load_model(self: Any, *words: Any, **more: Any) -> Any:
        config = self.vllm_config
        choose(
            config.model_config.model,
            config.model_config.revision,
            config.parallel_config.tensor_parallel_size,
        )
        return load(self, *words, **more)

    Worker.load_model = load_model
