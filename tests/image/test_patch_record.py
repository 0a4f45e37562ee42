"""The record: what the selectors of every release write down, and the census of what was loaded."""

from __future__ import annotations

import ast
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sm121_patch import PATCH_VERSION, record, runtime

from helpers import vllm_sources
from helpers.records import CUTLASS, TORCH, Model, experts, linear, vllm_class
from helpers.selectors import BLOCK, PER_CHANNEL, PER_TENSOR, Tree, choose_linear, choose_moe, patched
from helpers.stub_vllm import Platform, World

every_version = pytest.mark.parametrize("version", vllm_sources.versions(*vllm_sources.ALL_VERSIONS))
SWITCHES = ("DGX_VLLM_FP8_LINEAR", "DGX_VLLM_FP8_MOE", "DGX_VLLM_ASSUME_CAPABILITY")


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the records; each test starts without one."""
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DGX_VLLM_RECORD_DIR", str(tmp_path / "records"))
    record._record.clear()
    yield tmp_path / "records"
    record._record.clear()


def read(records: Path) -> dict[str, Any]:
    (file,) = records.glob("*.json")
    assert file.name == f"record-{os.getpid()}.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def told(records: Path) -> list[tuple[str, str]]:
    return [(row["layer"], row["why"]) for row in read(records)["decisions"]]


def test_the_patch_version_is_that_of_the_package() -> None:
    assert record.PATCH_VERSION == PATCH_VERSION


@every_version
def test_routes_are_recorded(version: str, tree: Tree, records: Path) -> None:
    root = patched(tree, version)
    world = World(Platform((12, 1)))
    choose_linear(root, world, PER_CHANNEL)
    found = read(records)
    assert (found["capability"], found["assumed"]) == ([12, 1], False)
    assert found["switches"] == {"linear": "torch", "moe": "triton"}
    assert [(row["layer"], row["why"]) for row in found["decisions"]] == [("linear", "routed")]
    assert "torch" in found["decisions"][0]["chosen"].lower()
    choose_moe(root, world)
    assert told(records) == [("moe", "routed")]
    assert read(records)["decisions"][0]["chosen"] == "TRITON"


@every_version
@pytest.mark.parametrize("capability", [(12, 0), (9, 0), None])
def test_another_capability_is_recorded(
    version: str, capability: tuple[int, int] | None, tree: Tree, records: Path
) -> None:
    root = patched(tree, version)
    world = World(Platform(capability))
    choose_linear(root, world, PER_TENSOR)
    choose_moe(root, world)
    (row,) = read(records)["decisions"]
    why = ("not CUDA", "") if capability is None else ("other capability", "{}.{}".format(*capability))
    assert (row["layer"], row["why"], row["detail"]) == ("moe", *why)


@every_version
def test_a_switch_is_recorded(
    version: str, tree: Tree, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = patched(tree, version)
    monkeypatch.setenv("DGX_VLLM_FP8_LINEAR", "auto")
    monkeypatch.setenv("DGX_VLLM_FP8_MOE", "auto")
    choose_linear(root, World(Platform((12, 1))))
    assert told(records) == [("linear", "auto")]
    choose_moe(root, World(Platform((12, 1))))
    assert told(records) == [("moe", "auto")]
    assert read(records)["switches"] == {"linear": "auto", "moe": "auto"}


@pytest.mark.parametrize("version", vllm_sources.DEFAULT_VERSIONS)
def test_a_switch_on_auto_leaves_even_the_platform_alone(
    version: str, tree: Tree, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What vLLM would not ask by itself is not asked for the sake of a record."""

    class Silent(Platform):
        def get_device_capability(self, *words: Any) -> Any:
            raise OSError("NVML is not there")

    for platform in (Platform((12, 1)), Silent((12, 1))):
        monkeypatch.setenv("DGX_VLLM_FP8_LINEAR", "auto")
        monkeypatch.setenv("DGX_VLLM_FP8_MOE", "auto")
        assert runtime.linear_backend(platform, "cutlass") == "cutlass"
        assert runtime.moe_route(platform) is False


