"""origin: file and line of an inventory value, on every ansible-core that the collection supports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.release import __version__
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.origin import origin

KEEPS_ORIGINS = tuple(int(part) for part in __version__.split(".")[:2]) >= (2, 19)


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Variables as Ansible itself reads them from a file; dgx_vllm_port stands on line 3."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts.yml").write_text(
        "---\ndgx_vllm_replica: chat\ndgx_vllm_port: 8001\n", encoding="utf-8"
    )
    loaded: dict[str, Any] = DataLoader().load_from_file(str(tmp_path / "hosts.yml"))
    return loaded


def test_value_of_a_file_has_its_line_where_ansible_keeps_it(inventory: dict[str, Any]) -> None:
    assert origin(inventory["dgx_vllm_replica"]) == ("hosts.yml:2" if KEEPS_ORIGINS else "")
    assert origin(inventory["dgx_vllm_port"]) == ("hosts.yml:3" if KEEPS_ORIGINS else "")


@pytest.mark.parametrize("value", ["chat", 8001, None, ["a"], {"a": 1}])
def test_value_that_no_file_holds_has_none(value: Any) -> None:
    assert origin(value) == ""


def test_ansible_without_the_interface_has_none(
    inventory: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing a module whose entry in sys.modules is None raises ImportError."""
    monkeypatch.setitem(sys.modules, "ansible._internal._datatag._tags", None)
    assert origin(inventory["dgx_vllm_replica"]) == ""
