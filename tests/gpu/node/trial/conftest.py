"""Steps of the trial: each is kept in results.json as soon as it has ended, and not repeated once it has passed."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from testlib.node import Node, connect
from testlib.runs import Operator

OUT = Path(os.environ.get("TRIAL_OUT", "/out"))
BEGUN = time.monotonic()
LEFT = float(os.environ.get("TRIAL_LEFT", "1500"))
NO_TIME = "no time is left for it"
ALONE = ("test_bare_node", "test_first_run", "test_uninstall")
"""Steps of role.py that are worth taking although site.yml has failed."""


class Results:
    """results.json: name -> {title, status, seconds, facts, lines, error}, in the order of the steps."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.steps: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}

    def write(self) -> None:
        unfinished = self.file.with_suffix(".new")
        unfinished.write_text(json.dumps(self.steps, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.file)

    def passed(self, name: str) -> bool:
        return self.steps.get(name, {}).get("status") == "passed"


RESULTS = Results(OUT / "results.json")


class Step:
    """What a step leaves in the report: facts by name, and lines of a log as they were."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.lines: list[str] = []

    def show(self, text: str, *patterns: str, most: int = 8) -> None:
        """Keep the lines in which one of the patterns is found, each once."""
        for line in text.splitlines():
            if (
                len(self.lines) < most
                and line not in self.lines
                and any(re.search(p, line) for p in patterns)
            ):
                self.lines.append(line[:300])


def name_of(item: pytest.Item) -> str:
    """file.test[parameter]"""
    return f"{item.path.stem}.{item.name.removeprefix('test_')}"


def marked(item: pytest.Item) -> tuple[str, float]:
    """(title, seconds that the step needs)."""
    marker = item.get_closest_marker("step")
    title = marker.args[0] if marker else name_of(item)
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        title += f" ({', '.join(map(str, item.callspec.params.values()))})"
    return title, float(marker.kwargs.get("needs", 60)) if marker else 60.0


def say(text: str) -> None:
    """One line of progress.log, which can be watched."""
    with (OUT / "progress.log").open("a", encoding="utf-8") as stream:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=stream)


def pytest_runtest_setup(item: pytest.Function) -> None:
    """Skip what an earlier run has done, and what would not end in time."""
    title, needs = marked(item)
    if RESULTS.passed(name_of(item)):
        pytest.skip("passed in an earlier run")
    if item.path.stem == "role" and item.originalname not in ALONE and not RESULTS.passed("role.first_run"):
        RESULTS.steps.setdefault(name_of(item), {"title": title, "status": "left"})
        RESULTS.write()
        pytest.skip("site.yml has not succeeded")
    left = LEFT - (time.monotonic() - BEGUN)
    if left < needs:
        RESULTS.steps.setdefault(name_of(item), {"title": title, "status": "left"})
        RESULTS.write()
        pytest.skip(f"{NO_TIME}: {left:.0f} s, it needs {needs:.0f}")
    say(f"begin {title}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Keep the result of a step."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped or (report.when != "call" and report.passed):
        return
    title, _ = marked(item)
    step = getattr(item, "trial_step", Step())
    row = {
        "title": title,
        "status": "passed" if report.passed else "failed",
        "seconds": round(report.duration, 1),
        "facts": step.facts,
        "lines": step.lines,
    }
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        row["error"] = str(crash.message if crash else report.longrepr)[:1500]
    RESULTS.steps.pop(name_of(item), None)
    RESULTS.steps[name_of(item)] = row
    RESULTS.write()
    say(f"{row['status']} {title} {row['seconds']} s {step.facts}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """124 when nothing failed and steps are left for the next run."""
    if exitstatus == 0 and any(step["status"] == "left" for step in RESULTS.steps.values()):
        session.exitstatus = 124


@pytest.fixture
def step(request: pytest.FixtureRequest) -> Step:
    """What this step leaves in the report."""
    request.node.trial_step = Step()
    found: Step = request.node.trial_step
    return found


@pytest.fixture(scope="session")
def operator() -> Operator:
    """Runs playbooks against the inventory of one node; its runs' outputs are in /root/runs of the operator's room."""
    folder = Path("/root/runs")
    folder.mkdir(exist_ok=True)
    return Operator(Path(__file__).parent / "inventory" / "single.yml", folder)


@pytest.fixture(scope="session")
def node(operator: Operator) -> Iterator[Node]:
    """The node with the GPU; what it logged is kept when the tests end."""
    found = connect(operator.inventory)
    yield found
    journal = found.host.run(
        "journalctl --no-pager -o short-precise -u dgx-vllm -u docker | tail -n 3000"
    ).stdout
    (OUT / "journal.log").write_text(str(journal)[-4_000_000:], encoding="utf-8")
