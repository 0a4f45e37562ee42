"""Runs inside an image with a real vLLM: what do its own selectors choose on a GPU of capability 12.1?

The platform that says 12.1 is the testbed's (molecule/shared/sim/gb10.py, mounted as /sim/gb10.py). Prints one line
`RESULT {case: {"linear": kernel, "moe": backend, "markers": ["linear", "moe"]}}`. Not a test by itself.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import re
import sys
from typing import Any

sys.path.insert(0, "/sim")
import gb10  # type: ignore[import-not-found]

MODEL = {"num_experts": 512, "num_experts_per_tok": 10, "hidden_size": 2048, "moe_intermediate_size": 512}


def choose(scheme: str, linear: str = "auto", moe: str = "auto", **environment: str) -> dict[str, Any]:
    """One case, as in a fresh process: markers come once a process, so what was printed is forgotten first."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.config.kernel import KernelConfig

    routes = sys.modules.get("vllm._dgx_vllm_sm121")
    if routes is not None:
        routes._printed.clear()
    os.environ.update(environment)
    said = io.StringIO()
    config = VllmConfig(kernel_config=KernelConfig(linear_backend=linear))
    with contextlib.redirect_stdout(said), set_current_vllm_config(config):
        gb10.choose_linear(scheme, 2048, 1)
        gb10.choose_moe(MODEL, scheme, [128, 128] if scheme == "block" else None, 1, moe)
    for name in environment:
        del os.environ[name]
    text = said.getvalue()
    kernel = re.search(r"FP8 linear kernel chosen by vLLM: (\w+)", text)
    backend = re.search(r"FP8 MoE backend chosen by vLLM: (\w+)", text)
    markers = re.findall(r"\[vLLM SM_121\] .* for (FP8 linear|MOE) layers", text)
    return {
        "linear": kernel.group(1) if kernel else text,
        "moe": backend.group(1) if backend else text,
        "markers": sorted({"FP8 linear": "linear", "MOE": "moe"}[marker] for marker in markers),
    }


def say_that_this_is_the_cpu_build() -> None:
    """vLLM goes by its version's name, and only its CPU platform loads kernels for processors without AVX-512."""
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: version(name) + ("+cpu" if name == "vllm" else "")


def main() -> None:
    """All cases."""
    say_that_this_is_the_cpu_build()
    gb10.import_selectors()
    gb10.become_a_gb10()
    result = {
        "channel": choose("channel"),
        "tensor": choose("tensor"),
        "block": choose("block"),
        "explicit": choose("channel", linear="cutlass", moe="marlin"),
        "switched off": choose("channel", DGX_VLLM_FP8_LINEAR="auto", DGX_VLLM_FP8_MOE="auto"),
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