@every_version
def test_an_explicit_backend_is_recorded(version: str, tree: Tree, records: Path) -> None:
    if int(version.split(".")[1]) < 22:
        pytest.skip("this release has no --linear-backend")
    choose_linear(patched(tree, version), World(Platform((12, 1)), linear_backend="cutlass"))
    (row,) = read(records)["decisions"]
    assert (row["why"], row["detail"]) == ("explicit", "cutlass")


@every_version
def test_block_scaled_and_other_layers_are_recorded(version: str, tree: Tree, records: Path) -> None:
    minor = int(version.split(".")[1])
    if minor < 15:
        pytest.skip("in this release only per-tensor and per-channel layers reach the patched class")
    root = patched(tree, version)
    choose_linear(root, World(Platform((12, 1))), BLOCK, "FP8")
    assert told(records) == [("linear", "block-scaled")]
    choose_linear(root, World(Platform((12, 1))), types.SimpleNamespace(is_channelwise=True), "INT8")
    assert told(records) == [("linear", "other layer")]


def test_alike_decisions_are_counted(records: Path) -> None:
    for _ in range(3):
        runtime.moe_route(Platform((12, 1)))
    runtime.linear_backend(Platform((9, 0)), "cutlass")
    rows = record.current()["decisions"]
    assert [(row["layer"], row["why"], row["count"]) for row in rows] == [
        ("moe", "routed", 3),
        ("linear", "other capability", 1),
    ]
    assert read(records)["decisions"][1]["chosen"] == "cutlass"


