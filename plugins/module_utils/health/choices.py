"""What a user chose by an option, and layers that hold something else than the routes give without anybody's choice."""

from __future__ import annotations

import re
from typing import Mapping, Pattern

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.record import Layers, Record, Records
from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve import arguments as serve_arguments

ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "linear": ("VLLM_TEST_FORCE_FP8_MARLIN", "VLLM_BATCH_INVARIANT"),
    "moe": (
        "VLLM_USE_DEEP_GEMM",
        "VLLM_MOE_USE_DEEP_GEMM",
        "VLLM_USE_FLASHINFER_MOE_FP8",
        "VLLM_FLASHINFER_MOE_BACKEND",
        "VLLM_TEST_FORCE_FP8_MARLIN",
    ),
}
"""Variables by which vLLM 0.14 to 0.33 lets a user choose before the patched function is asked."""

_FOREIGN: Mapping[str, Pattern[str]] = {
    "linear": re.compile(r"(?:Cutlass|FlashInfer|B12x|Triton)\w*FP8ScaledMMLinearKernel"),
    "moe": re.compile(r"Fp8MoeBackend\.\w*(?:CUTLASS|FLASHINFER|MARLIN|HUMMING)\w*"),
}
"""Kernels of per-tensor and per-channel FP8 layers, backends of FP8 experts, that are not those of a route.

Marlin's and Humming's kernels are also those of layers with 16-bit activations and of block-scaled ones.
"""

_ROUTED: Mapping[str, Pattern[str]] = {
    "linear": re.compile(r"\w*Torch\w*FP8ScaledMMLinearKernel"),
    "moe": re.compile(r"Fp8MoeBackend\.(?:BATCHED_)?TRITON|\w*Triton\w*Experts\w*"),
}
"""What a route gives."""

_MX = re.compile(r"mx", re.IGNORECASE)
"""MXFP8 experts have the same list of backends, and the patch leaves them alone."""

_LEFT_TO_VLLM = {"auto", "explicit", "block-scaled", "other capability", "not CUDA", "unsupported"}


def explicit_choice(container: Container, kind: str) -> str:
    """The option or variable by which a user may have chosen the backend of a layer kind; "" if there is none."""
    name = f"--{kind}-backend"
    backend = container.option(name)
    if backend not in (None, "", "auto"):
        return f"{name} {backend}"
    config = serve_arguments.document(container.options, "--kernel-config") or {}
    chosen = config.get(f"{kind}_backend")
    if chosen not in (None, "", "auto"):
        return f"--kernel-config with {kind}_backend {chosen}"
    if container.option("--config"):
        return f"--config {container.option('--config')}, which may set it"
    return next((name for name in ENVIRONMENT[kind] if name in container.environment), "")


def not_routed(container: Container, records: Records) -> list[str]:
    """Layers of the model that hold another backend than the switch gives, although no decision and no user says so.

    Layers of a draft model may have a backend of their own (--speculative-config).
    """
    found = []
    for record in records.live:
        for row in record.census or ():
            held = (
                [name for name in row.holds if _FOREIGN[row.kind].fullmatch(name)] if _is_judged(row) else []
            )
            if held and not _is_explained(record, row.kind) and not explicit_choice(container, row.kind):
                switch = record.switches.get(row.kind, "unknown")
                found.append(
                    f"{row.number} {row.kind} layers ({row.method}) hold {', '.join(held)} although the switch says"
                    f" {switch}, and no decision explains it"
                )
    return sorted(set(found))


def unknown_layers(container: Container, records: Records) -> list[str]:
    """FP8 layers of the model that nobody decided about, with kernels that are neither a route's nor known others."""
    found = set()
    for record in records.live:
        decided = {row.layer for row in record.decisions}
        for row in record.census or ():
            if not _is_judged(row) or "fp8" not in row.method.lower() or row.kind in decided:
                continue
            known = any(_ROUTED[row.kind].fullmatch(name) or "Block" in name for name in row.holds)
            if (
                not known
                and record.switches.get(row.kind) != "auto"
                and not explicit_choice(container, row.kind)
            ):
                holds = ", ".join(row.holds) or "nothing that is known"
                found.add(f"{row.number} {row.kind} layers ({row.method}) hold {holds}")
    return sorted(found)


def _is_judged(row: Layers) -> bool:
    return row.part == "target" and row.kind in _FOREIGN and not _MX.search(row.method)


def _is_explained(record: Record, kind: str) -> bool:
    """Whether the process left a layer of this kind to vLLM, and knows why."""
    if record.switches.get(kind) == "auto":
        return True
    return any(row.layer == kind and row.why in _LEFT_TO_VLLM for row in record.decisions)
