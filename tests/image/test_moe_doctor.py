"""The doctor over vLLM 0.33.0's own kernel and a real compiler for sm_121, and what it says of bad files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moe_config import ConfigError, doctor, kernel
from moe_config.__main__ import main
from moe_config.kernel import Compiled
from moe_config.space import Config, Shape, shared_memory

from helpers.vllm_sources import IMAGE, _cache

TRITON = "3.8.0"
NAME = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
GOOD = Config(16, 128, 64, 1, 4, 5)
LARGE = Config(128, 128, 128, 1, 8, 5)
SPILLING = Config(256, 128, 128, 1, 8, 3)
SHAPE = Shape(512, 512, 2048, 10)

Doctor = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def triton_python() -> Path:
    """A Python with Triton, in an environment of its own that is kept: the compiler is large and needs no GPU."""
    place: Path = _cache() / f"triton-{TRITON}-py{sys.version_info[0]}.{sys.version_info[1]}"
    python = place / "bin" / "python"
    if not (place / "done").is_file():
        venv.create(place, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", f"triton=={TRITON}"]
        subprocess.run(install, check=True)
        (place / "done").touch()
    return python


@pytest.fixture
def run(triton_python: Path, source: Callable[[str], Path]) -> Doctor:
    """Run the verb as a user does, over vLLM 0.33.0's sources; results are kept by content."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        options = ["--root", source("0.33.0"), "--cache", _cache() / "doctor", "--jobs", "2"]
        environment = {key: value for key, value in os.environ.items() if key != "VLLM_TUNED_CONFIG_FOLDER"}
        return subprocess.run(
            [triton_python, "-m", "moe_config", "doctor", *options, *arguments],
            cwd=IMAGE,
            env={**environment, "TRITON_CACHE_DIR": str(_cache() / "triton-cache")},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def write(path: Path, *configs: Config, **more: Any) -> Path:
    entries = {str(2**place): config.as_entry() for place, config in enumerate(configs)}
    path.write_text(json.dumps({"triton_version": TRITON, **entries, **more}), encoding="utf-8")
    return path


# -- with the compiler --------------------------------------------------------------------------------------------


def test_every_shipped_config_is_good(run: Doctor) -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    for shipped in (IMAGE / "configs").glob("E=*.json"):
        assert shipped.name in done.stdout
    assert "18 of 18 entries good for sm_121" in done.stdout


def test_bad_entries_are_named(run: Doctor, tmp_path: Path) -> None:
    done = run(write(tmp_path / NAME, GOOD, LARGE, SPILLING))
    assert done.returncode == 1, done.stderr
    assert "131,072 B of shared memory, but a block has 101,376" in done.stdout
    assert "B of registers spilled" in done.stdout
    assert "1 of 3 entries good" in done.stdout


@pytest.mark.parametrize("capability", [121, 90])
def test_the_rule_is_the_compilers_figure(run: Doctor, tmp_path: Path, capability: int) -> None:
    configs = [
        Config(16, 128, 64, 1, 4, 5),
        Config(16, 128, 64, 1, 4, 2),
        Config(64, 128, 128, 1, 4, 3),
        Config(128, 128, 128, 1, 8, 4),
        Config(16, 32, 256, 1, 4, 4),
        Config(32, 256, 64, 1, 8, 3),
    ]
    done = run(write(tmp_path / NAME, *configs), "--json", "--capability", str(capability))
    found = {entry["batch"]: entry["shared"] for entry in json.loads(done.stdout)["entries"]}
    assert found == {2**n: shared_memory(config, 1, capability) for n, config in enumerate(configs)}


def test_a_key_that_vllm_does_not_take(run: Doctor, tmp_path: Path) -> None:
    done = run(write(tmp_path / NAME, GOOD, note="mine"))
    assert done.returncode == 1
    assert "has the key 'note': vLLM accepts only batch sizes and triton_version." in done.stdout


# -- without it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_warps": 3}, "only powers of two"),
        ({"num_stages": 0}, "whole number from 1"),
        ({"SPLIT_K": 2}, "accepts only 1"),
        ({"BLOCK_SIZE_X": 1}, "unknown key BLOCK_SIZE_X"),
        ({"BLOCK_SIZE_M": True}, "whole number"),
    ],
)
def test_an_entry_that_is_none(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = tmp_path / NAME
    path.write_text(json.dumps({"1": {**GOOD.as_entry(), **change}}), encoding="utf-8")
    entries, wrong = doctor.read_file(path)
    assert not entries and len(wrong) == 1 and sentence in wrong[0] and "batch size 1" in wrong[0]


def test_an_entry_that_lacks_a_value(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(json.dumps({"1": {"BLOCK_SIZE_M": 16}}), encoding="utf-8")
    assert "lacks BLOCK_SIZE_N" in doctor.read_file(path)[1][0]
    path.write_text("{}", encoding="utf-8")
    assert "no batch size" in doctor.read_file(path)[1][0]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (NAME, SHAPE),
        ("E=256,N=512,device_name=NVIDIA_GB10.json", Shape(256, 512, 2048, 10, "bf16")),
        (
            "E=256,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128,128].json",
            Shape(256, 512, 2048, 10, "fp8-block", (128, 128)),
        ),
    ],
)
def test_the_name_says_the_layer(name: str, shape: Shape) -> None:
    assert doctor.shape_of_name(name) == shape


@pytest.mark.parametrize("name", ["mine.json", "E=8,N=8,device_name=NVIDIA_GB10,dtype=int8_w8a16.json"])
def test_a_name_that_cannot_be_judged(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a name|cannot compile"):
        doctor.shape_of_name(name)


@pytest.mark.parametrize(
    ("compiled", "faults"),
    [
        (Compiled(101376, 255, 0, True), ()),
        (Compiled(101377, 64, 0, True), ("101,377 B of shared memory, but a block has 101,376",)),
        (Compiled(1024, 255, 8, True), ("8 B of registers spilled",)),
        (Compiled(1024, 64, 0, False), ("FP8 is widened to 16 bits",)),
        (Compiled(0, 0, 0, False, "no"), ("does not compile: no",)),
    ],
)
def test_faults_are_named(compiled: Compiled, faults: tuple[str, ...]) -> None:
    assert doctor.judge(doctor.Entry(NAME, "1", SHAPE, GOOD), compiled, 121).faults == faults


@pytest.mark.parametrize(
    ("ptx", "native"),
    [
        ("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {", True),
        ("wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {", True),
        ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {", False),
        ("fma.rn.f32 %f1;", False),
    ],
)
def test_native_fp8(ptx: str, native: bool) -> None:
    assert kernel.is_native_fp8(ptx) is native


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nowhere/x.json"], "is not a file"),
        (["--capability", "75"], "Capability 75 is not in"),
    ],
)
def test_cannot_run(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and printed.count("\n") == 1


def test_an_old_triton_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel, "triton_version", lambda: "3.7.1")
    assert main(["doctor"]) == 2
    assert "too old to compile for sm_121" in capsys.readouterr().err


def test_no_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(kernel, "triton_version", lambda: TRITON)
    assert main(["doctor", "--root", str(tmp_path)]) == 2
    assert "No vLLM under" in capsys.readouterr().err


def test_a_vllm_without_the_kernel() -> None:
    with pytest.raises(ConfigError, match="has no fused_moe_kernel"):
        kernel.kernel_text("x = 1")
