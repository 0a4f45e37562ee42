"""entrypoint.py run as the image runs it, with a stand-in `vllm` on PATH that tells what it was given."""

from __future__ import annotations

import importlib.util
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import vllm_sources
from helpers.entrypoint_image import ENTRYPOINT, Image

_SPEC = importlib.util.spec_from_file_location("dgx_entrypoint", ENTRYPOINT)
assert _SPEC and _SPEC.loader
entrypoint = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(entrypoint)

NEW = (0, 33)
DEFAULTS = [
    "--host",
    "0.0.0.0",
    "--port",
    "8000",
    "--tensor-parallel-size",
    "1",
    "--gpu-memory-utilization",
    "0.8",
]

WAITING_VLLM = f"""#!{sys.executable}
import os, signal, sys, time
def stop(number, frame):
    os.write(1, b"got " + signal.Signals(number).name.encode() + b"\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
os.write(1, b"ready\\n")
time.sleep(30)
"""


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path, "0.33.0")


def test_defaults(image: Image) -> None:
    answer = image.serve(MODEL="org/model")
    assert answer["argv"][1:] == ["serve", "org/model", *DEFAULTS]
    assert "[dgx-vllm] exec: vllm serve org/model --host 0.0.0.0" in answer["stderr"]


def test_every_variable(image: Image) -> None:
    answer = image.serve(
        MODEL="/models/m",
        PORT="8001",
        HOST="127.0.0.1",
        TENSOR_PARALLEL_SIZE="2",
        MAX_MODEL_LEN="32k",
        GPU_MEMORY_UTIL="0.65",
        MAX_NUM_SEQS="16",
        VLLM_EXTRA_ARGS="--seed 7",
    )
    expected = "serve /models/m --host 127.0.0.1 --port 8001 --tensor-parallel-size 2 --max-model-len 32k"
    expected += " --gpu-memory-utilization 0.65 --max-num-seqs 16 --seed 7"
    assert answer["argv"][1:] == expected.split()
    assert answer["env"] == {}, "our own variables are gone before vLLM sees them"


@pytest.mark.parametrize(
    ("version", "variables", "passed"),
    [
        ("0.33.0", {}, ["--shutdown-timeout", "45"]),
        ("0.18.1", {}, ["--shutdown-timeout", "45"]),
        ("0.17.1", {}, []),
        ("0.33.0", {"VLLM_EXTRA_ARGS": "--shutdown-timeout=5"}, ["--shutdown-timeout=5"]),
    ],
)
def test_a_stop_lets_requests_finish_where_vllm_can(
    tmp_path: Path, version: str, variables: dict[str, str], passed: list[str]
) -> None:
    """vLLM before 0.18 does not know the flag; the operator's own wins."""
    answer = Image(tmp_path, version).serve(MODEL="org/model", SHUTDOWN_TIMEOUT="45", **variables)
    assert answer["argv"][1:] == ["serve", "org/model", *DEFAULTS, *passed]
    assert answer["env"] == {}


def test_quick_start_line(image: Image) -> None:
    """docker run -p 8000:8000 -e MODEL=… -e VLLM_EXTRA_ARGS='… --swap-space 32 …' IMAGE serve"""
    answer = image.serve(
        MODEL="Qwen/Qwen3-Next-80B-A3B-Instruct-FP8-Dynamic",
        PORT="8000",
        GPU_MEMORY_UTIL="0.8",
        VLLM_EXTRA_ARGS="--swap-space 32 --kv-cache-dtype fp8 --tool-call-parser hermes",
    )
    assert "--swap-space" not in answer["argv"] and "32" not in answer["argv"]
    assert answer["argv"][-5:] == [
        "--kv-cache-dtype", "fp8", "--tool-call-parser", "hermes", "--enable-auto-tool-choice",
    ]  # fmt: skip
    assert "warning: dropped --swap-space 32: vLLM has no such flag since 0.18.0" in answer["stderr"]
    assert "notice: added --enable-auto-tool-choice" in answer["stderr"]


@pytest.mark.parametrize("form", [["--swap-space", "4"], ["--swap_space=4"], ["--swap-space=4"]])
def test_removed_flags_by_version(form: list[str], tmp_path: Path) -> None:
    for version, kept in (("0.14.1", True), ("0.17.1", True), ("0.18.0", False), ("0.33.0", False)):
        place = tmp_path / version
        place.mkdir()
        argv = Image(place, version).serve(*form, MODEL="m")["argv"]
        assert (argv[-len(form) :] == form) is kept


def test_removed_flag_does_not_swallow_a_flag() -> None:
    assert entrypoint.drop_removed(["--swap-space", "--seed", "1"], NEW) == ["--seed", "1"]
    assert entrypoint.drop_removed(["--calculate-kv-scales", "--seed", "1"], NEW) == ["--seed", "1"]
    assert entrypoint.drop_removed(["--swap-space", "4"], None) == ["--swap-space", "4"], (
        "unknown vLLM: leave it"
    )


