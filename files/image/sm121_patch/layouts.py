"""Where each vLLM release makes the two decisions, and what is inserted there.

A layout is the shape of the code in a range of releases. It fits a file only when the function exists with exactly
these parameters, the functions it relies on have exactly the parameters named, and its anchor statement
occurs exactly once at the top level of the function's body.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_W8A8_UTILS = "vllm/model_executor/layers/quantization/utils/w8a8_utils.py"
_SCALED_MM = "vllm/model_executor/layers/quantization/kernels/scaled_mm/__init__.py"
_LINEAR = "vllm/model_executor/kernels/linear/__init__.py"
_FP8_ORACLE = "vllm/model_executor/layers/fused_moe/oracle/fp8.py"
_FUSED_MOE = "vllm/model_executor/layers/fused_moe/fused_moe.py"
_WORKER = "vllm/v1/worker/gpu_worker.py"

_HELPER = "_dgx_vllm_sm121"
HELPER_FILE = f"vllm/{_HELPER}.py"
_RECORD = "_dgx_vllm_record"
RECORD_FILE = f"vllm/{_RECORD}.py"
_IMPORT = f"from vllm import {_HELPER} as _dgx_routes\n"


@dataclass(frozen=True)
class Layout:
    """One known shape of a routing function."""

    route: str
    releases: str
    file: str
    function: str
    params: tuple[str, ...]
    anchor: str
    is_anchor: Callable[[ast.stmt], bool]
    code: str
    after: bool = False
    relies_on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _if_on(text: str) -> Callable[[ast.stmt], bool]:
    return lambda stmt: isinstance(stmt, ast.If) and text in ast.unparse(stmt.test)


def _for_over(iterable: str) -> Callable[[ast.stmt], bool]:
    return lambda stmt: isinstance(stmt, ast.For) and ast.unparse(stmt.iter) == iterable


def _choose_kernel(kernels: str, backend: str) -> str:
    return (
        _IMPORT
        + f"""
_dgx_kernel = _dgx_routes.linear_kernel(
    platform=current_platform,
    kernels={kernels},
    torch_kernels=(
        PerTensorTorchFP8ScaledMMLinearKernel,
        ChannelWiseTorchFP8ScaledMMLinearKernel,
    ),
    can_use=lambda kernel: is_supported_and_can_implement_kernel(
        kernel, config, compute_capability
    )[0],
    config=config,
    compute_capability=compute_capability,
    linear_backend={backend},
)
if _dgx_kernel is not None:
    return _dgx_kernel
"""
    )


_CHOOSE = "choose_scaled_mm_linear_kernel"
_CHOOSE_PARAMS = ("config", "possible_kernels", "compute_capability", "force_kernel")
_CAN_IMPLEMENT = {"is_supported_and_can_implement_kernel": ("kernel", "config", "compute_capability")}
_OWN_LIST = "possible_kernels[current_platform._enum]"

_MOE_14 = (
    _IMPORT
    + """
if _dgx_routes.moe_route(current_platform):
    logger.info_once(_make_log_backend("Triton"), scope="local")
    return Fp8MoeBackend.TRITON
"""
)

# vLLM 0.15 has no current_platform in this module, so it is imported there.
_MOE_15 = (
    _IMPORT
    + """from vllm.platforms import current_platform as _dgx_platform

_dgx_choice = _dgx_routes.moe_choice(
    platform=_dgx_platform,
    available=AVAILABLE_BACKENDS,
    wanted=(Fp8MoeBackend.TRITON, Fp8MoeBackend.BATCHED_TRITON),
    kernel_classes=backend_to_kernel_cls,
    can_use=lambda experts: experts.is_supported_config(
        experts, config, weight_key, activation_key, activation_format
    )[0],
)
if _dgx_choice is not None:
    logger.info_once(_make_log_backend(_dgx_choice[0]))
    return _dgx_choice
"""
)

_ROUTE_LAYOUTS: tuple[Layout, ...] = (
    Layout(
        route="linear",
        releases="0.14",
        file=_W8A8_UTILS,
        function="Fp8LinearOp.__init__",
        params=("self", "act_quant_static", "act_quant_group_shape", "pad_output"),
        anchor="if current_platform.is_rocm(): … (the choice of self.preferred_backend)",
        is_anchor=lambda s: (
            _if_on("current_platform.is_rocm()")(s) and "self.preferred_backend = 'torch'" in ast.unparse(s)
        ),
        code=_IMPORT
        + """
