"""What the pages under docs say in tables is what the code does, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import THRESHOLDS
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server import WATCH_LIMITS

from helpers.ansible_run import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def limits(page: str) -> dict[str, str]:
    """The table of limits of a page: name -> default without its unit."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    table = text.split("| Limit | Default | Meaning |")[1].split("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (\w+)", table, re.MULTILINE))


def test_limits_of_the_watch() -> None:
    model = (ROOT / "roles/dgx_vllm/files/watch/replica_watch/model.py").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"^    (\w+): (?:float|int) = (\d+)", model, re.MULTILINE))
    assert limits("replicas.md") == {name: defaults[name] for name in WATCH_LIMITS}


def test_limits_of_the_fabric() -> None:
    wanted = {name: str(value).lower().removesuffix(".0") for name, value in THRESHOLDS.items()}
    assert limits("fabric.md") == wanted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings], (
                anchor
            )
