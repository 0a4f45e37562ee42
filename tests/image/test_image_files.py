"""The patch layer as every build mode runs it, the health check, the shipped configurations, the context."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moe_config.name import file_name
from packaging.requirements import Requirement
from sm121_patch import PATCH_VERSION
from sm121_patch.layouts import HELPER_FILE

from helpers import vllm_sources

IMAGE = vllm_sources.IMAGE
CONFIGS = "model_executor/layers/fused_moe/configs"
SHIPPED = file_name(512, 512, dtype="fp8_w8a8")


class Layer:
    """A copy of the context as /opt/dgx-vllm and a source tree as the installed vLLM."""

    def __init__(self, place: Path, root: Path) -> None:
        self.home = place / "opt"
        self.link = place / "app" / "vllm" / "vllm"
        self.root = root
        shutil.copytree(IMAGE, self.home, ignore=shutil.ignore_patterns("__pycache__", "*.json.bak"))
        (root / "vllm" / CONFIGS).mkdir(parents=True, exist_ok=True)

    def install(self, *more: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [
            sys.executable,
            "-B",
            self.home / "install_patch.py",
            "--root",
            self.root,
            "--link",
            self.link,
            *more,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def layer(tmp_path: Path, tree: Callable[[str], Path]) -> Layer:
    return Layer(tmp_path, tree("0.33.0"))


def test_patch_layer(layer: Layer) -> None:
    for _ in range(2):
        done = layer.install("--vllm-version", "0.33.0")
        assert done.returncode == 0, done.stderr
    assert (layer.root / HELPER_FILE).is_file()
    assert layer.link.is_symlink() and layer.link.resolve() == layer.root / "vllm"
    # The path of the mission's documentation.
    assert [p.name for p in (layer.link / CONFIGS).iterdir() if "GB10" in p.name] == [SHIPPED]
    assert json.loads((layer.home / "sbom.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    assert "--tensor-parallel-size -tp 1\n" in (layer.home / "serve_options.txt").read_text()
    manifest = json.loads((layer.home / "manifest.json").read_text())
    assert [route["state"] for route in manifest["routes"]] == ["patched"] * 4
    status = ["-m", "sm121_patch", "status", "--json", "--root", str(layer.link.parent)]
    subprocess.run([sys.executable, "-B", *status], cwd=layer.home, check=True, capture_output=True)


def test_patch_layer_stops_the_build(layer: Layer) -> None:
    done = layer.install("--vllm-version", "0.32.0")
    assert done.returncode == 2 and "has vLLM 0.33.0, not 0.32.0" in done.stderr
    assert not (layer.root / HELPER_FILE).exists()

    oracle = layer.root / "vllm/model_executor/layers/fused_moe/oracle/fp8.py"
    text = oracle.read_text()
    oracle.write_text(
        text.replace("for backend in AVAILABLE_BACKENDS", "for backend in list(AVAILABLE_BACKENDS)")
    )
    done = layer.install()
    assert done.returncode == 2 and "No known layout for the moe route" in done.stderr
    assert not (layer.home / "manifest.json").exists() and not layer.link.exists()
    oracle.write_text(text)

    config = layer.home / "configs" / SHIPPED
    good = config.read_text()
    config.write_text('{"note": {}}')
    done = layer.install()
    assert done.returncode == 2 and "has the key 'note'" in done.stderr
    config.unlink()
    done = layer.install()
    assert done.returncode == 2 and "has no E=" in done.stderr
    config.write_text(good)

    layer.link.mkdir(parents=True)
    done = layer.install()
    assert done.returncode == 2 and "is not the installed vLLM" in done.stderr


def test_patch_layer_needs_vllm(layer: Layer) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-B",
        "-S",
        layer.home / "install_patch.py",
        "--link",
        layer.link,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "vllm is not installed" in done.stderr


def test_shipped_configurations() -> None:
    files = sorted((IMAGE / "configs").glob("*.json"))
    assert [f.name for f in files] == [SHIPPED]
    entries = json.loads(files[0].read_text())
    assert entries.pop("triton_version") == "3.5.0"
    assert sorted(map(int, entries)) == [
        1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 1536, 2048, 3072, 4096,
    ]  # fmt: skip
    for entry in entries.values():
        m, n, k = (entry[f"BLOCK_SIZE_{x}"] for x in "MNK")
        assert (m * k + k * n) * (entry["num_stages"] - 1) <= 101_376, "shared memory of a block on the GB10"
    assert "not reproduced here" in (IMAGE / "configs" / "README.md").read_text()


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"image_{name}", IMAGE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INIT = "/sbin/docker-init -- /opt/dgx-vllm/entrypoint.py serve"


@pytest.mark.parametrize(
    ("command", "env", "url"),
    [
        ("vllm serve m --host 0.0.0.0 --port 8000", {}, "http://127.0.0.1:8000/health"),
        ("vllm serve m --host 127.0.0.1 --port=9000", {}, "http://127.0.0.1:9000/health"),
        ("vllm serve m --host 192.0.2.7 --port 1 --port 2", {}, "http://192.0.2.7:2/health"),
        ("vllm serve m --host ::", {}, "http://127.0.0.1:8000/health"),
        ("vllm serve m --host 2001:db8::1", {"PORT": "8001"}, "http://[2001:db8::1]:8001/health"),
        ("tini -- serve", {"PORT": "8001", "HOST": ""}, "http://127.0.0.1:8001/health"),
        ("vllm serve m --headless", {}, None),
        # R1: behind docker run --init, and what is in VLLM_EXTRA_ARGS.
        (INIT, {"VLLM_EXTRA_ARGS": "--nnodes 2 --node-rank 1 --headless"}, None),
        (INIT, {"PORT": "8001", "VLLM_EXTRA_ARGS": "--port 9001"}, "http://127.0.0.1:9001/health"),
        (
            INIT,
            {"VLLM_EXTRA_ARGS": "--chat-template '/srv/it is --headless'"},
            "http://127.0.0.1:8000/health",
        ),
        (INIT + " --port 9000", {"VLLM_EXTRA_ARGS": "--port 8001"}, "http://127.0.0.1:9000/health"),
        (INIT, {"VLLM_EXTRA_ARGS": "--port '9"}, "http://127.0.0.1:8000/health"),
        (INIT, {"VLLM_EXTRA_ARGS": "--uds /run/vllm.sock"}, None),
        (INIT, {"VLLM_EXTRA_ARGS": "--ssl-certfile /c --ssl-keyfile /k"}, "https://127.0.0.1:8000/health"),
        (
            INIT,
            {"VLLM_EXTRA_ARGS": "--no-headless --served_model_name a --port=9"},
            "http://127.0.0.1:9/health",
        ),
        ("bash", {}, None),
        ("/sbin/docker-init -- /opt/dgx-vllm/entrypoint.py ray start", {}, None),
    ],
)
def test_health_check_follows_the_server(command: str, env: dict[str, str], url: str | None) -> None:
    assert _module("healthcheck").target(command.split(), env) == url


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.source"])
def test_dockerfile_for_the_classic_builder(name: str) -> None:
    """Docker 20.10 without BuildKit: no RUN --mount, no COPY --chmod, no heredoc, no syntax line; patch layer last."""
    lines = (IMAGE / name).read_text().splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    assert not any(word in line for line in code for word in ("--mount", "--chmod", "--link", "<<"))
    assert not any("syntax=" in line for line in lines)
    assert code[-2].startswith("COPY . ") and "install_patch.py" in code[-1]


def test_plain_docker_build_serves_both_bases() -> None:
    """Wheel mode on a plain Ubuntu, and the role's call with BASE_IMAGE of an image that has vLLM: one Dockerfile."""
    lines = (IMAGE / "Dockerfile").read_text().splitlines()
    assert "ARG BASE_IMAGE=docker.io/library/ubuntu:24.04" in lines
    runs = [line for line in lines if line.startswith("RUN ")]
    assert runs[:-1] == [
        f"RUN sh /opt/dgx-vllm/install_vllm.sh {step}" for step in ("system", "wheels", "ray")
    ]
    assert f'      dev.dgx-vllm.patch-version="{PATCH_VERSION}" \\' in lines


