"""Records as vLLM's processes keep them, made by the patch's own code: its routes decide, its census counts."""

from __future__ import annotations

import copy
import json
import os
import types
from collections.abc import Iterator
from typing import Any

from sm121_patch import record, runtime

from helpers.stub_vllm import Platform

GB10 = Platform((12, 1))
CONFIGS = "/app/vllm/vllm/model_executor/layers/fused_moe/configs"
FILE = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
TORCH = "ChannelWiseTorchFP8ScaledMMLinearKernel"
CUTLASS = "CutlassFP8ScaledMMLinearKernel"


def vllm_class(name: str, bases: tuple[type, ...] = (), module: str = "layers.x") -> type:
    return type(name, bases, {"__module__": f"vllm.model_executor.{module}"})


class Model:
    """A model as torch shows it: modules by name."""

    def __init__(self, *modules: Any) -> None:
        self.modules = modules

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        return iter([(str(number), module) for number, module in enumerate(self.modules)])


def linear(kernel: str, method: str = "CompressedTensorsW8A8Fp8") -> Any:
    """A linear layer; schemes of compressed-tensors hold their kernel beside the method."""
    layer = vllm_class("QKVParallelLinear", (vllm_class("LinearBase"),))()
    scheme = method.startswith("CompressedTensors")
    layer.quant_method = vllm_class("CompressedTensorsLinearMethod" if scheme else method)()
    holder = layer.quant_method
    if scheme:
        holder = layer.scheme = vllm_class(method)()
    if kernel:
        holder.fp8_linear = vllm_class(kernel, module="kernels.linear.scaled_mm.pytorch")()
    return layer


def experts(
    backend: str,
    method: str = "Fp8MoEMethod",
    classes: str = "TritonExperts",
    enum: str = "Fp8MoeBackend",
    shape: tuple[int, int] = (512, 256),
) -> Any:
    """A layer of experts."""
    layer = vllm_class("FusedMoE")()
    layer.local_num_experts, layer.intermediate_size_per_partition = shape
    layer.quant_method = vllm_class(method)()
    layer.quant_method.layer = layer
    layer.quant_method.backend = vllm_class(enum)()
    layer.quant_method.backend.name = backend
    layer.quant_method.moe_kernel = vllm_class("FusedMoEKernel")()
    layer.quant_method.moe_kernel.impl = vllm_class("FusedMoEKernelModularImpl")()
    layer.quant_method.moe_kernel.impl.fused_experts = vllm_class(classes)()
    return layer


class Process:
    """A process of vLLM with our patch: what it decides and loads goes into its record."""

    def __init__(self, platform: Platform = GB10) -> None:
        self.platform = platform
        record._record.clear()

    def asks_linear(self, block: bool = False, backend: str = "auto", others: bool = False) -> Process:
        """The selector of linear layers asks for a route; `others` are kernels of another layer type."""
        shape = types.SimpleNamespace(row=1, col=128 if block else -1)
        key = types.SimpleNamespace(scale=types.SimpleNamespace(group_shape=shape))
        kernels = [vllm_class("TritonInt8ScaledMMLinearKernel" if others else TORCH)]
        runtime.linear_kernel(
            self.platform,
            kernels,
            [] if others else kernels,
            lambda kernel: True,
            types.SimpleNamespace(activation_quant_key=key, weight_quant_key=key),
            None,
            backend,
        )
        return self

    def asks_moe(self, supported: bool = True) -> Process:
        """The selector of FP8 experts asks for a route."""
        backend = types.SimpleNamespace(name="TRITON")
        runtime.moe_choice(self.platform, [backend], [backend], lambda _: [object()], lambda _: supported)
        return self

    def looks_for(self, file: str, found: bool, tmp: Any) -> Process:
        """A layer looks for a MoE config; what is found is a file below `tmp`."""
        place = tmp / file
        if found:
            place.write_text("{}", encoding="utf-8")
        record.moe_config(file, [str(place), f"{CONFIGS}/{file}"])
        return self

    def loads(self, *modules: Any, draft: Any = ()) -> Process:
        """A worker has loaded a model, and a draft model with it."""
        drafter = types.SimpleNamespace(model=Model(*draft)) if draft else None
        record.loaded(types.SimpleNamespace(model=Model(*modules), drafter=drafter))
        return self

    def record(self) -> dict[str, Any]:
        """Its record, as the file has it."""
        found: dict[str, Any] = json.loads(json.dumps(record.current()))
        record._record.clear()
        return found


def fp8_moe(tmp: Any) -> Process:
    """FP8 per channel with experts, all as it should be on a GB10."""
    process = Process().asks_linear().asks_moe().looks_for(FILE, True, tmp)
    return process.loads(linear(TORCH), experts("TRITON", shape=(512, 512)))


def entry(content: dict[str, Any], **given: Any) -> dict[str, Any]:
    """What inside.py prints of a record whose process lives."""
    base = {"pid": content["pid"], "born": content["born"], "text": json.dumps(content)}
    return {**base, **given}


def inside(*records: dict[str, Any], promised: bool = True, **given: Any) -> dict[str, Any]:
    """What inside.py prints: a manifest, these entries, and the shipped MoE config."""
    names = ("linear", "moe", "moe_config", "census") if promised else ("linear", "moe")
    manifest = {
        "patch_version": "2" if promised else "1",
        "vllm_version": "0.33.0",
        "routes": [{"name": name, "state": "patched"} for name in names],
    }
    return {
        "manifest": {"text": json.dumps(manifest)},
        "records": list(records),
        "shipped": [FILE],
        "tuned": [],
        **copy.deepcopy(given),
    }


def someone_elses_pid() -> int:
    """A pid that is not this process's."""
    return os.getpid() + 1
