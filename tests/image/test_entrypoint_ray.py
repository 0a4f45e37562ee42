"""RAY_START: the head of a Ray cluster starts Ray before vLLM, in the same container."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers.entrypoint_image import Image

FAKE_RAY = """#!{python}
import os, sys
print("ray was given", sys.argv[1:], "RAY_START" in os.environ, file=sys.stderr)
sys.exit({status})
"""


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path, "0.33.0")


def give_ray(image: Image, status: int = 0) -> None:
    ray = image.place / "bin/ray"
    ray.write_text(FAKE_RAY.format(python=sys.executable, status=status), encoding="utf-8")
    ray.chmod(0o755)


def test_ray_starts_before_vllm(image: Image) -> None:
    give_ray(image)
    found = image.serve(MODEL="org/name", RAY_START="--head --port=6379 --node-ip-address=198.51.100.1")
    assert (
        "ray was given ['start', '--head', '--port=6379', '--node-ip-address=198.51.100.1'] False"
        in found["stderr"]
    )
    assert found["argv"][1:3] == ["serve", "org/name"]


def test_without_the_variable_there_is_no_ray(image: Image) -> None:
    give_ray(image)
    assert "ray was given" not in image.serve(MODEL="org/name")["stderr"]


def test_a_ray_that_does_not_start_ends_the_container(image: Image) -> None:
    give_ray(image, status=3)
    done = image.run("serve", MODEL="org/name", RAY_START="--head")
    assert done.returncode == 2
    assert "`ray start` exited with 3" in done.stderr
    assert done.stdout == ""


def test_an_image_without_ray_says_so(image: Image) -> None:
    done = image.run("serve", MODEL="org/name", RAY_START="--head")
    assert done.returncode == 2
    assert "this image has no Ray" in done.stderr
