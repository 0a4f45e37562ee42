"""Jinja stays readable: what needs more than four filters is a filter of its own, in Python and with tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

from helpers.ansible_run import ROOT

MOST = 4
BARE = {"when", "that", "until", "changed_when", "failed_when"}
"""Keys whose values are expressions without braces."""

JINJA = Environment()


def pipes(text: str) -> list[int]:
    """Number of filters in each expression and each statement of a template."""
    found: list[int] = []
    for _, kind, value in JINJA.lex(text):
        if kind in ("variable_begin", "block_begin"):
            found.append(0)
        elif (kind, value) == ("operator", "|"):
            found[-1] += 1
    return found


def templates(value: Any, bare: bool = False) -> Iterator[str]:
    """Every string in YAML that Ansible templates; a bare expression gets its braces."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from templates(part, key in BARE)
    elif isinstance(value, list):
        for part in value:
            yield from templates(part, bare)
    elif isinstance(value, str):
        yield f"{{{{ {value} }}}}" if bare and "{{" not in value else value


def sources() -> list[Path]:
    """The role, the playbooks and the templates beside them."""
    folders = ("tasks", "handlers", "templates", "vars", "defaults")
    places = [path for folder in folders for path in (ROOT / "roles/dgx_vllm" / folder).rglob("*")]
    plays = [ROOT / "site.yml", *(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "templates").iterdir()]
    return sorted(path for path in places + plays if path.suffix in (".yml", ".j2"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_expression_has_more_than_four_pipes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    texts = [text] if path.suffix == ".j2" else list(templates(yaml.safe_load(text)))
    long = [one for one in texts if max(pipes(one), default=0) > MOST]
    assert long == []


def test_pipes_are_counted_by_expression() -> None:
    assert pipes("{{ a | b | c }} and {{ d }}{% for e in f | g %}{% endfor %} | h") == [2, 0, 1, 0]
    assert pipes("{{ 'a | b' }}") == [0]
    task = {"name": "{{ a }}", "assert": {"that": ["b | c"], "fail_msg": "d"}, "when": "e | f", "loop": [1]}
    assert list(templates(task)) == ["{{ a }}", "{{ b | c }}", "d", "{{ e | f }}"]
