"""vLLM's own selectors out of a patched or unpatched source tree, asked under a world of stand-ins."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sm121_patch import engine

from helpers.stub_vllm import Stub, World, stubbed

Tree = Callable[[str], Path]


class Shape(NamedTuple):
    """vLLM's GroupShape."""

    row: int
    col: int

    def is_per_tensor(self) -> bool:
        return self == (-1, -1)

    def is_per_group(self) -> bool:
        return self.row == 1 and self.col >= 1


def layer(activation: tuple[int, int], weight: tuple[int, int]) -> Any:
    def key(shape: tuple[int, int]) -> Any:
        return types.SimpleNamespace(scale=types.SimpleNamespace(group_shape=Shape(*shape)))

    return types.SimpleNamespace(
        activation_quant_key=key(activation), weight_quant_key=key(weight), out_dtype=None, input_dtype=None
    )


PER_CHANNEL = layer((1, -1), (-1, 1))
PER_TENSOR = layer((-1, -1), (-1, -1))
BLOCK = layer((1, 128), (128, 128))


def patched(tree: Tree, version: str) -> Path:
    root = tree(version)
    engine.apply(root, root.parent / "manifest.json")
    return root


def choose_linear(root: Path, world: World, config: Any = PER_CHANNEL, kernels: str = "FP8") -> str:
    """Name of the backend or kernel that vLLM takes for a linear layer."""
    minor = int(engine.vllm_version(root).split(".")[1])
    with stubbed(root, world) as load:
        if minor == 14:
            module = load("vllm.model_executor.layers.quantization.utils.w8a8_utils")
            return str(module.Fp8LinearOp(act_quant_static=False).preferred_backend)
        where = "kernels.linear" if minor >= 17 else "layers.quantization.kernels.scaled_mm"
        module = load(f"vllm.model_executor.{where}")
        extra = {"quantization": "fp8_w8a8"} if minor >= 30 else {}
        return str(
            module.choose_scaled_mm_linear_kernel(
                config, getattr(module, f"_POSSIBLE_{kernels}_KERNELS"), **extra
            ).__name__
        )


def choose_moe(root: Path, world: World, **config: Any) -> str:
    """Name of the FP8 MoE backend that vLLM takes."""
    minor = int(engine.vllm_version(root).split(".")[1])
    with stubbed(root, world) as load:
        module = load("vllm.model_executor.layers.fused_moe.oracle.fp8")
        if minor == 14:
            arguments: dict[str, Any] = {"block_quant": False, "tp_size": 1, "with_lora_support": False}
            return str(module.select_fp8_moe_backend(**{**arguments, **config}, allow_vllm_cutlass=True).name)
        parallel = types.SimpleNamespace(
            use_batched_activation_format=False, ep_size=1, use_deepep_v2_kernels=False
        )
        values = {"moe_backend": "auto", "is_lora_enabled": False, "moe_parallel_config": parallel, **config}
        backend, experts = module.select_fp8_moe_backend(
            types.SimpleNamespace(**values), Stub(), Stub(), allow_vllm_cutlass=True
        )
        assert experts is not None and not isinstance(experts, list)
        return str(backend.name)


def is_torch(name: str) -> bool:
    return "torch" in name.lower()
