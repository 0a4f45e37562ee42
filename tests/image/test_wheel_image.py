"""The image of wheel mode as scripts/image-test built it: official vLLM, real wheels, no GPU."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from helpers import images
from helpers.cyclonedx import valid

pytestmark = [pytest.mark.testbed, pytest.mark.slow]
VERSION = "0.33.0"
#: nvcc of the wheels builds for the GB10 and links, as FlashInfer will ask it to.
COMPILE = r"""
printf '#include <cuda_fp8.h>\n#include <cub/cub.cuh>\n__global__ void k(int *p) { *p = 1; }\n' > /tmp/t.cu
printf 'int main() { int *p; cudaMalloc(&p, 4); k<<<1, 1>>>(p); return 0; }\n' >> /tmp/t.cu
nvcc="/usr/local/cuda/bin/nvcc -gencode arch=compute_121a,code=sm_121a /tmp/t.cu"
$nvcc -o /tmp/static
$nvcc -o /tmp/shared -cudart shared -L/usr/local/cuda/lib64 -lcudart
"""
#: The arguments that the entry point makes, read by vLLM's own parser on a platform of capability 12.1.
PARSE = """
import sys
sys.path[:0] = ["/sim", "/opt/dgx-vllm"]
import entrypoint, gb10
gb10.import_selectors(); gb10.become_a_gb10()
from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
env = {"MODEL": "org/model", "PORT": "8001", "GPU_MEMORY_UTIL": "0.7", "MAX_MODEL_LEN": "32k",
       "VLLM_EXTRA_ARGS": "--swap-space 16 --moe-backend triton --hf-overrides {\\"a\\": [1, 2]}"}
words = entrypoint.serve_command([], env, entrypoint.installed_version())
args = make_arg_parser(FlexibleArgumentParser()).parse_args(words[3:])
validate_parsed_serve_args(args)
print("RESULT", args.port, args.max_model_len, args.gpu_memory_utilization, args.hf_overrides, args.moe_backend)
"""


@pytest.fixture(scope="module")
def image() -> str:
    return images.wheel()


@pytest.fixture(scope="module")
def config(image: str) -> Any:
    return json.loads(images.docker("image", "inspect", image).stdout)[0]["Config"]


def said(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    done = images.run(image, *command, options=options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_import_vllm(image: str) -> None:
    names = ("vllm", "torch", "triton")
    code = "import flashinfer, xgrammar, {}; print({})".format(
        ", ".join(names), ", ".join(f"{n}.__version__" for n in names)
    )
    assert said(image, "python3", "-c", code).split() == [VERSION, "2.14.0+cu130", "3.8.0"]


def test_patch_is_in_place(image: str) -> None:
    status = json.loads(
        said(image, "python3", "-m", "sm121_patch", "status", "--json", "--root", "/app/vllm")
    )
    assert status["in_place"] and status["vllm_version"] == VERSION
    assert [route["state"] for route in status["routes"]] == ["patched"] * 4
    configs = said(image, "ls", "/app/vllm/vllm/model_executor/layers/fused_moe/configs/").splitlines()
    assert "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json" in configs


def test_selectors_under_12_1(image: str) -> None:
    """With vLLM's compiled CUDA build: torch and Triton when patched; after `revert` CUTLASS, and no marker."""
    patched = images.choices(image, "true")
    assert patched["channel"]["linear"] == "ChannelWiseTorchFP8ScaledMMLinearKernel"
    assert patched["tensor"]["linear"] == "PerTensorTorchFP8ScaledMMLinearKernel"
    for case in ("channel", "tensor"):
        assert patched[case]["moe"] == "TRITON" and patched[case]["markers"] == ["linear", "moe"]
    reverted = images.choices(image, "python3 -B -m sm121_patch revert --root /app/vllm")
    assert "Torch" not in reverted["channel"]["linear"] and not reverted["channel"]["markers"]
    for case in ("explicit", "switched off"):
        assert patched[case] == reverted[case]
    assert patched["block"]["linear"] == reverted["block"]["linear"]


def test_entry_point(image: str) -> None:
    mount = ("--volume", f"{images.SIM}:/sim:ro")
    lines = said(image, "python3", "-c", PARSE, options=mount).splitlines()
    assert "RESULT 8001 32000 0.7 {'a': [1, 2]} triton" in lines
    refused = images.run(image, "serve")
    assert refused.returncode == 2 and "MODEL is not set" in refused.stderr
    started = images.run(image, options=("--env", "MODEL=org/model"))
    assert "exec: vllm serve org/model --host 0.0.0.0 --port 8000" in started.stderr
    # `vllm --version` and `vllm serve --help` ask for a device before they answer: not on a machine without a GPU.
    assert said(image, "which", "vllm").strip() == "/opt/venv/bin/vllm"


def test_kernels_can_be_compiled_for_the_gb10(image: str) -> None:
    """FlashInfer compiles at run time: nvcc and the headers have to be of one CUDA version."""
    said(image, "bash", "-euc", COMPILE)
    assert (
        "FlashInfer kernels are disabled"
        not in images.run(image, "python3", "-c", "import vllm.utils.flashinfer").stderr
    )


def test_labels_and_health_check(config: Any) -> None:
    labels = config["Labels"]
    assert labels["dev.dgx-vllm.mode"] == "wheel"
    assert labels["dev.dgx-vllm.vllm-version"] == labels["org.opencontainers.image.version"] == VERSION
    for name in ("dev.dgx-vllm.patch-manifest-sha256", "dev.dgx-vllm.sbom-sha256"):
        assert re.fullmatch(r"[0-9a-f]{64}", labels[name])
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "/opt/dgx-vllm/healthcheck.py"]
    assert config["Entrypoint"] == ["/opt/dgx-vllm/entrypoint.py"] and config["Cmd"] == ["serve"]


def test_no_secret(image: str, config: Any) -> None:
    """Neither in the configuration nor in the history nor in pip's files."""
    history = images.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
    secret = re.compile(r"(?i)(token|password|secret|api_key)\w*=|://[^/\s]+:[^/\s]+@")
    assert not secret.search(history) and not secret.search("\n".join(config["Env"]))
    places = ("/root", "/etc", "/opt/venv")
    files = images.run(image, "find", *places, "-maxdepth", "3", "-name", "pip.conf").stdout
    assert files == ""


def test_sbom(image: str) -> None:
    """Every wheel of the lock, with the hash that the lock pins, and Ubuntu's packages."""
    document = json.loads(said(image, "cat", "/opt/dgx-vllm/sbom.cdx.json"))
    by_purl = {item["purl"]: item for item in document["components"]}
    lock = (images.HERE.parents[1] / "files/image/locks/vllm.txt").read_text()
    for line in lock.splitlines():
        if line.startswith("#"):
            continue
        name, version, hashes = re.fullmatch(r"(\S+)==(\S+) (.*)", line).groups()  # type: ignore[union-attr]
        item = by_purl[f"pkg:pypi/{name}@{version}"]
        assert item["hashes"][0]["content"] in hashes, name
    assert "patches" in by_purl[f"pkg:pypi/vllm@{VERSION}"]["pedigree"]
    assert any(purl.startswith("pkg:deb/ubuntu/libc6@") for purl in by_purl)
    valid(document)
