"""The patched selectors themselves, executed from released sources with stand-ins around them."""

from __future__ import annotations

import types

import pytest
from sm121_patch import engine

from helpers import vllm_sources
from helpers.selectors import (
    BLOCK,
    PER_CHANNEL,
    PER_TENSOR,
    Tree,
    choose_linear,
    choose_moe,
    is_torch,
    patched,
)
from helpers.stub_vllm import Platform, PlatformEnum, World, stubbed

LINEAR = "[vLLM SM_121] Detected GB10 (SM_121) - using torch backend for FP8 linear layers"
MOE = "[vLLM SM_121] Detected GB10 (SM_121) - using Triton backend for MOE layers"
CAPABILITIES = [(12, 0), (10, 0), (9, 0), None]
SWITCHES = ("DGX_VLLM_FP8_LINEAR", "DGX_VLLM_FP8_MOE", "DGX_VLLM_ASSUME_CAPABILITY")

every_version = pytest.mark.parametrize("version", vllm_sources.versions(*vllm_sources.ALL_VERSIONS))
pytestmark = pytest.mark.usefixtures("no_switches")


@pytest.fixture
def no_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)


@every_version
def test_gb10_takes_both_routes_and_says_so_once(
    version: str, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    root = patched(tree, version)
    world = World(Platform((12, 1)))
    with stubbed(root, world) as load:
        load("vllm._dgx_vllm_sm121")
    for config in (PER_CHANNEL, PER_TENSOR):
        assert is_torch(choose_linear(root, world, config))
        assert capsys.readouterr().out.splitlines() == [LINEAR]
    assert choose_moe(root, world) == "TRITON"
    assert capsys.readouterr().out.splitlines() == [MOE]


@pytest.mark.parametrize("version", vllm_sources.DEFAULT_VERSIONS)
def test_markers_once_a_process(version: str, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = patched(tree, version)
    with stubbed(root, World(Platform((12, 1)))) as load:
        routes = load("vllm._dgx_vllm_sm121")
        for _ in range(3):
            assert routes.linear_backend(Platform((12, 1)), "cutlass") == "torch"
            assert routes.moe_route(Platform((12, 1)))
    assert capsys.readouterr().out.splitlines() == [LINEAR, MOE]


@every_version
def test_unpatched_gb10_prints_nothing(version: str, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(version)
    world = World(Platform((12, 1)))
    assert not is_torch(choose_linear(root, world))
    assert choose_moe(root, world) != "TRITON"
    assert capsys.readouterr().out == ""


@every_version
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_other_capabilities_are_untouched(
    version: str, capability: tuple[int, int] | None, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(version)
    world = World(Platform(capability))
    before = [
        choose_linear(root, world, PER_CHANNEL),
        choose_linear(root, world, PER_TENSOR),
        choose_moe(root, world),
    ]
    engine.apply(root, root.parent / "manifest.json")
    after = [
        choose_linear(root, world, PER_CHANNEL),
        choose_linear(root, world, PER_TENSOR),
        choose_moe(root, world),
    ]
    assert after == before
    assert capsys.readouterr().out == ""


@every_version
def test_switches_give_vllms_own_choice(
    version: str, tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = patched(tree, version)
    world = World(Platform((12, 1)))
    monkeypatch.setenv("DGX_VLLM_FP8_LINEAR", "auto")
    assert not is_torch(choose_linear(root, world))
    assert choose_moe(root, world) == "TRITON"
    monkeypatch.setenv("DGX_VLLM_FP8_MOE", "auto")
    monkeypatch.setenv("DGX_VLLM_FP8_LINEAR", "torch")
    assert is_torch(choose_linear(root, world))
    assert choose_moe(root, world) != "TRITON"
    assert capsys.readouterr().out.splitlines() == [MOE, LINEAR]


@pytest.mark.parametrize("version", vllm_sources.DEFAULT_VERSIONS)
def test_bad_switch_stops_the_server(version: str, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = patched(tree, version)
    monkeypatch.setenv("DGX_VLLM_FP8_LINEAR", "cutlass")
    with pytest.raises(ValueError, match="DGX_VLLM_FP8_LINEAR='cutlass' is not a route"):
        choose_linear(root, World(Platform((12, 1))))


@pytest.mark.parametrize("version", vllm_sources.DEFAULT_VERSIONS)
def test_assumed_capability_is_loud(
    version: str, tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = patched(tree, version)
    monkeypatch.setenv("DGX_VLLM_ASSUME_CAPABILITY", "12.1")
    assert is_torch(choose_linear(root, World(Platform((9, 0)))))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[dgx-vllm] WARNING: DGX_VLLM_ASSUME_CAPABILITY=12.1") and lines[1:] == [
        LINEAR
    ]
    monkeypatch.setenv("DGX_VLLM_ASSUME_CAPABILITY", "9.0")
    assert not is_torch(choose_linear(root, World(Platform((12, 1)))))
    choose_linear(root, World(Platform(None)))
    monkeypatch.setenv("DGX_VLLM_ASSUME_CAPABILITY", "sm121")
    with pytest.raises(ValueError, match=r"write it as 12\.1"):
        choose_linear(root, World(Platform((12, 1))))


@every_version
def test_explicit_linear_backend_wins(version: str, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    minor = int(version.split(".")[1])
    if minor < 22:
        pytest.skip("this release has no --linear-backend")
    root = patched(tree, version)
    worlds = [World(Platform((12, 1)), linear_backend="cutlass")]
    if minor >= 30:
        worlds.append(World(Platform((12, 1)), linear_backend_per_quant={"fp8_w8a8": "cutlass"}))
    for world in worlds:
        assert "Cutlass" in choose_linear(root, world)
    assert capsys.readouterr().out == ""


@every_version
def test_explicit_moe_backend_wins(version: str, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    minor = int(version.split(".")[1])
    if minor < 17:
        pytest.skip("this release has no --moe-backend")
    root = patched(tree, version)
    assert choose_moe(root, World(Platform((12, 1))), moe_backend="marlin") == "MARLIN"
    assert capsys.readouterr().out == ""


@every_version
def test_block_fp8_and_int8_linear_are_untouched(
    version: str, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    minor = int(version.split(".")[1])
    if minor < 15:
        pytest.skip("in this release only per-tensor and per-channel layers reach the patched class")
    root = tree(version)
    world = World(Platform((12, 1)))
    cases = [(BLOCK, "FP8_BLOCK")] if minor >= 20 else [(BLOCK, "FP8")]
    cases.append((types.SimpleNamespace(is_channelwise=True), "INT8"))
    before = [choose_linear(root, world, *case) for case in cases]
    engine.apply(root, root.parent / "manifest.json")
    assert [choose_linear(root, world, *case) for case in cases] == before
    assert choose_linear(root, world, BLOCK, "FP8") == before[0] or minor >= 20
    assert capsys.readouterr().out == ""


@every_version
def test_triton_that_cannot_take_the_layer(
    version: str, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    minor = int(version.split(".")[1])
    if minor < 15:
        pytest.skip("this release does not ask the experts class")
    root = patched(tree, version)
    world = World(Platform((12, 1)), experts_supported=("MarlinExperts",))
    assert choose_moe(root, world) == "MARLIN"
    assert capsys.readouterr().out == ""


def test_platform_enum_is_complete() -> None:
    assert {member.name for member in PlatformEnum} >= {"CUDA", "CPU"}
