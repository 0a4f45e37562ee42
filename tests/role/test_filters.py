"""Every filter of the collection has its documentation: plugins/filter/NAME.yml, which ansible-doc reads."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.ansible_run import ROOT, command

FOLDER = ROOT / "plugins/filter"
PACKAGE = "ansible_collections.dgx_vllm.spark.plugins.filter"


def filters() -> dict[str, Callable[..., Any]]:
    """Name -> function of every filter that the collection offers."""
    found: dict[str, Callable[..., Any]] = {}
    for path in sorted(FOLDER.glob("*.py")):
        offered = importlib.import_module(f"{PACKAGE}.{path.stem}").FilterModule().filters()
        assert not found.keys() & offered.keys(), f"{path.name} offers a name twice"
        found |= offered
    return found


FILTERS = filters()
SIDECARS = {path.stem for path in FOLDER.glob("*.yml")}
DOCUMENTED = sorted(SIDECARS & FILTERS.keys())


def documentation(name: str) -> dict[str, Any]:
    content = yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))["DOCUMENTATION"]
    assert isinstance(content, dict)
    return content


def test_every_filter_is_documented() -> None:
    missing = sorted(FILTERS.keys() - SIDECARS)
    assert missing == [], f"without plugins/filter/NAME.yml: {', '.join(missing)}"


def test_no_documentation_is_left_over() -> None:
    assert sorted(SIDECARS - FILTERS.keys()) == []


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documentation_fits_the_function(name: str) -> None:
    document = documentation(name)
    assert document["name"] == name
    options = dict(document["options"])
    assert options.pop("_input")["required"] is True
    _, *parameters = inspect.signature(FILTERS[name]).parameters.values()
    assert list(options) == [parameter.name for parameter in parameters]
    for parameter in parameters:
        option = options[parameter.name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        assert option.get("required", False) == (parameter.default is inspect.Parameter.empty), parameter.name
        if parameter.default not in (inspect.Parameter.empty, None):
            assert option["default"] == parameter.default, parameter.name
    positional = [word.strip() for word in document.get("positional", "").split(",") if word.strip()]
    assert positional == list(options)[: len(positional)]
    assert {name for name, option in options.items() if option.get("required")} <= set(positional)


def test_ansible_doc_reads_every_documentation(tmp_path: Path) -> None:
    names = [f"dgx_vllm.spark.{name}" for name in DOCUMENTED]
    done = command("ansible-doc", "--type", "filter", "--json", *names, home=tmp_path)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert sorted(read) == names
    assert all(
        found["doc"]["short_description"] and found["examples"] and found["return"] for found in read.values()
    )