@pytest.mark.parametrize("version", vllm_sources.versions(*vllm_sources.ALL_VERSIONS))
def test_removed_flags_are_true(version: str) -> None:
    """The tables say of each release what its own argument parser says."""
    root = vllm_sources.fetch(version)
    text = "".join(p.read_text() for p in (root / "vllm").glob("e*/**/*.py"))
    minor = (0, int(version.split(".")[1]))
    for flag, (since, _) in entrypoint.REMOVED_FLAGS.items():
        if flag in (
            "--use-gpu-for-pooling-score",
            "--enable-bf16x3-router-gemm",
            "--override-attention-dtype",
        ):
            continue  # lived for a few releases only
        if flag == "--enable-mamba-fine-grained-prefix-cache":
            continue
        present = f'"{flag}"' in text or f"{flag[2:].replace('-', '_')}:" in text
        assert present is (minor < since), f"{flag} in vLLM {version}"
    for variable, since in entrypoint.SINCE.items():
        flag = entrypoint.VARIABLES[variable][0]
        assert (f'"{flag}"' in text) is (minor >= since), f"{flag} in vLLM {version}"


def test_arguments_win_over_variables(image: Image) -> None:
    answer = image.serve("--port=9000", "--gpu_memory_utilization", "0.5", MODEL="m", PORT="8000")
    assert answer["argv"][1:] == [
        "serve", "m", "--host", "0.0.0.0", "--tensor-parallel-size", "1",
        "--port=9000", "--gpu_memory_utilization", "0.5",
    ]  # fmt: skip
    assert "--gpu-memory-utilization" not in image.serve("--kv-cache-memory-bytes", "1G", MODEL="m")["argv"]


def test_model_as_first_word(image: Image) -> None:
    assert image.serve("org/m", "--seed", "1")["argv"][1:3] == ["serve", "org/m"]
    assert image.serve("org/m", MODEL="org/m")["argv"][2] == "org/m"
    done = image.run("serve", "org/m", MODEL="other")
    assert done.returncode == 2 and "give the model once" in done.stderr


REFUSALS = {
    "MODEL is not set": {},
    "PORT='99999' is not a port from 1 to 65535": {"MODEL": "m", "PORT": "99999"},
    "PORT='http' is not a port": {"MODEL": "m", "PORT": "http"},
    "HOST='a b' is not an address": {"MODEL": "m", "HOST": "a b"},
    "TENSOR_PARALLEL_SIZE='0' is not a whole number": {"MODEL": "m", "TENSOR_PARALLEL_SIZE": "0"},
    "MAX_MODEL_LEN='long' is not a number of tokens": {"MODEL": "m", "MAX_MODEL_LEN": "long"},
    "GPU_MEMORY_UTIL='80' is not a fraction": {"MODEL": "m", "GPU_MEMORY_UTIL": "80"},
    "GPU_MEMORY_UTIL='0.0' is not a fraction": {"MODEL": "m", "GPU_MEMORY_UTIL": "0.0"},
    "MAX_NUM_SEQS='-1' is not a whole number": {"MODEL": "m", "MAX_NUM_SEQS": "-1"},
    "VLLM_EXTRA_ARGS has a quote that is not closed": {"MODEL": "m", "VLLM_EXTRA_ARGS": "--x 'y"},
    "DGX_VLLM_FP8_LINEAR='cutlass' is not a route": {"MODEL": "m", "DGX_VLLM_FP8_LINEAR": "cutlass"},
    "DGX_VLLM_FP8_MOE='torch' is not a route": {"MODEL": "m", "DGX_VLLM_FP8_MOE": "torch"},
    "DGX_VLLM_ASSUME_CAPABILITY='121' is not a capability": {
        "MODEL": "m",
        "DGX_VLLM_ASSUME_CAPABILITY": "121",
    },
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_refused_with_one_sentence(sentence: str, image: Image) -> None:
    done = image.run("serve", **REFUSALS[sentence])
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"[dgx-vllm] {sentence}")


def test_other_commands_run_as_given(image: Image) -> None:
    done = image.run("sh", "-c", 'echo "$1 $MODEL"', "sh", "a  b", MODEL="kept")
    assert (done.returncode, done.stdout) == (0, "a  b kept\n")
    assert image.run("no-such-command").returncode == 127
    done = image.run("--model", "m")
    assert done.returncode == 2 and "put `serve` before" in done.stderr


def test_secrets_are_masked(image: Image) -> None:
    answer = image.serve(
        "--api-key", "s3cret", "s3cret2", "--hf-token=s3cret", "--max-num-batched-tokens", "9", MODEL="m"
    )
    assert "s3cret" in answer["argv"] and "--hf-token=s3cret" in answer["argv"]
    assert "s3cret" not in answer["stderr"]
    assert "--max-num-batched-tokens 9" in answer["stderr"]
    assert "set VLLM_API_KEY" in answer["stderr"]


def test_environment_for_vllm(image: Image) -> None:
    env = image.serve(MODEL="m", VLLM_PORT="1234", VLLM_API_KEY="k", VLLM_CACHE_ROOT="/cache/vllm")["env"]
    assert env == {"VLLM_API_KEY": "k", "VLLM_CACHE_ROOT": "/cache/vllm"}


