"""The checks of patch, record and markers, on records that the patch's own code made: what is right passes, what is
wrong fails, what nobody knows does neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Container
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import KnownLog, LogFacts
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import parse_inside
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.routing import routing_checks

from helpers.records import CUTLASS, TORCH, Process, entry, experts, fp8_moe, inside, linear
from helpers.stub_vllm import Platform

BOTH = ("linear", "moe")


def log(markers: tuple[str, ...] = (), origin: str = "journal", **given: Any) -> KnownLog:
    """A log that starts at its beginning and says nothing else, unless given otherwise."""
    return KnownLog(LogFacts("serving", "", True, list(markers), [], None, None)._replace(**given), origin)


def container(*words: str, **environment: str) -> Container:
    """A running container with these arguments of `vllm serve` and these variables."""
    return Container(True, "", environment, ("serve", *words))


def judged(
    told: Any, known: KnownLog, box: Container | None = None, required: bool = False
) -> dict[str, Finding]:
    """Check -> its finding."""
    told = told if isinstance(told, str) else json.dumps(told)
    rows = routing_checks(box or container(), parse_inside(told, ""), known, required)
    assert all(row.remedy for row in rows if row.status in ("warn", "fail"))
    return {row.check: row for row in rows}


def statuses(rows: dict[str, Finding]) -> set[str]:
    return {row.status for row in rows.values()}


def test_everything_as_it_should_be(tmp_path: Path) -> None:
    rows = judged(inside(entry(fp8_moe(tmp_path).record())), log(BOTH))
    assert list(rows) == [
        "manifest", "moe_config_file", "record", "markers", "moe_config_loaded", "no_cutlass_error",
    ]  # fmt: skip
    assert statuses(rows) == {"pass"}
    assert rows["record"].found == f"linear: routed ({TORCH}); moe: routed (TRITON)"


BLOCK_FILE = "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128,128].json"
BF16_FILE = "E=128,N=768,device_name=NVIDIA_GB10.json"


def block_fp8(tmp: Path) -> Process:
    process = Process().asks_linear(block=True).asks_moe().looks_for(BLOCK_FILE, True, tmp)
    return process.loads(linear("TritonFp8BlockScaledMMKernel", "Fp8LinearMethod"), experts("TRITON"))


def bf16_moe(tmp: Path) -> Process:
    layer = experts("FLASHINFER_CUTLASS", "UnquantizedFusedMoEMethod", "X", "UnquantizedMoeBackend")
    return Process().loads(linear("", "UnquantizedLinearMethod"), layer)


def bf16_moe_on_triton(tmp: Path) -> Process:
    layer = experts("TRITON", "UnquantizedFusedMoEMethod", "TritonExperts", "UnquantizedMoeBackend")
    return Process().looks_for(BF16_FILE, False, tmp).loads(linear("", "UnquantizedLinearMethod"), layer)


def bf16_dense(tmp: Path) -> Process:
    return Process().loads(linear("", "UnquantizedLinearMethod"))


def quantised_while_loading(tmp: Path) -> Process:
    """A BF16 checkpoint with --quantization fp8."""
    return (
        Process()
        .asks_linear()
        .loads(linear("PerTensorTorchFP8ScaledMMLinearKernel", "Fp8OnlineLinearMethod"))
    )


def explicit_moe(tmp: Path) -> Process:
    """--moe-backend marlin: vLLM takes it before the patched function decides."""
    return Process().asks_linear().loads(linear(TORCH), experts("MARLIN", classes="MarlinExperts"))


def explicit_linear(tmp: Path) -> Process:
    return Process().asks_linear(backend="cutlass").loads(linear(CUTLASS))


def mixed_formats(tmp: Path) -> Process:
    """FP4 experts in a model that says FP8, with some INT8 layers."""
    fp4 = experts("FLASHINFER_CUTLASS", "ModelOptNvFp4FusedMoE", "FlashInferExperts", "NvFp4MoeBackend")
    return Process().asks_linear().asks_linear(others=True).loads(linear(TORCH), fp4)


def mxfp8(tmp: Path) -> Process:
    """MXFP8 experts have the same list of backends, and another selector."""
    return Process().loads(linear("MarlinMxfp8LinearKernel", "ModelOptMxFp8LinearMethod"),
                           experts("MARLIN", "ModelOptMxFp8FusedMoE", "MarlinExperts"))  # fmt: skip


def weights_only(tmp: Path) -> Process:
    """FP8 weights with 16-bit activations: another list of kernels."""
    return (
        Process()
        .asks_linear(others=True)
        .loads(linear("MarlinFP8ScaledMMLinearKernel", "CompressedTensorsW8A16Fp8"))
    )


def experts_with_lora(tmp: Path) -> Process:
    """vLLM takes Triton for LoRA before it asks."""
    return Process().loads(experts("TRITON"))


def embedding(tmp: Path) -> Process:
    return Process().loads(linear("", "UnquantizedLinearMethod"))


def draft_of_another_backend(tmp: Path) -> Process:
    return fp8_moe(tmp).loads(linear(TORCH), draft=[linear(CUTLASS), experts("FLASHINFER_CUTLASS")])


def experts_that_triton_cannot_take(tmp: Path) -> Process:
    return Process().asks_moe(supported=False).loads(experts("MARLIN"))


def another_gpu(tmp: Path) -> Process:
    return (
        Process(Platform((9, 0)))
        .asks_linear()
        .asks_moe()
        .loads(linear(CUTLASS), experts("FLASHINFER_CUTLASS"))
    )


HEALTHY: list[tuple[Any, tuple[str, ...], Container]] = [
    (block_fp8, ("moe",), container()),
    (bf16_moe, (), container()),
    (bf16_moe_on_triton, (), container()),
    (bf16_dense, (), container()),
    (quantised_while_loading, ("linear",), container("--quantization", "fp8")),
    (explicit_moe, ("linear",), container("--moe-backend", "marlin")),
    (explicit_moe, ("linear",), container("--moe_backend=marlin")),
    (explicit_moe, ("linear",), container("--kernel-config", '{"moe_backend": "marlin"}')),
    (explicit_moe, ("linear",), container("--kernel-config.moe_backend", "marlin")),
    (
        explicit_moe,
        ("linear",),
        container(VLLM_EXTRA_ARGS='--kernel-config \'{"linear_backend_per_quant": {}, "moe_backend": "marlin"}\' --x'),
    ),
    (explicit_moe, ("linear",), container(VLLM_EXTRA_ARGS="--moe-backend marlin")),
    (explicit_moe, ("linear",), container(VLLM_TEST_FORCE_FP8_MARLIN="1")),
    (explicit_moe, ("linear",), container("--config", "/models/serve.yaml")),
    (explicit_linear, (), container("--linear-backend", "cutlass")),
    (mixed_formats, ("linear",), container()),
    (mxfp8, (), container()),
    (weights_only, (), container()),
    (experts_with_lora, (), container("--enable-lora")),
    (embedding, (), container("--runner", "pooling")),
    (draft_of_another_backend, BOTH, container("--speculative-config", "{}")),
    (experts_that_triton_cannot_take, (), container()),
    (another_gpu, (), container()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "markers", "box"), HEALTHY, ids=[f"{n}-{row[0].__name__}" for n, row in enumerate(HEALTHY)]
)
def test_a_consistent_record_is_healthy(
    make: Any, markers: tuple[str, ...], box: Container, tmp_path: Path
) -> None:
    rows = judged(inside(entry(make(tmp_path).record())), log(markers), box)
    assert "fail" not in statuses(rows), rows
    assert rows["record"].status == rows["markers"].status == "pass"


def test_a_switch_on_auto_explains_other_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGX_VLLM_FP8_LINEAR", "auto")
    monkeypatch.setenv("DGX_VLLM_FP8_MOE", "auto")
    made = Process().asks_linear().asks_moe().loads(linear(CUTLASS), experts("FLASHINFER_CUTLASS")).record()
    rows = judged(inside(entry(made)), log())
    assert statuses(rows) == {"pass", "skip"}
    assert "auto (DGX_VLLM_FP8_MOE)" in rows["record"].found


BYPASSED = {
    "experts": lambda: Process().asks_linear().loads(linear(TORCH), experts("VLLM_CUTLASS")),
    "linear layers": lambda: Process().asks_moe().loads(linear(CUTLASS), experts("TRITON")),
    "everything": lambda: Process().loads(linear(CUTLASS), experts("FLASHINFER_CUTLASS")),
    "some": lambda: (
        Process().asks_linear().asks_moe().loads(linear(TORCH), linear(CUTLASS), experts("TRITON"))
    ),
}


@pytest.mark.parametrize("name", BYPASSED)
def test_a_selector_that_is_bypassed_after_patching_is_a_failure(name: str) -> None:
    """The manifest is right and the layers hold CUTLASS: nobody decided that."""
    made = BYPASSED[name]().record()
    markers = tuple(sorted({row["layer"] for row in made["decisions"]}))
    row = judged(inside(entry(made)), log(markers))["record"]
    assert row.status == "fail"
    assert "no decision explains it" in row.found
    assert "--moe-backend" in row.remedy


def test_a_backend_that_is_explicitly_auto_is_no_choice() -> None:
    made = BYPASSED["experts"]().record()
    box = container("--kernel-config", '{"linear_backend": "torch"}', "--moe-backend", "auto")
    assert judged(inside(entry(made)), log(("linear",)), box)["record"].status == "fail"


def test_one_of_several_processes_is_enough_for_a_failure(tmp_path: Path) -> None:
    good, bad = fp8_moe(tmp_path).record(), BYPASSED["everything"]().record()
    bad["pid"] += 1
    rows = judged(inside(entry(good), entry(bad)), log(BOTH))
    assert rows["record"].status == "fail"


def test_a_process_without_a_model_does_not_count_and_harms_nothing(tmp_path: Path) -> None:
    """Decisions in one process, the census in another one."""
    front = Process().asks_linear().asks_moe().record()
    engine = {**bf16_dense(tmp_path).record(), "pid": front["pid"] + 1}
    rows = judged(inside(entry(front), entry(engine)), log(BOTH))
    assert statuses(rows) == {"pass", "skip"}


@pytest.mark.parametrize(
    ("markers", "status"), [(BOTH, "pass"), (("linear",), "fail"), ((), "fail")]
)  # fmt: skip
def test_a_route_that_was_taken_needs_its_marker(
    markers: tuple[str, ...], status: str, tmp_path: Path
) -> None:
    row = judged(inside(entry(fp8_moe(tmp_path).record())), log(markers))["markers"]
    assert row.status == status
    assert status == "pass" or "using Triton backend for MOE layers" in row.found


def test_a_lost_start_of_the_log_is_a_warning_and_the_record_the_proof(tmp_path: Path) -> None:
    told = inside(entry(fp8_moe(tmp_path).record()))
    rows = judged(told, log((), "none"))
    assert rows["markers"].status == "warn"
    assert "the record has the route" in rows["markers"].found
    assert rows["record"].status == rows["moe_config_loaded"].status == "pass"
    assert judged(told, log(BOTH, "evidence"))["markers"].found.endswith("earlier check of this run)")


def test_a_marker_that_no_record_explains_is_a_failure(tmp_path: Path) -> None:
    told = inside(entry(bf16_dense(tmp_path).record()))
    assert judged(told, log(("moe",)))["markers"].status == "fail"
    gone = entry(Process().asks_moe().record(), born=None)
    assert judged(inside(*told["records"], gone), log(("moe",)))["markers"].status == "warn"


def test_ray_has_its_markers_on_the_head_and_its_records_where_they_are(tmp_path: Path) -> None:
    told = inside(entry(fp8_moe(tmp_path).record()))
    worker = judged(told, log(), Container(True, "", {}, ("ray", "start")))
    assert worker["markers"].status == "skip"
    assert worker["record"].status == worker["moe_config_loaded"].status == "pass"
    head = container("--distributed-executor-backend", "ray")
    assert judged(told, log(("linear",)), head)["markers"].status == "warn"


def test_a_promised_record_that_is_missing_is_a_failure() -> None:
    rows = judged(inside(), log(BOTH))
    assert rows["record"].status == "fail"
    assert "the image's manifest promises one" in rows["record"].found
    assert rows["markers"].status == rows["moe_config_loaded"].status == "skip"


def test_a_worker_that_is_not_counted_is_a_failure_unless_somebody_knows_why(tmp_path: Path) -> None:
    made = Process().asks_linear().record()
    assert judged(inside(entry(made)), log(("linear",)))["record"].status == "fail"
    box = container("--worker-cls", "my.Worker")
    assert judged(inside(entry(made)), log(("linear",)), box)["record"].status == "warn"
    made["errors"] = ["loaded: AttributeError: no model"]
    assert judged(inside(entry(made)), log(("linear",)))["record"].status == "warn"


@pytest.mark.parametrize(
    "layer",
    [
        linear("SomeFutureFP8Kernel", "Fp8LinearMethod"),
        linear("", "FBGEMMFp8LinearMethod"),
        experts("DEEPGEMM", classes="DeepGemmExperts"),
        experts("X", "CompressedTensorsW4A8Fp8MoEMethod", "CutlassExpertsW4A8Fp8", "OtherBackend"),
    ],
    ids=lambda layer: type(layer.quant_method).__name__,
)
def test_layers_that_nobody_knows_are_unknown_and_no_failure(layer: Any) -> None:
    rows = judged(inside(entry(Process().loads(layer).record())), log())
    assert rows["record"].status == "warn"
    assert "nobody decided about some layers: 1 " in rows["record"].found
    assert "fail" not in statuses(rows)


def test_a_census_that_saw_nothing_is_unknown() -> None:
    rows = judged(inside(entry(Process().loads(object()).record())), log())
    assert rows["record"].status == "warn"


def test_an_image_without_a_recorder_is_judged_by_its_log_and_never_by_a_guess() -> None:
    rows = judged(inside(promised=False), log(BOTH))
    assert [rows[name].status for name in ("manifest", "record", "markers")] == ["pass", "skip", "pass"]
    for origin in ("journal", "none"):
        rows = judged(inside(promised=False), log((), origin))
        assert statuses(rows) == {"pass", "skip"}


@pytest.mark.parametrize(
    "told",
    ["", "no json", "[]", json.dumps({"manifest": {"error": "no such file"}}), json.dumps({"manifest": 3})],
)
def test_an_image_that_is_not_ours_fails_by_its_manifest(told: str) -> None:
    rows = judged(told, log())
    assert [name for name, row in rows.items() if row.status == "fail"] == ["manifest"]
    assert "Build or pull an image" in rows["manifest"].remedy


def test_a_route_that_is_not_in_place_fails_by_the_manifest(tmp_path: Path) -> None:
    told = inside(entry(fp8_moe(tmp_path).record()))
    manifest = json.loads(told["manifest"]["text"])
    manifest["routes"][0]["state"] = "absent"
    told["manifest"]["text"] = json.dumps(manifest)
    assert judged(told, log(BOTH))["manifest"].status == "fail"


def test_the_cutlass_error_is_seen_without_a_record() -> None:
    rows = judged(inside(promised=False), log(cutlass_error="No compiled cutlass_scaled_mm"))
    assert rows["no_cutlass_error"].status == "fail"