self.preferred_backend = _dgx_routes.linear_backend(
    current_platform, self.preferred_backend
)
""",
        after=True,
    ),
    Layout(
        route="linear",
        releases="0.15-0.16",
        file=_SCALED_MM,
        function=_CHOOSE,
        params=_CHOOSE_PARAMS,
        anchor=f"for kernel in {_OWN_LIST}:",
        is_anchor=_for_over(_OWN_LIST),
        code=_choose_kernel(_OWN_LIST, '"auto"'),
        relies_on=_CAN_IMPLEMENT,
    ),
    Layout(
        route="linear",
        releases="0.17-0.21",
        file=_LINEAR,
        function=_CHOOSE,
        params=_CHOOSE_PARAMS,
        anchor=f"for kernel in {_OWN_LIST}:",
        is_anchor=_for_over(_OWN_LIST),
        code=_choose_kernel(_OWN_LIST, '"auto"'),
        relies_on=_CAN_IMPLEMENT,
    ),
    Layout(
        route="linear",
        releases="0.22-0.29",
        file=_LINEAR,
        function=_CHOOSE,
        params=_CHOOSE_PARAMS,
        anchor="for kernel in platform_kernels:",
        is_anchor=_for_over("platform_kernels"),
        code=_choose_kernel("platform_kernels", "_get_linear_backend()"),
        relies_on={**_CAN_IMPLEMENT, "_get_linear_backend": ()},
    ),
    Layout(
        route="linear",
        releases="0.30-0.33",
        file=_LINEAR,
        function=_CHOOSE,
        params=(*_CHOOSE_PARAMS, "*", "quantization"),
        anchor="for kernel in platform_kernels:",
        is_anchor=_for_over("platform_kernels"),
        code=_choose_kernel("platform_kernels", "_get_linear_backend(quantization=quantization)"),
        relies_on={**_CAN_IMPLEMENT, "_get_linear_backend": ("*", "quantization")},
    ),
    Layout(
        route="moe",
        releases="0.14",
        file=_FP8_ORACLE,
        function="select_fp8_moe_backend",
        params=("block_quant", "tp_size", "with_lora_support", "is_act_and_mul", "allow_vllm_cutlass"),
        anchor="if allow_vllm_cutlass and not block_quant and cutlass_group_gemm_supported():",
        is_anchor=_if_on("cutlass_group_gemm_supported()"),
        code=_MOE_14,
    ),
    Layout(
        route="moe",
        releases="0.15-0.33",
        file=_FP8_ORACLE,
        function="select_fp8_moe_backend",
        params=("config", "weight_key", "activation_key", "allow_vllm_cutlass"),
        anchor="for backend in AVAILABLE_BACKENDS:",
        is_anchor=_for_over("AVAILABLE_BACKENDS"),
        code=_MOE_15,
        relies_on={"backend_to_kernel_cls": ("backend",)},
    ),
)

_LOADS = "self.model_runner.load_model("


def _census(releases: str, params: tuple[str, ...]) -> Layout:
    """After a worker has loaded its model, whatever loader did it; the CPU's worker inherits this one."""
    return Layout(
        route="census",
        releases=releases,
        file=_WORKER,
        function="Worker.load_model",
        params=params,
        anchor=f"with …: {_LOADS}…)",
        is_anchor=lambda stmt: isinstance(stmt, ast.With) and _LOADS in ast.unparse(stmt),
        code=f"""from vllm import {_RECORD} as _dgx_record

_dgx_record.loaded(self.model_runner)
""",
        after=True,
    )


LAYOUTS: tuple[Layout, ...] = (
    *_ROUTE_LAYOUTS,
    Layout(
        route="moe_config",
        releases="0.14-0.33",
        file=_FUSED_MOE,
        function="get_moe_configs",
        params=("E", "N", "dtype", "block_n", "block_k"),
        anchor="for config_file_path in config_file_paths:",
        is_anchor=_for_over("config_file_paths"),
        code=f"""from vllm import {_RECORD} as _dgx_record

_dgx_record.moe_config(json_file_name, config_file_paths)
""",
    ),
    _census("0.14-0.18", ("self",)),
    _census("0.19-0.33", ("self", "*", "load_dummy_weights")),
)

#: The two that choose, and the two that the record needs; all of them or none.
ROUTES = ("linear", "moe", "moe_config", "census")
