"""The proof that a container can use the GPU: what runs in the container, and when it is asked for again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

from helpers.stages import ROLE

VARIABLES = yaml.safe_load((ROLE / "vars/main/image.yml").read_text(encoding="utf-8"))
BROKEN = "raise RuntimeError('CUDA unknown error - this may be due to an incorrectly set up environment')"


def proven(place: Path, torch: str | None, nvidia_smi: str = "echo 'GPU 0: NVIDIA GB10'") -> Any:
    """The script as the container's shell runs it; `torch` is the module's text, None for an image without it."""
    tools = {
        "nvidia-smi": f"#!/bin/sh\n{nvidia_smi}\n",
        "python3": f'#!/bin/sh\nexec {sys.executable} -I -c "$PRE\n$2"\n',
    }
    for name, text in tools.items():
        (place / name).write_text(text, encoding="utf-8")
        (place / name).chmod(0o755)
    if torch is not None:
        (place / "modules").mkdir()
        (place / "modules/torch.py").write_text(torch, encoding="utf-8")
    path = f"import sys; sys.path.insert(0, {str(place / 'modules')!r})"
    environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "PRE": path}
    command = ["sh", "-c", VARIABLES["__dgx_vllm_gpu_script"]]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def torch(cuda: str | None, init: str) -> str:
    return f"class version:\n    cuda = {cuda!r}\nclass cuda:\n    @staticmethod\n    def init():\n        {init}\n"


@pytest.mark.parametrize(
    ("module", "status"),
    [
        (torch("13.0", "pass"), 0),
        (torch("13.0", BROKEN), 1),
        (torch(None, BROKEN), 0),
        (None, 0),
    ],
)
def test_cuda_must_start_where_the_image_can_tell(module: str | None, status: int, tmp_path: Path) -> None:
    """B3: without /dev/nvidia-uvm nvidia-smi lists the GPU and cuInit fails. Torch without CUDA is unknown."""
    done = proven(tmp_path, module)
    assert (done.returncode != 0) is bool(status), done.stderr
    assert "GPU 0" in done.stdout


def test_a_driver_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    assert proven(tmp_path, torch("13.0", "pass"), "exit 9").returncode == 9


def test_a_reboot_and_a_new_driver_ask_for_a_new_proof() -> None:
    """S6: the proof was kept over both."""

    def proof(driver: str | None, boot: str) -> str:
        state = {
            "docker": {"version": "29"},
            "packages": {"nvidia-container-toolkit": "1.18"},
            "gpu": {"driver": {"loaded": driver}},
            "boot_id": boot,
        }
        given = {"__dgx_vllm_state": state, "__dgx_vllm_image_id": "i", "__dgx_vllm_gpu_access": "cdi"}
        jinja = Environment()
        given["__dgx_vllm_gpu_driver"] = jinja.from_string(VARIABLES["__dgx_vllm_gpu_driver"]).render(given)
        return jinja.from_string(VARIABLES["__dgx_vllm_gpu_proof"]).render(given)

    cases = [("580.95", "b1"), ("580.126", "b1"), ("580.95", "b2"), (None, "b1")]
    assert len({proof(*case) for case in cases}) == len(cases)