@pytest.mark.parametrize(
    ("step", "ray", "status", "sentence"),
    [
        ("system", "", 0, "patch-only mode"),
        ("wheels", "", 0, ""),
        ("ray", "", 0, ""),
        ("ray", "yes", 0, "the base has Ray"),
        ("ray", "2.60.0", 2, "RAY is '2.60.0': give yes"),
        ("all", "", 2, "no step 'all'"),
    ],
)
def test_steps_on_a_base_with_vllm_and_ray(
    tmp_path: Path, step: str, ray: str, status: int, sentence: str
) -> None:
    for name in ("vllm.py", "ray.py"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["sh", IMAGE / "install_vllm.sh", step], env={**os.environ, "PYTHONPATH": str(tmp_path), "RAY": ray},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert sentence in done.stdout + done.stderr


def test_ray_needs_the_python_of_its_lock(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text(
        "#!/bin/sh\ncase $1 in --version) echo Python 3.9.1 ;; *) exit 1 ;; esac\n"
    )
    (tmp_path / "python3").chmod(0o755)
    done = subprocess.run(
        ["sh", IMAGE / "install_vllm.sh", "ray"], env={"PATH": f"{tmp_path}:/usr/bin:/bin", "RAY": "yes"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "for Python 3.12 and this base has Python 3.9.1" in done.stderr


def test_ray_is_off_by_default_and_pinned_by_hash() -> None:
    lines = (IMAGE / "Dockerfile").read_text().splitlines()
    assert "ARG RAY=" in lines
    pins = [line.split() for line in (IMAGE / "locks/ray.txt").read_text().splitlines() if line[0] != "#"]
    assert sorted(words[0].partition("==")[0] for words in pins) == ["msgpack", "ray"]
    for words in pins:
        assert len(words) == 3 and all(word.startswith("--hash=sha256:") for word in words[1:]), words


def test_modes_have_one_interface() -> None:
    """Entry point, command, health check and cache variables are the same whatever the mode."""

    def interface(file: str) -> list[str]:
        words = (
            "HEALTHCHECK",
            "CMD",
            "    CMD",
            "ENTRYPOINT",
            "ENV PYTHONPATH",
            "    VLLM_CACHE",
            "    T",
            "    F",
        )
        kept = [
            line.removesuffix(" \\")
            for line in (IMAGE / file).read_text().splitlines()
            if line.startswith(words)
        ]
        return [line.replace("${PYTHONPATH:+:${PYTHONPATH}}", "") for line in kept]

    assert interface("Dockerfile.source") == interface("Dockerfile")


def test_lock_pins_by_hash_for_both_machines() -> None:
    lines = (IMAGE / "locks" / "vllm.txt").read_text().splitlines()
    pins = [line.split() for line in lines if not line.startswith("#")]
    names = {words[0].partition("==")[0]: words[0].partition("==")[2] for words in pins}
    assert names["vllm"] == "0.33.0" and names["torch"] == "2.14.0" and names["triton"] == "3.8.0"
    assert "flashinfer-python" in names and "xgrammar" in names
    # One CUDA release: a newer nvcc refuses the older headers, and FlashInfer compiles at run time.
    toolkit = [
        names[f"nvidia-{part}"] for part in ("cuda-nvcc", "cuda-crt", "nvvm", "cuda-cccl", "cuda-runtime")
    ]
    assert names["cuda-toolkit"].startswith("13.0.") and all(pin.startswith("13.0.") for pin in toolkit)
    for words in pins:
        assert 1 <= len(words) - 1 <= 2 and all(word.startswith("--hash=sha256:") for word in words[1:]), (
            words
        )
    compiled = next(words for words in pins if words[0].startswith("vllm=="))
    assert len(compiled) == 3, "one wheel each for aarch64 and x86_64"


def test_scripts_are_executable() -> None:
    for name in ("entrypoint.py", "healthcheck.py", "install_patch.py", "install_vllm.sh", "build.sh"):
        assert (IMAGE / name).stat().st_mode & 0o111, f"chmod +x files/image/{name}"


def test_the_build_context_has_all_that_its_programs_import(tmp_path: Path) -> None:
    """Only what .dockerignore lets through: the entry point, the health check and the patch layer start with it."""
    patterns = [
        line[1:] for line in (IMAGE / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    for pattern in patterns:
        for path in IMAGE.glob(pattern):
            (tmp_path / path.relative_to(IMAGE)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / path.relative_to(IMAGE))
    program = "import entrypoint, healthcheck, install_patch, moe_config, sm121_patch"
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, '.'); {program}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _pins(name: str) -> dict[str, list[str]]:
    """Name of a locked package: its version, then its hashes."""
    lines = (IMAGE / "locks" / name).read_text().splitlines()
    split = [line.partition("==") for line in lines if not line.startswith("#")]
    return {package: words.split() for package, _, words in split}


def test_l9_the_tools_of_source_mode_are_locked() -> None:
    locked, tools = _pins("vllm.txt"), _pins("build.txt")
    for name, (_, *hashes) in tools.items():
        assert hashes and all(word.startswith("--hash=sha256:") for word in hashes), name
        assert name not in locked, f"{name} has two versions"
    assert len(tools["cmake"]) == 3, "a wheel for each machine"
    wanted = [line for line in (IMAGE / "locks/build.in").read_text().splitlines() if line[0] != "#"]
    for requirement in map(Requirement, wanted):
        version = {**locked, **tools}[requirement.name][0]
        assert requirement.specifier.contains(version), f"{requirement} and {version}"


@pytest.mark.parametrize(
    "path", ["files/image/Dockerfile.source", "files/image/install_vllm.sh", "scripts/collections"]
)
def test_l9_pip_takes_nothing_from_an_index_without_a_hash(path: str) -> None:
    text = (IMAGE.parents[1] / path).read_text().replace("\\\n", " ")
    calls = [
        call for call in re.findall(r"pip (?:install|download) [^\n&|]*", text) if "/opt/source" not in call
    ]
    assert calls and all("--require-hashes" in call for call in calls), calls
