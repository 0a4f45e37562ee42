"""What a node answers is text in the operator's reports: no script, no table of its own, no control characters."""

from __future__ import annotations

import json
import re
from pathlib import Path

from helpers.ansible_run import ROOT, inventory, play

HOSTILE = "a|b <script>alert(1)</script>\n| c | `d` \x1b[31m"
STATUS = 'pass"><script>alert(2)</script>'


def test_a_node_that_lies_puts_only_text_into_the_reports(tmp_path: Path) -> None:
    row = {
        "check": "unit",
        "status": STATUS,
        "found": HOSTILE,
        "remedy": HOSTILE,
        "reason": "",
        "where": "one",
    }
    facts = {
        "__dgx_vllm_health": {"healthy": False, "checks": [row]},
        "__dgx_vllm_node": {"state": {"current": HOSTILE, "image": {"id": HOSTILE}}},
        "dgx_vllm_model": "org/m",
    }
    tasks = [
        {"ansible.builtin.set_fact": facts},
        {"ansible.builtin.include_tasks": str(ROOT / "playbooks/tasks/report.yml")},
    ]
    places = {
        "__dgx_vllm_templates": str(ROOT / "templates"),
        "__dgx_vllm_report_dir": str(tmp_path / "reports"),
    }
    playbook = tmp_path / "play.json"
    playbook.write_text(
        json.dumps([{"hosts": "dgx_vllm", "gather_facts": False, "vars": places, "tasks": tasks}]),
        encoding="utf-8",
    )
    run = play(playbook, inventory(tmp_path / "inventory", {"one": {}}), home=tmp_path / "home")
    assert run.rc == 0, run.failure("one")
    html = (tmp_path / "reports/report.html").read_text(encoding="utf-8")
    markdown = (tmp_path / "reports/report.md").read_text(encoding="utf-8")
    assert "<script" not in html and "<script" not in markdown
    (line,) = (line for line in markdown.splitlines() if line.startswith("| unit"))
    assert line.count("|") == 5
    (shown,) = (str(result["msg"]) for task, _, result in run.results() if task.endswith("Show the report"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", shown)
