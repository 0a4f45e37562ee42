"""Every ansible-core that the collection claims has a lane: in its lock files, in make test-all and in the workflow."""

from __future__ import annotations

import re
import subprocess

import yaml

from helpers.ansible_run import ROOT

CLAIMED = ["2.18", "2.19", "2.20", "2.21"]
INSTALLED = "2.19"
"""That of requirements.in."""


def test_the_oldest_lane_is_what_the_collection_requires() -> None:
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))
    assert runtime["requires_ansible"] == f">={CLAIMED[0]}.0"


def test_each_lane_has_its_lock_or_is_the_installed_one() -> None:
    locked = {}
    for file in [ROOT / "requirements.txt", *(ROOT / "tests/locks").glob("core-*.txt")]:
        (core,) = re.findall(r"^ansible-core==(\d+\.\d+)\.", file.read_text(encoding="utf-8"), re.MULTILINE)
        locked[file.stem] = core
    others = {f"core-{core}": core for core in CLAIMED if core != INSTALLED}
    assert locked == {"requirements": INSTALLED, **others}


def listed() -> str:
    """The parts of make test-all, as it lists them."""
    return subprocess.run(
        [str(ROOT / "scripts/test"), "--list"], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_every_scenario_is_a_part() -> None:
    scenarios = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")}
    assert scenarios
    assert scenarios <= set(re.findall(r"^ +(\S+)", listed(), re.MULTILINE))


def test_make_test_all_and_the_workflow_run_each_lane() -> None:
    parts = listed()
    assert re.findall(r"^ +core-(\S+)", parts, re.MULTILINE) == CLAIMED
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    checks = workflow["jobs"]["versions"]["strategy"]["matrix"]["check"]
    assert checks == [*(f"lane {core}" for core in CLAIMED), "sanity"]


def test_each_core_knows_what_sanity_ignores() -> None:
    ignored = {file.stem.removeprefix("ignore-") for file in (ROOT / "tests/sanity").glob("ignore-*.txt")}
    assert ignored == set(CLAIMED)
