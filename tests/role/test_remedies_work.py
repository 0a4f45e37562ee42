"""Class D: what a message tells the operator to do can be done: its variables, values, tags, playbooks and commands."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import TABLE
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.extra_arguments import GRAMMAR
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.variables import mistakes

from helpers.ansible_run import ROOT

ROLE = ROOT / "roles/dgx_vllm"
FILLED = "X"
"""Stands for what a message fills in."""
MODULES = {file.stem for file in (ROOT / "plugins/modules").glob("*.py")}
# What a message may tell to run, and how: the beginning of a command, and what may follow.
COMMANDS = {
    "systemctl": r"(ended|gave|failed|restart|stop|status|start|daemon-reload|is-system-running|show|set-default)\b",
    "journalctl": r"(-u ([\w-]+(\.service)?|X)\b|on the node|says|exited|[^-])",
    "nvidia-ctk": r"(cdi generate --output=/etc/cdi/nvidia\.yaml|can)",
}
STANDALONE = {
    "host": "spark1", "replica": "spark1", "members": ["spark1"], "world_size": 1, "is_head": True, "rails": [],
}  # fmt: skip


def _python(path: Path) -> Iterator[str]:
    """The texts of a program without its docstrings; FILLED for what they fill in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else FILLED for p in node.values)
            continue
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in bare | inner:
            continue
        if " " in node.value and not node.value.lstrip().startswith(("module:", "- ", "---")):
            yield node.value


def _messages(node: Any) -> Iterator[str]:
    """The messages of tasks."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("fail_msg", "msg", "success_msg") and isinstance(value, str):
                yield re.sub(r"\{\{.*?\}\}", FILLED, value, flags=re.DOTALL)
            else:
                yield from _messages(value)
    elif isinstance(node, list):
        for item in node:
            yield from _messages(item)


def texts() -> list[tuple[str, str]]:
    """(file, text) of everything that the project may say to its operator."""
    found = []
    for path in sorted(
        path
        for part in ("module_utils", "plugin_utils", "action")
        for path in (ROOT / "plugins" / part).rglob("*.py")
    ):
        found += [(str(path.relative_to(ROOT)), " ".join(text.split())) for text in _python(path)]
    for path in sorted(
        [*(ROLE / "tasks").rglob("*.yml"), *(ROOT / "playbooks").rglob("*.yml"), ROOT / "site.yml"]
    ):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found += [(str(path.relative_to(ROOT)), " ".join(text.split())) for text in _messages(content)]
    return found


TEXTS = texts()


def said(pattern: str) -> list[tuple[str, str]]:
    """(what the pattern finds, where it is said)."""
    return [(match[1], f"{file}: {text}") for file, text in TEXTS for match in re.finditer(pattern, text)]


def test_the_messages_are_found() -> None:
    assert len(TEXTS) > 400
    files = {file for file, _ in TEXTS}
    assert {"plugins/module_utils/remedies.py", "roles/dgx_vllm/tasks/model/main.yml"} <= files
    assert any("--tags model" in text for _, text in TEXTS)


def test_every_variable_that_a_message_names_exists(defaults: dict[str, Any]) -> None:
    for name, where in said(r"(?<![\w.])(dgx_vllm_[a-z0-9_]+[a-z0-9])\b(?!\.yml)"):
        known = any(one == name or one.startswith(name + "_") for one in [*defaults, *MODULES])
        assert known or name == "dgx_vllm_builder", where


def test_every_tag_that_a_message_names_exists() -> None:
    tags = {"always"}
    for path in [*(ROLE / "tasks").glob("*.yml"), ROOT / "site.yml"]:
        tags |= {
            tag for found in re.findall(r"tags: \[([\w, ]+)\]", path.read_text()) for tag in found.split(", ")
        }
    named = said(r"--tags ([\w,]+)")
    assert named
    for words, where in named:
        assert set(words.rstrip(",").split(",")) <= tags, where


def test_every_playbook_that_a_message_names_exists() -> None:
    for name, where in said(r"(?<![\w./-])((?:playbooks/)?[a-z_]+\.yml)\b"):
        places = (ROOT / name, ROOT / "playbooks" / name, ROLE / "meta" / name)
        assert any(place.is_file() for place in places), where


def test_every_command_that_a_message_names_is_one() -> None:
    for command, form in COMMANDS.items():
        for rest, where in said(rf"(?<![\w/-]){command} (.*)"):
            assert re.match(form, rest), where


@pytest.mark.parametrize("module", ["sm121_patch status"])
def test_the_images_programs_that_messages_name(module: str) -> None:
    assert any(module in text for _, text in TEXTS)
    words = [sys.executable, "-B", "-m", *module.split(), "--help"]
    done = subprocess.run(words, cwd=ROOT / "files/image", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_option_of_vllm_that_a_remedy_names_exists() -> None:
    for entry in TABLE:
        for word in re.findall(r"(?<![\w-])(--[a-z][\w-]+)", entry.remedy):
            elsewhere = ("--tags", "--output")
            assert word in elsewhere or GRAMMAR.knows(word), entry.remedy


def test_every_value_that_a_message_gives_is_accepted(
    defaults: dict[str, Any], specs: dict[str, Any]
) -> None:
    """`set NAME to VALUE` and `NAME: VALUE`, in a play that is right otherwise."""
    options = specs["main"]["options"]
    good = {**defaults, "dgx_vllm_model": "org/name"}
    given = [
        (name, value, where)
        for found, where in said(r"((?:[Ss]et )?dgx_vllm_\w+(?: to |: )'?[\w.]+)")
        for name, value in re.findall(r"(dgx_vllm_\w+)(?: to |: )'?([\w.]+)", found)
        if value not in (FILLED, "a", "an", "the", "one", "it", "at", "vLLM", "what") and name in options
    ]
    assert given
    for name, value, where in given:
        choices, kind = options[name].get("choices"), options[name]["type"]
        assert not choices or value in choices, where
        assert kind != "bool" or value in ("true", "false"), where
        if kind in ("int", "float"):
            if not re.fullmatch(r"[\d.]+", value):
                continue
            changed = {**good, name: float(value) if kind == "float" else int(value)}
            assert not [one for one in mistakes(changed, options, STANDALONE) if name in one], where


def test_remedies_are_commands_that_a_shell_can_read() -> None:
    for entry in TABLE:
        for command in re.findall(r"`([^`]+)`", entry.remedy):
            assert shlex.split(command), command
