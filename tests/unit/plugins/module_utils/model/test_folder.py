"""Class C, R9: a folder counts as a model if vLLM finds one there, and if the containers may use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model import folder

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4"


def made(place: Path, **files: str) -> Path:
    for name, text in files.items():
        (place / name).write_text(text, encoding="utf-8")
    return place


def index(*names: str) -> str:
    return json.dumps({"weight_map": {f"layer.{number}": name for number, name in enumerate(names)}})


@pytest.mark.parametrize(
    ("files", "lacking"),
    [
        ({}, "has no config.json"),
        ({"model.safetensors": "x"}, "has no config.json"),
        ({"config.json": "{}"}, "has no weights"),
        ({"config.json": "{}", "model.safetensors": ""}, "has no weights"),
        ({"config.json": "{}", "model.safetensors": "x"}, ""),
        ({"params.json": "{}", "consolidated.safetensors": "x"}, ""),
        ({"config.json": "{}", "model.gguf": "x"}, ""),
        (
            {"config.json": "{}", "a.safetensors": "x",
             "model.safetensors.index.json": index("a.safetensors", "b.safetensors")},
            "lacks b.safetensors, which model.safetensors.index.json names (1 missing)",
        ),
        (
            {"config.json": "{}", "a.safetensors": "x", "model.safetensors.index.json": index("a.safetensors")},
            "",
        ),
        ({"config.json": "{}", "a.safetensors": "x", "pytorch_model.bin.index.json": index("b.bin")}, ""),
        ({"config.json": "{}", "model.safetensors": "x", "model.safetensors.index.json": "["}, ""),
        (
            {"config.json": "{}", "a.safetensors": POINTER},
            "has a Git LFS pointer in place of a.safetensors (git lfs pull fetches the file)",
        ),
    ],
)  # fmt: skip
def test_what_a_folder_lacks(files: dict[str, str], lacking: str, tmp_path: Path) -> None:
    assert folder.lacking(made(tmp_path, **files)) == lacking


def test_no_folder_at_all(tmp_path: Path) -> None:
    assert folder.lacking(tmp_path / "none") == "does not exist"


def test_what_is_compared_are_names_sizes_and_the_content_of_small_files(tmp_path: Path) -> None:
    one = made(
        tmp_path, **{"config.json": "{}", "a.safetensors": "12345", "README.md": "x", ".hidden.json": "{}"}
    )
    assert folder.compared(one) == {"a.safetensors": "5", "config.json": "2 44136fa355b3"}


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"num_attention_heads": 64}, 64),
        ({"text_config": {"num_attention_heads": 16}}, 16),
        ({"num_attention_heads": [4, 8]}, None),
        ({}, None),
        ([], None),
    ],
)
def test_attention_heads_of_a_configuration(config: object, heads: int | None, tmp_path: Path) -> None:
    assert folder.heads(made(tmp_path, **{"config.json": json.dumps(config)})) == heads


@pytest.mark.parametrize(("mode", "owner", "read", "write"), [
    (0o755, True, False, False), (0o700, True, False, False), (0o555, True, False, True),
    (0o755, False, False, True), (0o750, False, True, True), (0o777, False, False, False),
    (0o744, False, True, True),
])  # fmt: skip
def test_a_folder_of_another_user_is_closed_to_root_without_capabilities(
    mode: int, owner: bool, read: bool, write: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R9: --cap-drop=ALL takes DAC_OVERRIDE, so owner and mode decide for root, too."""
    place = tmp_path / "models"
    place.mkdir()
    place.chmod(mode)
    if not owner:
        monkeypatch.setattr(folder.os, "geteuid", lambda: place.stat().st_uid + 1)
        monkeypatch.setattr(folder.os, "getegid", lambda: place.stat().st_gid + 1)
    try:
        assert folder.barred([tmp_path / "none", place]) == (str(place) if read else "")
        assert folder.barred([place], write=True) == (str(place) if write else "")
    finally:
        place.chmod(0o755)
