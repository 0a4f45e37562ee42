"""The role's variables: defaults and argument_specs say the same, and everything that is public is used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_vllm.spark.plugins.filter.plan import NAMES
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.nodes import DEFAULTS

from helpers.ansible_run import ROOT

ROLE = ROOT / "roles/dgx_vllm"
PUBLIC = re.compile(r"(?<![\w.])dgx_vllm_[a-z0-9_]+")
SECRET = re.compile(r"password|token|api_key|secret")
NOT_A_SECRET = {"dgx_vllm_toolkit_repo_key_url", "dgx_vllm_toolkit_repo_key_fingerprint"}
# Words that look like a variable: the modules' names, and a group.
OTHER_NAMES = {
    f"dgx_vllm_{file.stem.removeprefix('dgx_vllm_')}" for file in (ROOT / "plugins/modules").glob("*.py")
} | {"dgx_vllm_builder"}
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}
Specs = dict[str, Any]


def sources() -> list[Path]:
    """Every file in which a variable can be used."""
    places = [
        path for folder in ("tasks", "handlers", "templates", "vars") for path in (ROLE / folder).rglob("*")
    ]
    plays = [ROOT / "site.yml", *(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "templates").iterdir()]
    return sorted(path for path in places + plays if path.is_file())


def code(path: Path) -> str:
    """The text without YAML comments and without the names of the collection's modules and filters."""
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")
    ]
    return re.sub(r"dgx_vllm\.spark\.\w+", "", "\n".join(lines))


def internal() -> Specs:
    """The variables of vars/main/*.yml."""
    found: Specs = {}
    for path in sorted((ROLE / "vars/main").glob("*.yml")):
        found |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def used() -> dict[str, set[str]]:
    """Public-looking name -> the files that use it."""
    found: dict[str, set[str]] = {}
    plugins = (ROOT / "plugins/plugin_utils").rglob("*.py")
    for path in [*sources(), *plugins]:
        for name in PUBLIC.findall(code(path)):
            found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    for name in (name for name in NAMES if name.startswith("dgx_vllm_")):
        found.setdefault(name, set()).add("the filter topology")
    return found


def test_every_entry_point_has_the_same_options(specs: Specs) -> None:
    assert {"main", "preflight", "health", "rollback", "uninstall"} <= set(specs)
    for name, spec in specs.items():
        assert spec["options"] == specs["main"]["options"], name
        assert spec["short_description"], name


def test_every_entry_point_has_its_tasks(specs: Specs) -> None:
    for name in specs:
        assert (ROLE / f"tasks/{name}.yml").is_file(), name


def test_entry_points_of_the_playbooks_are_validated(specs: Specs) -> None:
    """A play that runs the role from somewhere else must start where the variables are checked."""
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        stages = re.findall(r"tasks_from: ((?!common/(?:un)?lock)\w+)", path.read_text(encoding="utf-8"))
        if stages:
            assert stages[0] in specs, f"{path.name} starts at {stages[0]}, which validates nothing"


def test_names_are_the_same(specs: Specs, defaults: Specs) -> None:
    assert set(specs["main"]["options"]) == set(defaults)
    assert list(specs["main"]["options"]) == list(defaults), "the same order, for the reader"


def test_values_are_the_same(specs: Specs, defaults: Specs) -> None:
    said = {name: option["default"] for name, option in specs["main"]["options"].items()}
    assert said == defaults
    assert {name: type(value) for name, value in said.items()} == {
        name: type(defaults[name]) for name in said
    }


def test_the_topology_has_the_same_defaults(defaults: Specs) -> None:
    """Variables of hosts that run another role, or are only planned, have no defaults but those of the filter."""
    assert {name: defaults[f"dgx_vllm_{name}"] for name in DEFAULTS} == DEFAULTS


def test_defaults_have_their_type(specs: Specs, defaults: Specs) -> None:
    for name, option in specs["main"]["options"].items():
        value = defaults[name]
        assert isinstance(value, TYPES[option["type"]]), name
        assert isinstance(value, bool) == (option["type"] == "bool"), name
        assert not option.get("choices") or value in option["choices"], name
        assert option["type"] != "list" or option.get("elements"), f"{name}: a list of what?"


def test_every_option_is_described_in_a_sentence(specs: Specs) -> None:
    for name, option in specs["main"]["options"].items():
        text = " ".join(option["description"].split())
        assert text[0].isupper() or text.startswith(("C(", "vLLM")), name
        assert text.endswith("."), name


def test_names_start_with_that_of_the_role(defaults: Specs) -> None:
    assert all(name.startswith("dgx_vllm_") for name in defaults)


def test_secrets_are_not_logged(specs: Specs) -> None:
    for name, option in specs["main"]["options"].items():
        if SECRET.search(name) and name not in NOT_A_SECRET:
            assert option.get("no_log") is True, name
            assert option["default"] == "", f"{name} has no default value"


def test_every_used_name_is_public(defaults: Specs) -> None:
    unknown = {
        name: files for name, files in used().items() if name not in defaults and name not in OTHER_NAMES
    }
    assert unknown == {}


def test_every_public_name_is_used(defaults: Specs) -> None:
    assert set(defaults) - set(used()) == set()


def test_internal_names_cannot_be_mistaken_for_public_ones() -> None:
    for path in sources():
        for task_name in re.findall(r"register: (\w+)", code(path)):
            assert task_name.startswith("__dgx_vllm_"), f"{path.name}: {task_name}"
    assert all(name.startswith("__dgx_vllm_") for name in internal())


def test_every_internal_name_is_set_somewhere() -> None:
    texts = {path: code(path) for path in sources()}
    everything = "\n".join(texts.values())
    known = set(internal())
    known |= set(
        re.findall(r"(?:register: |loop_var: |^\s+)(__dgx_vllm_\w+)(?::|\s|$)", everything, re.MULTILINE)
    )
    assert set(re.findall(r"__dgx_vllm_[a-z0-9_]+", everything)) - known == set()


def test_every_boolean_is_cast(specs: Specs) -> None:
    """`-e dgx_vllm_x=false` is the string "false", which is true."""
    booleans = {name for name, option in specs["main"]["options"].items() if option["type"] == "bool"}
    for path in sources():
        for name, after in re.findall(r"(?<![\w.])(dgx_vllm_[a-z0-9_]+)\b([^}\n]{0,12})", code(path)):
            assert name not in booleans or re.match(r"\s*\|\s*bool\b", after), f"{path.name}: {name}"


def test_every_compared_number_is_cast(specs: Specs) -> None:
    """`-e dgx_vllm_x=1` is the string "1", which cannot be compared with or added to a number."""
    numbers = {
        name for name, option in specs["main"]["options"].items() if option["type"] in ("int", "float")
    }
    for path in sources():
        for name, sign in re.findall(
            r"(?<![\w.])(dgx_vllm_[a-z0-9_]+)\s*([<>=!+*/-]{1,2})\s*(?!\s*['\"])", code(path)
        ):
            assert name not in numbers or sign == "=", f"{path.name}: {name} {sign}"


def test_no_file_is_longer_than_400_lines() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    own = [ROOT / name for name in listed.stdout.split("\0") if name and "requirements" not in name]
    own = [path for path in own if path.is_file() and not {"locks", "golden", "results"} & set(path.parts)]
    long = {}
    for path in own:
        count = path.read_bytes().count(b"\n")
        if count > 400:
            long[path.name] = count
    long.pop("argument_specs.yml", None)  # Ansible reads one file a role
    assert long == {}


def test_readme_has_the_table_of_the_specs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/readme"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
