"""M11: the tag of a base image is resolved once and locked beside the inventory, on the operator's machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_vllm.spark.plugins.action.dgx_vllm_base_lock import lock
from ansible_collections.dgx_vllm.spark.plugins.filter.image import locked_digest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import image_lock

from helpers.fake_registry import DIGEST, FakeRegistry

OLD = "sha256:" + "0" * 64


def given(registry: FakeRegistry, folder: Path, **more: Any) -> dict[str, Any]:
    return {"image": f"{registry.host}/team/image:0.33.0", "path": str(folder / "dgx_vllm.lock.txt"), **more}


def test_m11_the_first_run_locks_and_later_ones_do_not_ask(registry: FakeRegistry, tmp_path: Path) -> None:
    asked = given(registry, tmp_path)
    dry = lock(asked, True)
    assert (dry["changed"], dry["digest"]) == (True, DIGEST)
    assert not Path(asked["path"]).exists()
    assert lock(asked, False)["changed"]
    assert yaml.safe_load(Path(asked["path"]).read_text())[asked["image"]]["digest"] == DIGEST
    registry.seen.clear()
    again = lock(asked, False)
    assert (again["changed"], again["digest"], registry.seen) == (False, DIGEST, [])
    assert locked_digest(asked["path"], asked["image"]) == DIGEST


def test_m11_another_digest_needs_the_operators_word(registry: FakeRegistry, tmp_path: Path) -> None:
    asked = given(registry, tmp_path)
    image_lock.write(Path(asked["path"]), asked["image"], OLD)
    image_lock.write(Path(asked["path"]), "other:1", OLD)
    assert lock(asked, False)["digest"] == OLD
    assert lock({**asked, "update": "true"}, False)["digest"] == DIGEST
    assert {name: one["digest"] for name, one in image_lock.read(Path(asked["path"])).items()} == {
        asked["image"]: DIGEST,
        "other:1": OLD,
    }


@pytest.mark.parametrize("known", ["", OLD])
def test_m11_a_registry_without_an_answer_stops_nobody(
    known: str, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.status = 503
    asked = given(registry, tmp_path, update=True)
    if known:
        image_lock.write(Path(asked["path"]), asked["image"], known)
    found = lock(asked, False)
    assert (found["changed"], found["digest"], len(found["warnings"])) == (False, known, 1)


@pytest.mark.parametrize("text", ["[1]", "a: b", "a: {digest: sha256:1}", "a: [", "{"])
def test_m11_a_damaged_lock_file_is_said(text: str, tmp_path: Path) -> None:
    file = tmp_path / "dgx_vllm.lock.txt"
    file.write_text(text)
    with pytest.raises(image_lock.LockError, match=r"restore it, or remove it so that it is written again\."):
        image_lock.read(file)
