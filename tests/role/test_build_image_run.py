"""playbooks/build_image.yml on this machine: the real build.sh, with a docker that only notes what it was asked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from helpers.ansible_run import ROOT, command

ROLE = ROOT / "roles/dgx_vllm"
DOCKER = r"""#!/bin/bash
echo "$*" >>$AT/calls
case $1 in
  build) [[ ${!#} != - ]] || cat >/dev/null; [ ! -e $AT/no-build ] || { echo 'no such base' >&2; exit 1; } ;;
  create) echo box ;;
  cp) case $2 in
      *manifest.json) printf '{\n "vllm_version": "0.33.0"\n}\n' >"$3" ;;
      *wheels.json) [ -e $AT/wheels ] || exit 1; : >"$3/wheels.json" ;;
      *) : >"$3" ;;
    esac ;;
  login) cat >>$AT/password ;;
esac
"""


class Machine:
    """This machine as a build host that Docker runs on."""

    def __init__(self, place: Path) -> None:
        self.place = place
        tasks = place / "roles/dgx_vllm/tasks"
        shutil.copytree(ROLE / "tasks", tasks)
        for name in ("defaults", "vars", "templates", "files", "meta"):
            (tasks.parent / name).symlink_to(ROLE / name)
        (tasks / "common/state.yml").write_text("[]", encoding="utf-8")
        (place / "files").symlink_to(ROOT / "files")
        (place / "bin").mkdir()
        (place / "bin/docker").write_text(DOCKER, encoding="utf-8")
        (place / "bin/docker").chmod(0o755)

    def build(self, running: bool = True, **variables: str) -> tuple[int, str, list[str]]:
        """(exit status, output on one line, calls of docker)."""
        (self.place / "calls").write_text("", encoding="utf-8")
        given = {
            "ansible_connection": "local", "ansible_become": False,
            "__dgx_vllm_node": {"state": {"docker": {"running": running}, "image": {}, "model": {}, "ledger": {}}},
            "__dgx_vllm_data_dir": str(self.place / "lib"), "__dgx_vllm_config_dir": str(self.place / "etc"),
            "__dgx_vllm_run_lock": str(self.place / "run/run.json"),
            **{f"dgx_vllm_{name}": value for name, value in variables.items()},
        }  # fmt: skip
        (self.place / "given.json").write_text(json.dumps(given), encoding="utf-8")
        hosts = {"dgx_vllm_builder": {"hosts": {"arm1": None}}, "dgx_vllm": {"hosts": {"spark1": None}}}
        (self.place / "hosts.yml").write_text(json.dumps({"all": {"children": hosts}}), encoding="utf-8")
        done = command(
            "ansible-playbook", "-i", str(self.place / "hosts.yml"), "-e", f"@{self.place}/given.json",
            "-e", "ansible_python_interpreter={{ ansible_playbook_python }}", "playbooks/build_image.yml",
            home=self.place, ANSIBLE_ROLES_PATH=str(self.place / "roles"), AT=str(self.place),
            PATH=f"{self.place}/bin:{os.environ['PATH']}",
        )  # fmt: skip
        calls = (self.place / "calls").read_text(encoding="utf-8").splitlines()
        return done.returncode, " ".join((done.stdout + done.stderr).split()), calls


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_wheel_mode_and_push(machine: Machine) -> None:
    (machine.place / "wheels").touch()
    status, said, calls = machine.build(
        image="registry.example.com/dgx-vllm:1", image_push="true", registry_username="me",
        registry_password="word-for-tests",
    )  # fmt: skip
    assert status == 0, said
    assert "wheel mode, vLLM 0.33.0" in said and "word-for-tests" not in said
    assert calls[0].startswith("build --file ") and "BASE_IMAGE" not in calls[0] and "RAY" not in calls[0]
    assert calls[-3:] == [
        "login --username me --password-stdin registry.example.com",
        "push --quiet registry.example.com/dgx-vllm:1",
        "logout registry.example.com",
    ]
    assert (machine.place / "password").read_text() == "word-for-tests"


def test_patch_only_mode_with_ray(machine: Machine) -> None:
    status, said, calls = machine.build(
        image_build_mode="patch-only", image_build_base="example.com/vllm:1", executor="ray"
    )
    assert status == 0, said
    assert "--build-arg BASE_IMAGE=example.com/vllm:1 --build-arg RAY=yes" in calls[0]
    assert not [call for call in calls if call.startswith("push")]


def test_a_build_that_fails(machine: Machine) -> None:
    (machine.place / "no-build").touch()
    status, said, _ = machine.build()
    assert status == 2 and "arm1 could not build dgx-vllm (wheel): Output: no such base" in said


@pytest.mark.parametrize(
    ("running", "variables", "sentence"),
    [
        (False, {}, "Docker does not run there; install it, or name another machine"),
        (True, {"image": "x@sha256:" + "0" * 64}, "A digest is known only after a build"),
        (True, {"image_push": "true"}, "It names no registry to push to; write dgx_vllm_image as"),
    ],
    ids=["no-docker", "digest", "no-registry"],
)
def test_refused(machine: Machine, running: bool, variables: dict[str, str], sentence: str) -> None:
    status, said, calls = machine.build(running, **variables)
    assert (status, calls) == (2, []) and f"arm1 cannot build {variables.get('image', 'dgx-vllm')}" in said
    assert sentence in said
