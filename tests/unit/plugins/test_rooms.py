"""Each kind of code stays in its room: a node's code, the operator's code, filters with their documentation."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = ROOT / "plugins"
COLLECTION = "ansible_collections.dgx_vllm.spark."
SHARED = {"deadline", "__init__", "command", "files", "finding", "remedies", "revert", "systemd"}
LONGEST_FUNCTION = 70
LONGEST_VARS_FILE = 80

FILTER_FILES = sorted(path for path in (PLUGINS / "filter").glob("*.py") if path.stem != "__init__")


def module_name(path: Path) -> str:
    """The dotted name of a file of the collection, such as plugins.module_utils.fabric.rails."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports: those of this collection from `plugins` on, relative ones resolved."""
    package = module_name(path) if path.stem == "__init__" else module_name(path).rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = package.split(".")
                module = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [module])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix(COLLECTION) for name in names}


def files_of(names: set[str]) -> set[Path]:
    """The files of the collection among imported names."""
    paths = set()
    for name in names:
        place = ROOT.joinpath(*name.split("."))
        paths |= {path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()}
    return paths


def reached(path: Path) -> set[Path]:
    """The file and every file of the collection that importing it loads."""
    seen: set[Path] = set()
    todo = {path}
    while todo:
        following = todo.pop()
        seen.add(following)
        todo |= files_of(imports(following)) - seen
    return seen


NODE_FILES = sorted(
    [*(PLUGINS / "modules").glob("*.py"), *(PLUGINS / "module_utils").rglob("*.py")], key=module_name
)


@pytest.mark.parametrize("path", NODE_FILES, ids=module_name)
def test_code_of_a_node_never_reaches_the_operators_code(path: Path) -> None:
    rooms = {found.relative_to(PLUGINS).parts[0] for found in reached(path)}
    assert rooms <= {"modules", "module_utils"}


@pytest.mark.parametrize("path", NODE_FILES, ids=module_name)
def test_code_of_a_node_needs_nothing_that_a_node_may_lack(path: Path) -> None:
    for name in imports(path):
        ours = name.startswith(("plugins.module_utils", "ansible.module_utils"))
        assert ours or name.split(".")[0] in sys.stdlib_module_names, name


def test_a_module_reaches_its_helpers() -> None:
    """The two tests above would pass if imports were not followed."""
    assert PLUGINS / "module_utils/fabric/sysfs.py" in reached(PLUGINS / "modules/dgx_vllm_fabric.py")
    assert PLUGINS / "plugin_utils/plan/read.py" in reached(PLUGINS / "filter/plan.py")


def test_module_utils_has_packages_and_a_shared_handful() -> None:
    assert {path.stem for path in (PLUGINS / "module_utils").glob("*.py")} <= SHARED


def test_private_interfaces_of_ansible_are_used_in_one_file() -> None:
    users = {
        path.name
        for path in PLUGINS.rglob("*.py")
        if any(name.startswith("ansible._internal") for name in imports(path))
    }
    assert users == {"origin.py"}


def filters(path: Path) -> set[str]:
    module = importlib.import_module(f"{COLLECTION}plugins.filter.{path.stem}")
    return set(module.FilterModule().filters())


@pytest.mark.parametrize("path", FILTER_FILES, ids=lambda path: path.stem)
def test_every_filter_is_documented(path: Path) -> None:
    for name in filters(path):
        text = yaml.safe_load((PLUGINS / f"filter/{name}.yml").read_text(encoding="utf-8"))
        assert text["DOCUMENTATION"]["name"] == name
        assert text["DOCUMENTATION"]["options"]["_input"]["required"] is True
        assert text["EXAMPLES"] and f"dgx_vllm.spark.{name}" in text["EXAMPLES"]
        assert text["RETURN"]["_value"]["type"]


def test_every_documented_filter_exists() -> None:
    names = {name for path in FILTER_FILES for name in filters(path)}
    assert {path.stem for path in (PLUGINS / "filter").glob("*.yml")} <= names


def test_variables_of_the_role_are_short_files() -> None:
    for path in (ROOT / "roles/dgx_vllm/vars/main").glob("*.yml"):
        assert path.read_text(encoding="utf-8").count("\n") <= LONGEST_VARS_FILE, path.name


def test_functions_are_short() -> None:
    for folder in ("plugins", "roles", "files", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    assert lines <= LONGEST_FUNCTION, (
                        f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"
                    )
