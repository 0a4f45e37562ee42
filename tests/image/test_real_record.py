"""The record of a real vLLM (CPU build 0.32.0) that loads a tiny model."""

from __future__ import annotations

import pytest

from helpers import images

pytestmark = [pytest.mark.testbed, pytest.mark.slow]
SITE = "/opt/venv/lib/python3.11/site-packages"
#: vLLM takes the CPU for its platform when its version says so.
PREPARE = (
    f"sed -i 's/^Version: .*/&+cpu/' {SITE}/vllm-*.dist-info/METADATA && "
    f"python3 -B -m sm121_patch apply --root {SITE} --manifest /tmp/manifest.json"
)
OPTIONS = ["--shm-size=1g"] + [
    f"--env={setting}"
    for setting in (
        "VLLM_CPU_KVCACHE_SPACE=1", "VLLM_CPU_OMP_THREADS_BIND=nobind", "OMP_NUM_THREADS=2", "HF_HUB_OFFLINE=1",
        "VLLM_NO_USAGE_STATS=1",
    )
]  # fmt: skip


@pytest.mark.parametrize("engine", ["in a process of its own", "in this process"])
def test_the_census_of_a_moe_model(engine: str) -> None:
    """Whoever holds the engine writes the record, and writes it once."""
    separate = f"--env=VLLM_ENABLE_V1_MULTIPROCESSING={int(engine != 'in this process')}"
    result = images.result_of(images.vllm_cpu(), PREPARE, "load_tiny.py moe", *OPTIONS, separate)
    assert len(result["tokens"]) == 3
    (found,) = result["records"]
    assert found["errors"] == []
    rows = {row["layer"]: row for row in found["census"]}
    assert {row["part"] for row in found["census"]} == {"target"}
    assert (rows["QKVParallelLinear"]["kind"], rows["QKVParallelLinear"]["count"]) == ("linear", 2)
    assert rows["QKVParallelLinear"]["method"] == "UnquantizedLinearMethod"
    (experts,) = (row for row in found["census"] if row["kind"] == "moe")
    assert (experts["experts"], experts["intermediate"], experts["count"]) == (8, 64, 2)
    assert {"CPUUnquantizedExperts", "UnquantizedMoeBackend.CPU"} <= set(experts["holds"])


PLUGIN = (
    f"cp /sim/gb10.py {SITE}/ && mkdir {SITE}/sim-1.dist-info && "
    f"printf 'Metadata-Version: 2.1\\nName: sim\\nVersion: 1\\n' >{SITE}/sim-1.dist-info/METADATA && "
    f"printf '[vllm.general_plugins]\\ngb10 = gb10:register\\n' >{SITE}/sim-1.dist-info/entry_points.txt && "
    f"cp configs/E=*.json {SITE}/vllm/model_executor/layers/fused_moe/configs/"
)


@pytest.mark.parametrize("engine", [0, 1])
def test_the_simulated_gb10_decides_in_the_process_that_serves(engine: int) -> None:
    """The testbed's plugin: decisions of vLLM's own functions, and the census of the CPU that then serves."""
    separate = f"--env=VLLM_ENABLE_V1_MULTIPROCESSING={engine}"
    result = images.result_of(
        images.vllm_cpu(), f"{PREPARE} && {PLUGIN}", "load_tiny.py gb10", *OPTIONS, separate
    )
    assert len(result["tokens"]) == 3
    (found,) = result["records"]
    assert found["errors"] == []
    assert [(row["layer"], row["why"], row["chosen"]) for row in found["decisions"]] == [
        ("linear", "routed", "ChannelWiseTorchFP8ScaledMMLinearKernel"),
        ("moe", "routed", "TRITON"),
    ]
    assert found["capability"] == [12, 1]
    assert [row["found"].rpartition("/")[2] for row in found["moe_configs"]] == [
        "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
    ]
    assert {row["method"] for row in found["census"]} == {
        "UnquantizedLinearMethod",
        "UnquantizedFusedMoEMethod",
    }
