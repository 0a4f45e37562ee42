"""entrypoint.py: arguments in every form that vLLM takes, NVIDIA's entry point below ours, quiet endpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.entrypoint_image import Image


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path, "0.33.0")


def test_r5_requests_of_watch_and_health_check_are_not_logged(image: Image, tmp_path: Path) -> None:
    quiet = ["--disable-access-log-for-endpoints", "/health,/metrics"]
    argv = image.serve(MODEL="m", QUIET_ENDPOINTS="/health,/metrics")["argv"]
    assert argv[-2:] == quiet
    argv = image.serve("--disable-access-log-for-endpoints=/x", MODEL="m", QUIET_ENDPOINTS="/y")["argv"]
    assert argv[-1] == "--disable-access-log-for-endpoints=/x"
    (tmp_path / "old").mkdir()
    old = Image(tmp_path / "old", "0.14.1").serve(MODEL="m", QUIET_ENDPOINTS="/health")
    assert "--disable-access-log-for-endpoints" not in old["argv"], "no table, or a table without it"


BASE = """#!/bin/sh
echo "base banner" >&2
LD_LIBRARY_PATH=/usr/local/cuda/compat/lib
VLLM_FROM_BASE=yes
export LD_LIBRARY_PATH VLLM_FROM_BASE
exec "$@"
"""


def test_class_i_the_entry_point_of_nvidias_image_comes_first(image: Image) -> None:
    base = image.place / "nvidia" / "nvidia_entrypoint.sh"
    base.parent.mkdir()
    base.write_text(BASE)
    assert "VLLM_FROM_BASE" not in image.serve(MODEL="m")["env"], "not executable: not an entry point"
    base.chmod(0o755)
    answer = image.serve("--seed", "7", MODEL="m")
    assert answer["argv"][1:3] == ["serve", "m"] and answer["argv"][-2:] == ["--seed", "7"]
    assert answer["env"] == {"VLLM_FROM_BASE": "yes"}, "and our own variables are gone"
    assert answer["stderr"].count("base banner") == 1
    done = image.run("sh", "-c", "echo $VLLM_FROM_BASE$DGX_VLLM_THROUGH_BASE", VLLM_X="")
    assert done.stdout == "yes\n"


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        (["-tp", "2"], "--tensor-parallel-size"),
        (["-tp=2"], "--tensor-parallel-size"),
        (["--tensor-par", "2"], "--tensor-parallel-size"),
        (["--max-num-se", "2"], "--max-num-seqs"),
        (["--device-memory-utilization", "0.5"], "--gpu-memory-utilization"),
    ],
)
def test_class_f_any_form_of_an_argument_wins_over_its_variable(
    given: list[str], absent: str, image: Image
) -> None:
    argv = image.serve(*given, MODEL="m", TENSOR_PARALLEL_SIZE="1", MAX_NUM_SEQS="8")["argv"]
    assert absent not in argv and argv[-len(given) :] == given


def test_class_f_secrets_are_hidden_in_every_form(image: Image) -> None:
    for words in (["--api-k", "abc"], ["--api-key=abc"], ["--hf-token", "abc"], ["--api_key", "x", "abc"]):
        shown = image.serve(*words, "--seed", "7", MODEL="m")["stderr"]
        assert "abc" not in shown and "--seed 7" in shown and "visible in the process list" in shown


def test_class_f_a_switched_off_option_is_given(image: Image) -> None:
    for off in ("--no-enable-auto-tool-choice", "--disable-auto-tool-choice"):
        argv = image.serve("--tool-call", "hermes", off, MODEL="m")["argv"]
        assert "--enable-auto-tool-choice" not in argv


def test_a_flag_that_came_back_is_kept(image: Image) -> None:
    """--disable-log-requests left in 0.17 and is the counterpart of --enable-log-requests in 0.33."""
    assert image.serve("--disable-log-requests", MODEL="m")["argv"][-1] == "--disable-log-requests"


def test_class_f_the_file_of_config_wins_over_defaults_only(image: Image, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("model: org/m\nport: 9000\ngpu_memory_utilization: 0.5\n")
    argv = image.serve("--config", str(file))["argv"][1:]
    assert argv == [
        "serve", "--host", "0.0.0.0", "--tensor-parallel-size", "1", "--config", str(file),
    ]  # fmt: skip
    argv = image.serve("--config", str(file), MODEL="org/other", PORT="8001")["argv"][1:]
    assert argv[:2] == ["serve", "org/other"] and argv[4:6] == ["--port", "8001"]
