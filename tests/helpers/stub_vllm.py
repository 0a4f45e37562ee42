"""Run vLLM's own selector modules without torch, CUDA or the rest of vLLM.

The files named in REAL are executed from a source tree; every other module under `vllm` and `torch` is a stand-in
whose attributes are classes that accept anything. What a test cares about (platform, kernels that work, explicit
backends) is set on a World.
"""

from __future__ import annotations

import enum
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

REAL = (
    "vllm._dgx_vllm_record",
    "vllm._dgx_vllm_sm121",
    "vllm.model_executor.kernels.linear",
    "vllm.model_executor.kernels.linear.scaled_mm.pytorch",
    "vllm.model_executor.layers.fused_moe.oracle.fp8",
    "vllm.model_executor.layers.quantization.kernels.scaled_mm",
    "vllm.model_executor.layers.quantization.kernels.scaled_mm.pytorch",
    "vllm.model_executor.layers.quantization.utils.w8a8_utils",
)


class PlatformEnum(enum.Enum):
    """The members that the selectors name."""

    CUDA = enum.auto()
    ROCM = enum.auto()
    CPU = enum.auto()
    XPU = enum.auto()


class CompilationMode(enum.IntEnum):
    """Order as in vLLM."""

    NONE = 0
    VLLM_COMPILE = 3


class Capability(NamedTuple):
    """vLLM's DeviceCapability."""

    major: int
    minor: int

    def to_int(self) -> int:
        return self.major * 10 + self.minor


class Platform:
    """vLLM's platform object for one GPU of a capability, or for the CPU (None)."""

    def __init__(self, capability: tuple[int, int] | None) -> None:
        self._capability = Capability(*capability) if capability else None
        self._enum = PlatformEnum.CUDA if capability else PlatformEnum.CPU

    def is_cuda(self) -> bool:
        return self._capability is not None

    is_cuda_alike = is_cuda
    supports_fp8 = is_cuda

    def is_cpu(self) -> bool:
        return self._capability is None

    def is_rocm(self) -> bool:
        return False

    is_xpu = is_tpu = is_rocm
    is_fp8_fnuz = is_rocm

    def get_device_capability(self, device_id: int = 0) -> Capability | None:
        return self._capability

    def has_device_capability(self, wanted: int, device_id: int = 0) -> bool:
        return self._capability is not None and self._capability.to_int() >= wanted

    def is_device_capability(self, wanted: int, device_id: int = 0) -> bool:
        return self._capability is not None and self._capability.to_int() == wanted

    def is_device_capability_family(self, wanted: int, device_id: int = 0) -> bool:
        return self._capability is not None and self._capability[0] == wanted // 10


class _Anything(type):
    """Class attributes appear when asked for; the same name is the same object."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Anything(name, (Stub,), {})
        setattr(cls, name, made)
        return made


class Stub(metaclass=_Anything):
    """A class that accepts every call; as a kernel it supports everything."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:
        return True, None

    @classmethod
    def can_implement(cls, config: Any) -> tuple[bool, str | None]:
        return True, None


@dataclass
class World:
    """What the stand-ins answer."""

    platform: Platform
    linear_backend: str = "auto"
    linear_backend_per_quant: dict[str, str] | None = None
    experts_supported: Sequence[str] = ("TritonOrCutlassExperts", "TritonExperts", "MarlinExperts")
    env: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kernel_config = types.SimpleNamespace(
            linear_backend=self.linear_backend, linear_backend_per_quant=self.linear_backend_per_quant
        )
        config = types.SimpleNamespace(
            kernel_config=kernel_config,
            model_config=None,
            compilation_config=types.SimpleNamespace(mode=CompilationMode.VLLM_COMPILE),
        )

        def answer(value: Any) -> Callable[..., Any]:
            return lambda *args, **kwargs: value

        self.values = {
            "current_platform": self.platform,
            "PlatformEnum": PlatformEnum,
            "CompilationMode": CompilationMode,
            "get_current_vllm_config": answer(config),
            "get_current_vllm_config_or_none": answer(config),
            "init_logger": answer(_Logger()),
            "prioritize_humming": lambda kernels, *args: kernels,
            "prefers_humming": answer(False),
            "should_auto_disable_deep_gemm": answer(False),
            "is_deep_gemm_supported": answer(False),
            "has_deep_gemm": answer(False),
            "has_flashinfer": answer(False),
            "has_flashinfer_moe": answer(False),
            "is_supported_config_trtllm": answer((False, "not here")),
            "is_supported_config_trtllm_fp8": answer((False, "not here")),
            "cutlass_group_gemm_supported": answer(True),
            "cutlass_scaled_mm_supports_fp8": answer(True),
            **self.values,
        }

    def experts(self, name: str) -> Any:
        """An experts class as the FP8 MoE selector sees it."""
        supported = name in self.experts_supported

        def is_supported_config(cls: type, *args: Any) -> tuple[bool, str | None]:
            return supported, None if supported else "a stand-in says no"

        return _Anything(name, (Stub,), {"is_supported_config": staticmethod(is_supported_config)})


class _Logger:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class _StubModule(types.ModuleType):
    world: World

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__name__ in ("vllm", "torch.nn"):
            raise AttributeError(name)
        if self.__name__ == "vllm.envs":
            if name == "is_set":
                return lambda variable: variable in self.world.env
            return self.world.env.get(name, [] if name == "VLLM_DISABLED_KERNELS" else False)
        if name in self.world.values:
            return self.world.values[name]
        made = self.world.experts(name) if "Experts" in name else _Anything(name, (Stub,), {})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, root: Path, world: World) -> None:
        self.root = root
        self.world = world

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] not in ("vllm", "torch"):
            return None
        if name in REAL:
            base = self.root / name.replace(".", "/")
            for file in (base.with_suffix(".py"), base / "__init__.py"):
                if file.is_file():
                    places = [str(base)] if file.name == "__init__.py" else None
                    return importlib.util.spec_from_file_location(
                        name, file, submodule_search_locations=places
                    )
            if name.startswith("vllm._dgx_vllm_"):
                return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = _StubModule(spec.name)
        module.__dict__["world"] = self.world
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


@contextmanager
def stubbed(root: Path, world: World) -> Iterator[Callable[[str], Any]]:
    """Inside, the yielded import function gives REAL modules of the tree at `root` under this world."""

    def ours(name: str) -> bool:
        return name.split(".")[0] in ("vllm", "torch")

    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if ours(name)}
    finder = _Finder(root, world)
    written = sys.dont_write_bytecode
    sys.meta_path.insert(0, finder)
    sys.dont_write_bytecode = True
    try:
        yield importlib.import_module
    finally:
        sys.dont_write_bytecode = written
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(kept)
