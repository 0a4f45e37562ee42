"""What the pages under docs say in tables is what the code does, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.limits import THRESHOLDS
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.watch import WATCH_LIMITS

from helpers.ansible_run import ROOT

ROLE = ROOT / "roles/dgx_vllm"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROLE / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "tests").rglob("*.md")),
]
ARCHITECTURE = ROOT / "docs/architecture.md"


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert anchor in anchors, anchor


def quoted() -> list[str]:
    """What docs/architecture.md has in backticks, without its picture."""
    text = re.sub(
        r"^```.*?^```", "", ARCHITECTURE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return re.findall(r"`([^`\n]+)`", text)


def modules(name: str) -> list[Path]:
    """The Python files of a path that is a file, a package, or a module without its suffix."""
    path = ROOT / name
    return (
        sorted(path.rglob("*.py")) if path.is_dir() else [path if path.exists() else path.with_suffix(".py")]
    )


def test_every_path_of_the_architecture_exists() -> None:
    """A path with a folder is one of this repository; a bare file name is that of a file in it."""
    folders = ("plugins", "roles", "docs", "files", "playbooks", "templates", "tests", "molecule", "scripts")
    names = {path.name for folder in folders for path in (ROOT / folder).rglob("*")}
    names |= {path.name for path in ROOT.iterdir()}
    paths = [word for word in quoted() if re.fullmatch(r"\w[\w./-]*/[\w./-]*|\w[\w-]*\.(py|yml|j2|md)", word)]
    assert len(paths) > 40
    missing = [path for path in paths if not ((ROOT / path).exists() if "/" in path else path in names)]
    assert [path for path in missing if not (ROOT / f"{path}.py").exists()] == []


def test_every_name_of_the_architecture_exists() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    functions = re.findall(r"`([\w/.]+)`, function `(\w+)`", text)
    assert functions
    for place, function in functions:
        sources = [file.read_text(encoding="utf-8") for file in modules(place)]
        assert any(re.search(rf"^ *def {function}\(", source, re.MULTILINE) for source in sources), (
            f"{place}: {function}"
        )
    used = "".join(path.read_text(encoding="utf-8") for path in ROLE.rglob("*.yml"))
    for name in (word for word in quoted() if re.fullmatch(r"(__)?dgx_vllm_\w+", word)):
        assert re.search(rf"\b{name}\b", used), name


def test_architecture_has_every_folder_of_code() -> None:
    """A new room of the plugins has its place in the picture, the tables or the decisions."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    for folder in sorted(
        path for path in (ROOT / "plugins").glob("*_utils/*/") if path.name != "__pycache__"
    ):
        assert f"{folder.parent.name}/{folder.name}" in text, folder.name