def function_of(root: Path, file: str, name: str) -> dict[str, Any]:
    """The namespace after the source of one function was executed alone."""
    module = ast.parse((root / file).read_text(encoding="utf-8"))
    (found,) = (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == name)
    found.decorator_list, found.returns = [], None
    for argument in (*found.args.args, *found.args.kwonlyargs):
        argument.annotation = None
    space: dict[str, Any] = {}
    exec(compile(ast.Module([found], []), file, "exec"), space)
    return space


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from vllm import _dgx_vllm_record` gives the record of this process."""
    vllm = types.ModuleType("vllm")
    monkeypatch.setattr(vllm, "_dgx_vllm_record", record, raising=False)
    monkeypatch.setitem(sys.modules, "vllm", vllm)


@every_version
@pytest.mark.usefixtures("installed")
def test_moe_configs_are_recorded(version: str, tree: Tree, tmp_path: Path, records: Path) -> None:
    """The function of the release itself looks for a file: in the tuned folder, then in its own."""
    root = patched(tree, version)
    file = "vllm/model_executor/layers/fused_moe/fused_moe.py"
    space = function_of(root, file, "get_moe_configs")
    tuned, own = tmp_path / "tuned", tmp_path / "configs"
    tuned.mkdir()
    own.mkdir()
    (tuned / "a.json").write_text('{"1": {}}')

    class Logger:
        def __getattr__(self, name: str) -> Any:
            return lambda *words, **more: None

    names = iter(["a.json", "b.json"])
    space.update(
        os=os,
        json=json,
        logger=Logger(),
        __file__=str(tmp_path / "fused_moe.py"),
        envs=types.SimpleNamespace(VLLM_TUNED_CONFIG_FOLDER=str(tuned), VLLM_BATCH_INVARIANT=False),
        vllm_is_batch_invariant=lambda: False,
        get_config_file_name=lambda *shape: next(names),
    )
    assert space["get_moe_configs"](8, 64, None) == {1: {}}
    assert space["get_moe_configs"](8, 32, None) is None
    rows = read(records)["moe_configs"]
    assert [(row["file"], row["found"]) for row in rows] == [
        ("a.json", str(tuned / "a.json")),
        ("b.json", None),
    ]
    assert rows[1]["searched"] == [str(tuned / "b.json"), str(own / "b.json")]


@every_version
@pytest.mark.usefixtures("installed")
def test_a_worker_takes_the_census(version: str, tree: Tree, records: Path) -> None:
    root = patched(tree, version)
    space = function_of(root, "vllm/v1/worker/gpu_worker.py", "load_model")
    asked: list[Any] = []

    class Anything:
        def __call__(self, *words: Any, **more: Any) -> Any:
            return self

        def __enter__(self) -> None:
            return None

        def __exit__(self, *words: Any) -> None:
            return None

        def __getattr__(self, name: str) -> Any:
            return self

        def __bool__(self) -> bool:
            return False

    class Worker(Anything):
        model_runner = types.SimpleNamespace(
            load_model=lambda **more: asked.append(more),
            get_model=lambda: None,
            model=Model(linear(TORCH), experts("TRITON")),
            drafter=types.SimpleNamespace(model=Model(linear(CUTLASS, "Fp8LinearMethod"))),
        )

    space.update(
        os=os,
        **dict.fromkeys(
            (
                "set_current_vllm_config",
                "has_ec_transfer",
                "get_ec_transfer",
                "set_torch_threads_for_runtime",
            ),
            Anything(),
        ),
        WeightTransferEngineFactory=Anything(),
    )
    space["load_model"](Worker())
    assert len(asked) == 1, "the model is loaded, once"
    census = read(records)["census"]
    assert [(row["part"], row["kind"], row["method"], row["count"]) for row in census] == [
        ("target", "linear", "CompressedTensorsW8A8Fp8", 1),
        ("target", "moe", "Fp8MoEMethod", 1),
        ("draft", "linear", "Fp8LinearMethod", 1),
    ]
    assert census[0]["holds"] == [TORCH]
    assert {"Fp8MoeBackend.TRITON", "TritonExperts"} <= set(census[1]["holds"])
    assert (census[1]["experts"], census[1]["intermediate"]) == (512, 256)


@pytest.mark.parametrize("name", ["drafter", "speculator"])
def test_both_runners_of_vllm_have_their_draft_model_counted(name: str, records: Path) -> None:
    """vLLM 0.32 and 0.33 take the second one, whose draft model is the speculator's, wherever there is Triton."""
    part = types.SimpleNamespace(model=Model(linear(CUTLASS, "Fp8LinearMethod")))
    record.loaded(types.SimpleNamespace(model=Model(linear(TORCH)), **{name: part}))
    assert [row["part"] for row in read(records)["census"]] == ["target", "draft"]
    record.loaded(types.SimpleNamespace(model=Model(linear(TORCH)), **{name: None}))
    assert [row["part"] for row in read(records)["census"]] == ["target"]


def test_alike_layers_are_counted_in_the_census() -> None:
    rows = record.layers(Model(*[linear("TorchKernel") for _ in range(48)], object()), "target")
    assert [row["count"] for row in rows] == [48]


def test_a_census_that_fails_is_noted_and_stops_nothing(records: Path) -> None:
    class Broken:
        def named_modules(self) -> Any:
            raise RuntimeError("no modules")

    record.loaded(types.SimpleNamespace(model=Broken(), drafter=None))
    found = read(records)
    assert found["census"] == []
    assert found["errors"] == ["census of the target model: RuntimeError: no modules"]


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/records"])
def test_a_folder_that_cannot_be_written_stops_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGX_VLLM_RECORD_DIR", place)
    record.decided("moe", "routed")
    record.loaded(types.SimpleNamespace(model=None))
    assert record.current()["census"] == []


def test_nothing_that_vllm_hands_over_stops_it(records: Path) -> None:
    class Hostile:
        @property
        def model(self) -> Any:
            raise AssertionError("no model here")

    record.loaded(Hostile())
    record.decided("moe", "routed", object())  # type: ignore[arg-type]
    record.moe_config("a.json", None)  # type: ignore[arg-type]
    assert [text.partition(":")[0] for text in record.current()["errors"]] == ["loaded", "save", "moe_config"]


def test_somebody_elses_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    monkeypatch.setenv("DGX_VLLM_RECORD_DIR", str(tmp_path / "link"))
    record.decided("moe", "routed")
    assert list(target.iterdir()) == []


def test_a_kernel_that_is_a_module_of_its_own_is_seen() -> None:
    """vLLM 0.14 to 0.16: FusedMoEModularKernel is a torch module that hangs on the layer's method."""
    layer = experts("TRITON")
    kernel = vllm_class("FusedMoEModularKernel")()
    kernel.named_modules = list
    kernel.fused_experts = vllm_class("TritonExperts")()
    layer.quant_method.moe_kernel = kernel
    (row,) = record.layers(Model(layer), "target")
    assert {"FusedMoEModularKernel", "TritonExperts"} <= set(row["holds"])
