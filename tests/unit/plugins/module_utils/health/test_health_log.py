"""What is read from vLLM's log. The lines are in the form vLLM 0.33 writes them."""

from __future__ import annotations

import json

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import (
    MARKER_TEXT,
    mask,
    read_log,
    split_runs,
)

HEAD = "(APIServer pid=1) INFO 11-24 02:00:00 [startup.py:96] non-default args: {'model': 'm'}\n"
LOADING = "(EngineCore pid=9) INFO 11-24 02:00:09 [gpu_model_runner.py:4979] Starting to load model m...\n"
SHARDS = (
    "(EngineCore pid=9) \rLoading safetensors checkpoint shards:   0% Completed | 0/5 [00:00<?, ?it/s]\n"
    "(EngineCore pid=9) \rLoading safetensors checkpoint shards:  40% Completed | 2/5 [00:09<00:13, 4s/it]\n"
)
LOADED = (
    "(EngineCore pid=9) INFO [gpu_model_runner.py:5089] Model loading took 74.9 GiB memory and 61.2 seconds\n"
)
KV = "(EngineCore pid=9) INFO [gpu_worker.py:773] Available KV cache memory: 12.3 GiB\n"
GRAPHS = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  51%|#####     | 18/35 [00:01<00:01]"
SERVING = "(APIServer pid=1) INFO:     Application startup complete.\n"


@pytest.mark.parametrize(
    ("text", "phase", "progress"),
    [
        ("", "starting", ""),
        ("[dgx-vllm] waits for up to 300 s: no CDI\n", "starting", "waits for up to 300 s: no CDI"),
        ("[dgx-vllm] waits for up to 300 s: no CDI\n" + HEAD, "starting", ""),
        (HEAD, "starting", ""),
        (HEAD + LOADING, "loading weights", ""),
        (HEAD + LOADING + SHARDS, "loading weights", "Loading safetensors checkpoint shards: 40%"),
        (HEAD + LOADING + SHARDS + LOADED, "compiling", ""),
        (HEAD + LOADING + SHARDS + LOADED + KV, "warming up", ""),
        (
            HEAD + LOADED + KV + GRAPHS,
            "warming up",
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 51%",
        ),
        (HEAD + LOADING + SHARDS + LOADED + KV + SERVING, "serving", ""),
    ],
)
def test_phases(text: str, phase: str, progress: str) -> None:
    facts = read_log(text)
    assert (facts.phase, facts.progress) == (phase, progress)


def test_a_log_without_its_beginning_says_so() -> None:
    assert read_log(HEAD).start_retained
    assert not read_log(
        "(EngineCore pid=9) INFO Engine 000: Avg prompt throughput: 0.0 tokens/s\n"
    ).start_retained


def test_markers_and_configs_behind_process_prefixes() -> None:
    path = "/tuned/E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
    facts = read_log(
        f"(Worker pid=12) {MARKER_TEXT['moe']}\n(Worker pid=12) INFO x {MARKER_TEXT['linear']}\n"
        f"(Worker pid=13) {MARKER_TEXT['moe']}\n"
        f"(Worker pid=12) INFO [fused_moe.py:1153] Using configuration from {path} for MoE layer.\n"
        "INFO [fp8_utils.py:945] Using configuration from /c/N=1,K=2.json for W8A8 Block FP8 kernel.\n"
    )
    assert facts.markers == ["linear", "moe"]
    assert facts.config_loaded == [path]
    assert facts.default_config is None
    assert facts.cutlass_error is None


def test_a_marker_must_match_word_for_word() -> None:
    assert read_log("[vLLM SM_121] Detected GB10 (SM_121) - using cutlass backend\n").markers == []


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: No compiled cutlass_scaled_mm for CUDA device capability: 121.",
        "No suitable CUTLASS kernel found",
    ],
)
def test_both_cutlass_texts(line: str) -> None:
    assert read_log(line).cutlass_error == line


def test_default_config() -> None:
    line = "Using default MoE config. Performance might be sub-optimal! Config file not found at E=1.json"
    assert read_log(line).default_config == line


def test_runs_are_told_apart_and_bytes_are_decoded() -> None:
    entries = [
        {"_SYSTEMD_INVOCATION_ID": "a", "MESSAGE": "one"},
        {"INVOCATION_ID": "a", "MESSAGE": "Failed with result"},
        {"_SYSTEMD_INVOCATION_ID": "b", "MESSAGE": list(b"\rshards: 0%\rshards: 40%")},
        {"_SYSTEMD_INVOCATION_ID": "b", "MESSAGE": None},
    ]
    journal = "\n".join(json.dumps(entry) for entry in entries) + "\nnot json\n[]\n"
    assert split_runs(journal) == [("a", ["one", "Failed with result"]), ("b", ["shards: 0%", "shards: 40%"])]


@pytest.mark.parametrize(
    "text",
    [
        "token hf_abcDEF123456789",
        "Authorization: Bearer s3cretvalue",
        "vllm serve m --api-key s3cretvalue",
        "non-default args: {'api_key': ['s3cretvalue'], 'port': 1}",
        "VLLM_API_KEY=s3cretvalue",
        "HF_TOKEN='s3cretvalue'",
        "my own given-secret here",
    ],
)
def test_secrets_are_masked(text: str) -> None:
    masked = mask(text, ["given-secret"])
    assert "***" in masked
    assert "s3cretvalue" not in masked
    assert "abcDEF123456789" not in masked
    assert "given-secret" not in masked


def test_ordinary_lines_stay_as_they_are() -> None:
    line = "Avg generation throughput: 12.0 tokens/s, tokens: 5, max_num_batched_tokens=8192"
    assert mask(line) == line
