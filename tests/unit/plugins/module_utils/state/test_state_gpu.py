"""nvidia-smi and nvidia-ctk."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import gpu


def test_gpus(runner):
    runner.on("nvidia-smi", stdout="NVIDIA GB10, 12.1, 580.95.05\n")
    assert gpu.gpus(runner) == {
        "error": None,
        "gpus": [{"name": "NVIDIA GB10", "compute_capability": "12.1", "driver_version": "580.95.05"}],
    }


def test_missing_and_failing_nvidia_smi(runner):
    assert gpu.gpus(runner)["error"] == "nvidia-smi is not installed"
    mismatch = "Failed to initialize NVML: Driver/library version mismatch"
    runner.on("nvidia-smi", stdout=f"{mismatch}\nNVML library version: 580.126\n\n", rc=18)
    assert gpu.gpus(runner)["error"] == f"{mismatch} / NVML library version: 580.126", "the cause comes first"
    runner.on("nvidia-smi", stdout="")
    assert gpu.gpus(runner) == {"error": "nvidia-smi lists no GPU", "gpus": []}


def test_toolkit(tmp_path, runner, write):
    assert gpu.toolkit(tmp_path, runner) == {"path": None, "version": None}
    write("/usr/bin/nvidia-ctk", "").chmod(0o755)
    runner.on(
        "/usr/bin/nvidia-ctk", "--version", stdout="NVIDIA Container Toolkit CLI version 1.18.0\ncommit: a\n"
    )
    assert gpu.toolkit(tmp_path, runner) == {"path": "/usr/bin/nvidia-ctk", "version": "1.18.0"}
