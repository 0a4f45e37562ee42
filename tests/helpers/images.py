"""Docker images with a real vLLM for the tests that have one, and what vLLM's own selectors choose inside them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers import vllm_sources

HERE = Path(__file__).resolve().parent
SIM = HERE.parents[1] / "molecule" / "shared" / "sim"


def docker(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run docker; its output as text."""
    done = subprocess.run(["docker", *map(str, words)], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


def need_docker() -> None:
    """Skip where no docker command answers."""
    if shutil.which("docker") is None or docker("version", check=False).returncode:
        pytest.skip("no Docker engine answers here")


def vllm_cpu() -> str:
    """The testbed's image of vLLM's CPU build, which `make testbed` makes."""
    need_docker()
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "dgx-vllm-test/vllm-cpu").stdout.split()
    if not names:
        pytest.skip("the testbed's vLLM image is not here: run `make testbed`")
    return names[0]


def wheel() -> str:
    """The image that scripts/image-test built."""
    name = os.environ.get("DGX_VLLM_TEST_WHEEL_IMAGE", "")
    if not name:
        pytest.skip("wheel mode's image is not here: run `make image-test`")
    need_docker()
    return name


def run(image: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """`docker run` without a network; the command goes through the image's entry point."""
    return docker("run", "--rm", "--network", "none", *options, image, *command, check=False)


def choices(image: str, before: str) -> dict[str, Any]:
    """What choices.py says in `image`, after the shell command `before` ran in /context (files/image)."""
    return result_of(image, before, "choices.py")


def result_of(image: str, before: str, program: str, *more: str) -> dict[str, Any]:
    """What a program of tests/helpers prints after "RESULT " in `image`; `more` are options of docker run."""
    file, *arguments = program.split()
    mounts = [f"{SIM}:/sim:ro", f"{HERE / file}:/{file}:ro", f"{vllm_sources.IMAGE}:/context:ro"]
    options = [word for mount in mounts for word in ("--volume", mount)]
    script = f"cd /context && {before} && cd / && exec python3 -B /{' '.join([file, *arguments])}"
    done = docker(
        "run",
        "--rm",
        "--network",
        "none",
        *options,
        *more,
        "--entrypoint",
        "sh",
        image,
        "-c",
        script,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr[-3000:]
    result: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return result
