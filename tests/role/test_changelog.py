"""CHANGELOG.rst has the collection's version, and what waits for the next release can be released."""

from __future__ import annotations

import re

import yaml

from helpers.ansible_run import ROOT


def test_changelog_has_the_version_of_the_collection() -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    releases = yaml.safe_load((ROOT / "changelogs/changelog.yaml").read_text(encoding="utf-8"))["releases"]
    titles = re.findall(r"^v(\S+)\n=+$", (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8"), re.MULTILINE)
    assert titles[0] == version
    assert set(titles) == set(releases)


def test_fragments_have_known_sections() -> None:
    config = yaml.safe_load((ROOT / "changelogs/config.yaml").read_text(encoding="utf-8"))
    known = {name for name, _ in config["sections"]}
    known |= {config["prelude_section_name"], config["trivial_section_name"]}
    for path in (ROOT / "changelogs/fragments").glob("*"):
        assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) <= known, path.name