def test_other_routes_get_a_cache_of_their_own(image: Image) -> None:
    def cache(**variables: str) -> str:
        return str(
            image.serve(MODEL="m", VLLM_CACHE_ROOT="/cache/vllm", **variables)["env"]["VLLM_CACHE_ROOT"]
        )

    found = [
        cache(DGX_VLLM_FP8_LINEAR="torch", DGX_VLLM_FP8_MOE="triton"),
        cache(DGX_VLLM_FP8_LINEAR="auto"),
        cache(DGX_VLLM_FP8_MOE="auto"),
        cache(DGX_VLLM_FP8_LINEAR="auto", DGX_VLLM_FP8_MOE="auto"),
        cache(DGX_VLLM_ASSUME_CAPABILITY="12.1"),
    ]
    assert found[0] == "/cache/vllm" and len(set(found)) == len(found)


def test_one_process_and_signals_reach_it(tmp_path: Path) -> None:
    image = Image(tmp_path, "0.33.0", WAITING_VLLM)
    server = subprocess.Popen(
        [sys.executable, "-B", str(ENTRYPOINT), "serve"],
        env=image.environment(MODEL="m"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
        assert b"serve" in command and not any(b"entrypoint" in word for word in command), "exec, not a child"
        started = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=10) == 0
        assert server.stdout.read() == "got SIGTERM\n" and time.monotonic() - started < 5
    finally:
        server.kill()
        server.wait()


WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab \"'\\{}", max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(WORDS, max_size=6))
def test_quoted_words_survive(words: list[str]) -> None:
    assert entrypoint.split_words(shlex.join(words)) == words


@given(st.text(alphabet="ab {}[]:,1\"'\\ -=\n", max_size=30))
def test_without_json_it_is_shlex(text: str) -> None:
    """Where no word starts with JSON the result is the shell's, refusals included."""
    try:
        expected: list[str] | None = shlex.split(text)
    except ValueError:
        expected = None
    try:
        found = entrypoint.split_words(text)
    except entrypoint.Refused:
        found = None
    if not any(mark in text for mark in "{["):
        assert found == expected
    elif expected is not None and found is not None:
        assert "".join("".join(found).split()).count("{") == text.count("{")


@given(
    st.lists(
        st.dictionaries(st.text("ab ", max_size=3), JSON, max_size=3) | st.lists(JSON, max_size=3), max_size=3
    )
)
def test_json_needs_no_quotes(values: list[Any]) -> None:
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    line = " ".join(f"--a-b {text} --c={text}" for text in texts)
    expected = [word for text in texts for word in ("--a-b", text, f"--c={text}")]
    assert entrypoint.split_words(line) == expected
    assert entrypoint.split_words(shlex.join(expected)) == expected


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(WORDS, min_size=1, max_size=4), data=JSON)
def test_round_trip_through_exec(values: list[str], data: Any, image: Image) -> None:
    """From the variable and from the command line, through exec, to vLLM's argv: byte for byte."""
    text = json.dumps(data)
    extra = ["--flag", *(f"v{value}" for value in values), "--json", text]
    argv = image.serve("--more", text, MODEL="m", VLLM_EXTRA_ARGS=shlex.join(extra))["argv"]
    assert argv[1:] == ["serve", "m", *DEFAULTS, *extra, "--more", text]


QWEN3 = "--reasoning-parser qwen3"
NO_THINKING = ["--default-chat-template-kwargs", '{"enable_thinking": false}']


@pytest.mark.parametrize(
    ("model", "extra", "added"),
    [
        ("DevQuasar/Qwen.Qwen3-Next-80B-A3B-Instruct-FP8-Dynamic", QWEN3, True),
        ("/models/Qwen3-Next-80B-A3B-Instruct-FP8/", "--reasoning-parser=qwen3", True),
        ("Qwen/Qwen3-Next-80B-A3B-Thinking-FP8", QWEN3, False),
        ("Qwen/Qwen3-32B", QWEN3, False),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct-FP8", "--reasoning-parser deepseek_r1", False),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct-FP8", "", False),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct-FP8", QWEN3 + " --default-chat-template-kwargs '{}'", False),
    ],
)
def test_an_instruct_model_behind_the_qwen3_parser(model: str, extra: str, added: bool, image: Image) -> None:
    """vllm#53284: the parser expects a <think> block unless the request says that there is none."""
    answer = image.serve(MODEL=model, VLLM_EXTRA_ARGS=extra)
    assert (answer["argv"][-2:] == NO_THINKING) is added
    assert ("vllm#53284" in answer["stderr"]) is added


def test_the_missions_own_line(image: Image) -> None:
    """docker run … -e VLLM_EXTRA_ARGS with hermes and qwen3, as the project started with it."""
    answer = image.serve(
        MODEL="DevQuasar/Qwen.Qwen3-Next-80B-A3B-Instruct-FP8-Dynamic",
        VLLM_EXTRA_ARGS="--swap-space 32 --kv-cache-dtype fp8 --tool-call-parser hermes --reasoning-parser qwen3",
    )
    assert answer["argv"][-3:] == ["--enable-auto-tool-choice", *NO_THINKING]
