"""The English of what people read: phrases that make an engineer read twice do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.ansible_run import ROOT

PLACES = (
    "README.md",
    "CONTRIBUTING.md",
    "site.yml",
    "docs",
    "files/image",
    "inventory",
    "playbooks",
    "plugins",
    "roles",
    "templates",
)
SUFFIXES = {".py", ".yml", ".j2", ".md", ".sh", ".service", ""}
# Phrase to avoid -> what to write instead.
PHRASES = {
    r"mend(?:s|ed|ing)?": "fix, correct",
    r"anew": "again",
    r"(?<!there )is no(?! longer\b)": "is not a",
    r"way back": "automatic revert, rollback",
    r"further runs?": "another run",
    r"it said(?=:)": "output",
}


def texts() -> dict[str, str]:
    """Name -> content of every file that people read or whose messages they get."""
    files: list[Path] = []
    for place in PLACES:
        path = ROOT / place
        files += [path] if path.is_file() else sorted(path.rglob("*"))
    kept = (file for file in files if file.is_file() and file.suffix in SUFFIXES)
    return {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
        for file in kept
        if not {"locks", "__pycache__"} & set(file.parts)
    }


def occurrences(phrase: str, content: str) -> list[str]:
    """`LINE: text` of each place that has the phrase, wrapped or not."""
    lines = content.splitlines()
    words = [(number, word.strip("\"'")) for number, line in enumerate(lines) for word in line.split()]
    words = [(number, word) for number, word in words if word not in ("", "#")]
    flat = " ".join(word for _, word in words)
    matches = re.finditer(rf"\b{phrase}\b", flat, re.IGNORECASE)
    numbers = [words[flat.count(" ", 0, match.start())][0] for match in matches]
    return [f"{number + 1}: {lines[number].strip()}" for number in numbers]


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrase_is_gone(phrase: str) -> None:
    places = [f"{name}:{place}" for name, text in texts().items() for place in occurrences(phrase, text)]
    assert not places, f"write {PHRASES[phrase]!r} instead:\n" + "\n".join(places)


def test_phrases_are_found_where_they_are() -> None:
    text = "There is no peer.\nIt is\n# no rail, so mend it; its way\nback. It is no longer there,\nthere\nis no more."
    assert [place[0] for place in occurrences(r"(?<!there )is no(?! longer\b)", text)] == ["2"]
    assert [place[0] for place in occurrences(r"mend(?:s|ed|ing)?", text)] == ["3"]
    assert [place[0] for place in occurrences("way back", text)] == ["3"]
