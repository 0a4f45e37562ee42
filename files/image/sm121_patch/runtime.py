"""Routes for capability 12.1 (NVIDIA GB10), added to vLLM by dgx-vllm's sm121_patch.

Called by patched functions while layers are constructed, so torch.compile does not see it; what they decide goes
into the record of the process (record.py). Everything here answers "leave vLLM's own choice alone" unless the platform
is CUDA with capability 12.1 and the switch of that route asks for it.

Environment:
  DGX_VLLM_FP8_LINEAR          torch (default) | auto: per-tensor and per-channel FP8 linear layers
  DGX_VLLM_FP8_MOE             triton (default) | auto: FP8 mixture-of-experts layers
  DGX_VLLM_ASSUME_CAPABILITY   for example 12.1: tests and trials only, decides as if the GPU had it
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

if __package__ == "vllm":
    from vllm import _dgx_vllm_record as record
else:
    from . import record

LINEAR_MARKER = "[vLLM SM_121] Detected GB10 (SM_121) - using torch backend for FP8 linear layers"
MOE_MARKER = "[vLLM SM_121] Detected GB10 (SM_121) - using Triton backend for MOE layers"
CAPABILITY = (12, 1)
_SWITCHES = {"linear": ("DGX_VLLM_FP8_LINEAR", "torch"), "moe": ("DGX_VLLM_FP8_MOE", "triton")}

_printed: set[str] = set()


def _print_once(line: str) -> None:
    """Print to stdout, once per process, without buffering: `docker logs` shows it."""
    if line not in _printed:
        _printed.add(line)
        print(line, flush=True)


def _switch(name: str, route: str) -> bool:
    """Whether the environment switch `name` asks for `route` (its default) and not for `auto`."""
    value = os.environ.get(name, "").strip().lower() or route
    if value not in (route, "auto"):
        raise ValueError(f"{name}={value!r} is not a route: set it to '{route}' or 'auto'.")
    return value == route


def _assumed_capability() -> tuple[int, int] | None:
    text = os.environ.get("DGX_VLLM_ASSUME_CAPABILITY", "").strip()
    if not text:
        return None
    major, dot, minor = text.partition(".")
    if not (dot and major.isdigit() and minor.isdigit()):
        raise ValueError(f"DGX_VLLM_ASSUME_CAPABILITY={text!r} is not a capability: write it as 12.1.")
    _print_once(
        f"[dgx-vllm] WARNING: DGX_VLLM_ASSUME_CAPABILITY={text}: routes are chosen as if this GPU had "
        f"capability {text}; for tests and trials only, unset it in production"
    )
    return int(major), int(minor)


def _capability(platform: Any, compute_capability: int | None) -> tuple[int, int] | None:
    """(major, minor); `compute_capability` (121 for 12.1) wins over the platform's, an assumed one over both."""
    assumed = _assumed_capability()
    if assumed is not None:
        return assumed
    if compute_capability is not None:
        return divmod(compute_capability, 10)
    found = platform.get_device_capability()
    return None if found is None else (found[0], found[1])


def _reason_to_leave(layer: str, platform: Any, compute_capability: int | None = None) -> tuple[str, str]:
    """(why, detail) when vLLM's own choice is left alone, ("", "") when the route applies on this platform."""
    variable, route = _SWITCHES[layer]
    if not _switch(variable, route):
        return "auto", variable
    if not platform.is_cuda():
        return "not CUDA", ""
    capability = _capability(platform, compute_capability)
    record.platform(capability, _assumed_capability() is not None)
    if capability != CAPABILITY:
        return "other capability", "unknown" if capability is None else "{}.{}".format(*capability)
    return "", ""


def _is_block_scaled(config: Any) -> bool:
    """True for group-wise activation or block-wise weight scales, which the torch kernels cannot take."""
    for key in (config.activation_quant_key, config.weight_quant_key):
        shape = key.scale.group_shape
        if shape.row > 1 or shape.col > 1:
            return True
    return False


def linear_backend(platform: Any, preferred: str) -> str:
    """vLLM 0.14: the value for Fp8LinearOp.preferred_backend."""
    why, detail = _reason_to_leave("linear", platform)
    if why:
        record.decided("linear", why, preferred, detail)
        return preferred
    _print_once(LINEAR_MARKER)
    record.decided("linear", "routed", "torch")
    return "torch"


def linear_kernel(
    platform: Any,
    kernels: Iterable[type],
    torch_kernels: Sequence[type],
    can_use: Callable[[type], bool],
    config: Any,
    compute_capability: int | None,
    linear_backend: str,
) -> type | None:
    """The torch kernel for a per-tensor or per-channel FP8 layer on 12.1, or None for vLLM's own choice.

    `kernels` are the candidates of this layer type: INT8 and block-FP8 layers have none of `torch_kernels`
    among theirs. A `linear_backend` other than "auto" is the user's choice and is kept.
    """
    candidates = [kernel for kernel in kernels if kernel in torch_kernels]
    if linear_backend != "auto":
        why, detail = "explicit", linear_backend
    elif not candidates:
        why, detail = "other layer", ""
    else:
        why, detail = _reason_to_leave("linear", platform, compute_capability)
        if not why and _is_block_scaled(config):
            why = "block-scaled"
    if not why:
        for kernel in candidates:
            if can_use(kernel):
                _print_once(LINEAR_MARKER)
                record.decided("linear", "routed", kernel.__name__)
                return kernel
        why = "unsupported"
    record.decided("linear", why, "", detail)
    return None


def moe_route(platform: Any) -> bool:
    """vLLM 0.14: whether the automatic choice of an FP8 MoE backend should be Triton."""
    why, detail = _reason_to_leave("moe", platform)
    if why:
        record.decided("moe", why, "", detail)
        return False
    _print_once(MOE_MARKER)
    record.decided("moe", "routed", "TRITON")
    return True


def moe_choice(
    platform: Any,
    available: Iterable[Any],
    wanted: Sequence[Any],
    kernel_classes: Callable[[Any], Any],
    can_use: Callable[[Any], bool],
) -> tuple[Any, Any] | None:
    """(backend, experts class) of the first Triton backend that takes this layer, or None.

    Reached only after vLLM has honoured an explicit backend. `kernel_classes` returns a class up to vLLM
    0.17 and a list of classes from 0.18.
    """
    why, detail = _reason_to_leave("moe", platform)
    if why:
        record.decided("moe", why, "", detail)
        return None
    present = list(available)
    for backend in wanted:
        if backend not in present:
            continue
        found = kernel_classes(backend)
        for experts in found if isinstance(found, list) else [found]:
            if can_use(experts):
                _print_once(MOE_MARKER)
                record.decided("moe", "routed", getattr(backend, "name", str(backend)))
                return backend, experts
    record.decided("moe", "unsupported")
    return None
