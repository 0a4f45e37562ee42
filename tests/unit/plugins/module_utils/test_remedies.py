"""Each error text the table claims to know, in the words its program uses."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import (
    ABSENT,
    MARKERS_MISSING,
    TABLE,
    explain,
    remedy_of,
    root_error,
)

NOT_STARTED = (
    "[dgx-vllm] does not start: after 300 s /dev/nvidia-uvm is missing. To correct it: run nvidia-modprobe."
)
HUB = "https://huggingface.co"
RUNC = (
    "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime"
    " create failed: runc create failed: unable to start container process: "
)
HOOK = RUNC + "error during container init: error running prestart hook #0: exit status 1, stdout: , stderr: "
TEXTS = [
    ("not_started", NOT_STARTED),
    (
        "cdi_stale",
        f'{RUNC}error during container init: error mounting "/usr/lib/aarch64-linux-gnu/libcuda.so.580.95.05" to rootfs'
        ' at "/usr/lib/aarch64-linux-gnu/libcuda.so.580.95.05": stat /usr/lib/aarch64-linux-gnu/libcuda.so.580.95.05:'
        " no such file or directory",
    ),
    (
        "cdi_stale",
        'CDI device injection failed: failed to stat "/dev/nvidia-modeset": no such file or directory',
    ),
    (
        "gpus_in_cdi_mode",
        f"{HOOK}Using requested mode 'cdi'\ninvoking the NVIDIA Container Runtime Hook directly (e.g. specifying the"
        " docker --gpus flag) is not supported. Please use the NVIDIA Container Runtime (e.g. specify the"
        " --runtime=nvidia flag) instead: unknown\n\nRun 'docker run --help' for more information",
    ),
    (
        "driver_old",
        f"{HOOK}nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver"
        " to a newer version, or use an earlier cuda container: unknown",
    ),
    ("driver_old", "RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain."),
    (
        "driver_old",
        "Search for `cudaErrorUnsupportedPtxVersion' in the CUDA documentation for more information.",
    ),
    ("driver_old", "RuntimeError: The NVIDIA driver on your system is too old (found version 12080)."),
    (
        "driver_mismatch",
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.126",
    ),
    (
        "driver_mismatch",
        f"{HOOK}nvidia-container-cli: initialization error: nvml error: driver/library version mismatch: unknown",
    ),
    ("cdi_device", "failed to discover GPU vendor from CDI: no known GPU vendor found"),
    ("no_gpu", "WARNING: The NVIDIA Driver was not detected.  GPU functionality will not be available."),
    (
        "driver_banner",
        "ERROR: This container was built for NVIDIA Driver Release 595.45 or later, but\n       version 580.126.09 was"
        " detected and compatibility mode is UNAVAILABLE.",
    ),
    (
        "cuda_init",
        "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env"
        " variable CUDA_VISIBLE_DEVICES after program start.",
    ),
    ("cutlass_fp8", "RuntimeError: No compiled cutlass_scaled_mm for CUDA device capability: 121"),
    ("cutlass_fp8", "No suitable CUTLASS kernel found"),
    (
        "default_moe_config",
        "Using default MoE config. Performance might be sub-optimal! Config file not found",
    ),
    ("port_in_use", "OSError: [Errno 98] Address already in use"),
    ("memory_gpu", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
    ("memory_kv_blocks", "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory`"),
    (
        "memory_free",
        "ValueError: Free memory on device cuda:0 (10.1/119.7 GiB) on startup is less than desired GPU memory"
        " utilization (0.8, 95.7 GiB). Decrease GPU memory utilization",
    ),
    (
        "kv_cache_too_small",
        "ValueError: To serve at least one request with the model's max seq len (262144), (24.0 GiB KV cache is"
        " needed, which is larger than the available KV cache memory (12.0 GiB).",
    ),
    (
        "kv_cache_too_small",
        "The model's max seq len (131072) is larger than the maximum number of tokens that can be stored"
        " in KV cache",
    ),
    ("memory_killed", "dgx-vllm.service: Failed with result 'oom-kill'."),
    ("model_missing", f"RepositoryNotFoundError: 404 Client Error. Repository Not Found for url: {HUB}/x"),
    ("model_missing", "OSError: org/x is not a local folder and is not a valid model identifier listed on"),
    ("model_gated", f"GatedRepoError: 403 Client Error. Cannot access gated repo for url {HUB}/x."),
    ("model_revision", f"RevisionNotFoundError: 404 Client Error. Revision Not Found for url: {HUB}/x."),
    ("model_token", "Invalid credentials in Authorization header"),
    ("model_token", f"401 Client Error: Unauthorized for url: {HUB}/org/x/resolve/main/config.json"),
    ("model_offline", "LocalEntryNotFoundError: outgoing traffic has been disabled"),
    (
        "model_broken",
        "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
    ),
    ("disk_full", "write /x: no space left on device"),
    ("argument_unknown", "vllm: error: unrecognized arguments: --swap-space 4"),
    ("argument_invalid", "vllm serve: error: argument --dtype: invalid choice: 'float7'"),
    ("image_missing", "Error response from daemon: manifest unknown: manifest unknown"),
    ("image_missing", "Error response from daemon: manifest for host/x:y not found: manifest unknown"),
    ("image_denied", "Error response from daemon: pull access denied for x, repository does not exist"),
    ("image_denied", "unauthorized: authentication required"),
    ("image_denied", "denied: requested access to the resource is denied"),
    ("permission", "PermissionError: [Errno 13] Permission denied: '/cache/vllm'"),
    ("image_tls", "x509: certificate signed by unknown authority"),
    ("network", "dial tcp: lookup registry.example on 192.0.2.1:53: no such host"),
    ("network", "net/http: request canceled while waiting for connection (Client.Timeout exceeded)"),
    ("network", "dial tcp 192.0.2.9:443: i/o timeout"),
    ("gpu_driver_hook", 'docker: Error: could not select device driver "" with capabilities: [[gpu]].'),
    ("nvidia_runtime", "docker: Error response from daemon: unknown or invalid runtime name: nvidia."),
    ("cdi_device", "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all"),
    (
        "nvidia_container_cli",
        "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown.",
    ),
    ("no_gpu", "RuntimeError: No CUDA GPUs are available"),
    ("docker_down", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."),
    ("container_name", 'Conflict. The container name "/dgx-vllm" is already in use by container "abc".'),
    ("engine_failed", "RuntimeError: Engine core initialization failed. See root cause above."),
]


@pytest.mark.parametrize(("name", "text"), TEXTS)
def test_each_text_is_known_first_by_its_cause(name: str, text: str) -> None:
    found = explain(f"INFO something else\n(EngineCore pid=9) {text}\n")
    assert found[0].id == name
    assert text.splitlines()[0][:20] in found[0].line or found[0].line in text
    assert found[0].sentence.endswith(".")
    assert found[0].remedy


def test_every_entry_of_the_table_has_a_sentence_and_a_remedy() -> None:
    assert len({entry.id for entry in TABLE}) == len(TABLE)
    assert all(entry.sentence.endswith(".") and len(entry.remedy) > 20 for entry in TABLE)


def test_a_cause_comes_before_its_consequence() -> None:
    text = "RuntimeError: Engine core initialization failed.\nCUDA out of memory\nUsing default MoE config"
    assert [item.id for item in explain(text)] == ["memory_gpu", "default_moe_config", "engine_failed"]


def test_a_start_that_was_refused_is_told_in_its_own_words() -> None:
    (cause,) = explain(NOT_STARTED)
    assert cause.text.startswith(
        "The unit does not start: after 300 s /dev/nvidia-uvm is missing. To correct it: run "
    )


def test_a_notice_of_the_image_does_not_hide_the_cause() -> None:
    """Images of NVIDIA print it at each start with DGX OS's driver, and work."""
    text = (
        "ERROR: This container was built for NVIDIA Driver Release 595.45 or later, but\nCUDA out of memory"
    )
    assert explain(text)[0].id == "memory_gpu"


