"""tasks/service/main.yml on this machine: what becomes of a replica's watch; restarts are stubbed."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.cases import read_cases
from helpers.releases import systemctl
from helpers.stages import ROLE, Stages


def node(**watch: Any) -> dict[str, Any]:
    state = copy.deepcopy(read_cases()["all"]["vars"]["__dgx_vllm_node"]["state"])
    state["docker"]["version"] = "27.5.1"
    state["service"] = {
        "release": None, "exists": True, "unit_sha256": "", "active_state": "active", "enabled": True,
    }  # fmt: skip
    state["watch"] = {"active_state": "active", "unit_sha256": "", "release": "r1", **watch}
    return {"__dgx_vllm_node": {"state": state}, "dgx_vllm_model": "org/m"}


def deployed(place: Path, *stubs: str) -> Stages:
    stages = Stages(place, "common/state", "service/restart", "service/watch", *stubs)
    systemctl(stages, enabled=True)
    both = {
        "name": "Both",
        "ansible.builtin.include_tasks": "{{ item }}.yml",
        "loop": ["common/validate", "service/main"],
    }
    (stages.tasks / "both.yml").write_text(json.dumps([both]), encoding="utf-8")
    return stages


def test_a_node_that_is_standalone_now_has_no_watch(tmp_path: Path) -> None:
    stages = deployed(tmp_path)
    for path in ("etc/watch.json", "etc/watch.secret", "lib/state/watch.json", "watch/code.py"):
        stages.node("one", path).parent.mkdir(parents=True, exist_ok=True)
        stages.node("one", path).touch()
    run = stages.run("both", {"one": node(exists=True, enabled=True)})
    assert run.rc == 0, run.failure("one")
    for path in ("etc/watch.json", "etc/watch.secret", "lib/state/watch.json", "watch"):
        assert not stages.node("one", path).exists()
    calls = stages.calls
    assert calls.index("systemctl disable dgx-vllm-watch.service") < calls.index("one service/restart")


def test_a_node_that_never_had_a_watch_is_not_asked_about_it(tmp_path: Path) -> None:
    stages = deployed(tmp_path, "uninstall/watch")
    run = stages.run("both", {"one": node(exists=False, enabled=False)})
    assert run.rc == 0, run.failure("one")
    assert "one uninstall/watch" not in stages.calls


@pytest.mark.parametrize("enabled", [True, False])
def test_the_watch_starts_at_boot_where_the_server_does(enabled: bool, tmp_path: Path) -> None:
    stages = deployed(tmp_path)
    pair = read_cases()["all"]["hosts"]["pair_head"]
    hosts = {name: {**pair, **node(exists=True, enabled=True)} for name in ("one", "two")}
    run = stages.run("both", hosts, dgx_vllm_service_enabled=enabled)
    assert run.rc == 0, [run.failure(host) for host in hosts]
    assert stages.calls.count("systemctl disable dgx-vllm-watch.service") == 2, "the release is new"
    for host, known in hosts.items():
        (release,) = (path.name for path in stages.node(host, "etc/releases").iterdir())
        known["__dgx_vllm_node"]["state"] |= {"current": release}
    run = stages.run("both", hosts, dgx_vllm_service_enabled=enabled)
    assert run.rc == 0, [run.failure(host) for host in hosts]
    assert stages.calls.count("systemctl disable dgx-vllm-watch.service") == (0 if enabled else 2)


def test_needrestart_leaves_the_server_and_its_watch_alone(tmp_path: Path) -> None:
    """S1: needrestart takes the first pattern that matches a unit's name, and reads the files as Perl."""
    stages = deployed(tmp_path, "uninstall/watch")
    assert stages.run("both", {"one": node(exists=False, enabled=False)}).rc == 0
    file = stages.node("one", "needrestart/conf.d/dgx-vllm.conf")
    assert "qr(^dgx-vllm)} = 0;" in file.read_text(encoding="utf-8")
    if not shutil.which("perl"):
        pytest.skip("perl is not installed")
    script = (
        "our %nrconf = (override_rc => {qr(^dbus) => 0}); my $f = shift;"
        " eval do { local(@ARGV, $/) = $f; <> }; die $@ if $@;"
        " for my $rc (@ARGV) { my $restart = 1; for my $re (sort keys %{$nrconf{override_rc}}) {"
        " next unless $rc =~ /$re/; $restart = $nrconf{override_rc}->{$re}; last } print $restart }"
    )
    units = ["dgx-vllm.service", "dgx-vllm-watch.service", "docker.service"]
    done = subprocess.run(
        ["perl", "-e", script, str(file), *units], capture_output=True, text=True, check=True
    )
    assert done.stdout == "001"


def test_an_interrupted_run_leaves_nothing_unproven_that_a_boot_would_start(tmp_path: Path) -> None:
    """B5: the unit of an unproven release is disabled before its file replaces the accepted one's."""
    stages = deployed(tmp_path, "uninstall/watch")
    main = json.loads(
        json.dumps(yaml.safe_load((stages.tasks / "service/main.yml").read_text(encoding="utf-8")))
    )
    names = [task["name"] for task in main]
    interrupted = main[: names.index("Install the unit") + 1]
    (stages.tasks / "service/main.yml").write_text(json.dumps(interrupted), encoding="utf-8")
    run = stages.run("both", {"one": node(exists=False, enabled=False)})
    assert run.rc == 0, run.failure("one")
    assert "systemctl disable dgx-vllm.service" in stages.calls
    assert stages.node("one", "dgx-vllm.service").exists()


@pytest.mark.parametrize(
    "left",
    [{"service": {"needs_reload": True}}, {"container": {"release": "r0"}}, {"container": {"release": None}}],
)
def test_the_next_run_restarts_the_server_of_the_release_before(left: dict[str, Any], tmp_path: Path) -> None:
    """B5: the unit is in place already, and the server that runs was started from the one before."""
    stages = deployed(tmp_path, "uninstall/watch")
    one = node(exists=False, enabled=False)
    state = one["__dgx_vllm_node"]["state"]
    assert stages.run("both", {"one": one}).rc == 0
    unit = stages.node("one", "dgx-vllm.service").read_bytes()
    state["service"] |= {"unit_sha256": hashlib.sha256(unit).hexdigest(), "enabled": False}
    for part, values in left.items():
        state[part] = {**state.get(part, {}), **values}
    run = stages.run("both", {"one": one})
    assert run.rc == 0, run.failure("one")
    assert ("one service/restart" in stages.calls) is (left != {"container": {"release": None}})


@pytest.mark.parametrize("accepted", [None, "current", "previous"])
def test_a_release_that_never_served_does_not_start_at_boot(accepted: str | None, tmp_path: Path) -> None:
    """B5: a start that freezes the machine would freeze it again after each power cycle."""
    stages = deployed(tmp_path, "uninstall/watch")
    shutil.copy(ROLE / "tasks/service/restart.yml", stages.tasks / "service/restart.yml")
    one = node(exists=False, enabled=False)
    for _ in range(2):
        run = stages.run("both", {"one": one})
        assert run.rc == 0, run.failure("one")
        (release,) = (path.name for path in stages.node("one", "etc/releases").iterdir())
        one["__dgx_vllm_node"]["state"] |= {accepted or "other": release}
    calls = [call for call in stages.calls if call.split()[1] in ("disable", "stop", "start")]
    first = ["systemctl disable dgx-vllm.service"] if accepted is None else []
    assert calls[: len(first)] == first
    assert ("systemctl disable dgx-vllm.service" in calls) is (accepted is None)