def test_a_healthy_log_explains_nothing() -> None:
    lines = [
        "INFO 11-24 03:04:43 [arg_utils.py:916] HF_HUB_OFFLINE is True, replace model_id [m] to model_path [/models/m]",
        "(EngineCore pid=8) INFO [fp8.py:528] Using TRITON Fp8 MoE backend out of potential backends: ['AITER'].",
        "WARNING [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase with error current",
        "set_mempolicy: Operation not permitted",
        "Avg prompt throughput: 0.0 tokens/s",
        "INFO:     Application startup complete.",
    ]
    assert explain("\n".join(lines)) == []
    assert root_error("\n".join(lines)) == ""


def test_the_cause_is_told_from_its_echo() -> None:
    log = (
        "(EngineCore pid=37) ERROR 11-24 03:05:13 [core.py:1512]     return self._op(*args, **kwargs)\n"
        "(EngineCore pid=37) ERROR 11-24 03:05:13 [core.py:1512] RuntimeError: Unsupported head_dim=16\n"
        "(APIServer pid=1) ERROR [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore"
        " encountered an issue. See stack trace (above) for the root cause.\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert root_error(log) == "RuntimeError: Unsupported head_dim=16"
    assert [item.id for item in explain(log)] == ["engine_failed"]


def test_the_three_known_troubles_have_their_remedies() -> None:
    for name in ("cutlass_fp8", "default_moe_config", MARKERS_MISSING):
        assert remedy_of(name)
    assert MARKERS_MISSING in ABSENT
    with pytest.raises(KeyError):
        remedy_of("nonsense")
