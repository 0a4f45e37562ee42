"""Class D: dgx_vllm_toolkit_version for a version that is not the newest, judged by the real apt."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.stages import Stages

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt here")
OLD, NEW = "1.17.8-1", "1.18.0-1"
DEPENDS = {
    "libnvidia-container1": "",
    "libnvidia-container-tools": "libnvidia-container1 (>= {0})",
    "nvidia-container-toolkit-base": "",
    "nvidia-container-toolkit": "libnvidia-container-tools (>= {0}), nvidia-container-toolkit-base (= {0})",
}
"""As the packages of NVIDIA's repository depend on each other."""


def stanza(name: str, version: str, installed: bool) -> str:
    lines = [
        f"Package: {name}", f"Version: {version}", "Architecture: all", "Maintainer: nobody", "Description: x",
    ]  # fmt: skip
    if DEPENDS[name]:
        lines.append(f"Depends: {DEPENDS[name].format(version)}")
    more = ["Status: install ok installed"] if installed else [f"Filename: {name}_{version}.deb", "Size: 1"]
    return (
        "\n".join([*lines, *more, "SHA256: " + "0" * 64 if not installed else "Priority: optional"]) + "\n\n"
    )


class Apt:
    """The real apt-get, with a repository and a database of its own, that only simulates."""

    def __init__(self, place: Path, installed: str) -> None:
        repository, state = place / "repository", place / "state"
        for folder in (repository, state / "lists/partial", place / "cache/archives/partial", place / "etc"):
            folder.mkdir(parents=True)
        packages = "".join(stanza(name, version, False) for version in (OLD, NEW) for name in DEPENDS)
        (repository / "Packages").write_text(packages)
        (place / "status").write_text("".join(stanza(name, installed, True) for name in DEPENDS if installed))
        (place / "sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
        options = {
            "Dir::State": state, "Dir::State::status": place / "status", "Dir::Cache": place / "cache",
            "Dir::Etc::sourcelist": place / "sources.list", "Dir::Etc::sourceparts": "-", "Dir::Etc::parts": "-",
            "Dir::Etc::preferences": "-", "Dir::Etc::preferencesparts": "-", "APT::Sandbox::User": "",
        }  # fmt: skip
        self.command = [
            "apt-get",
            *(word for pair in options.items() for word in ("-o", f"{pair[0]}={pair[1]}")),
        ]
        assert self.get("update").returncode == 0, self.get("update").stderr

    def get(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *words], capture_output=True, text=True, check=False)

    def install(self, *specs: str) -> subprocess.CompletedProcess[str]:
        """What ansible.builtin.apt asks for with allow_downgrade."""
        return self.get(
            "--simulate", "--yes", "--allow-downgrades", "--no-install-recommends", "install", *specs
        )


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The packages that the role's own stage asks for when OLD is wanted."""
    place = tmp_path_factory.mktemp("toolkit")
    stages = Stages(place / "role", "common/apt_repository")
    note = {"ansible.builtin.shell": f"echo {{{{ __dgx_vllm_packages | join(' ') }}}} >>{place}/specs"}
    stages.stub("common/packages", note)
    run = stages.run(
        "runtime/toolkit",
        {"spark1": {"__dgx_vllm_node": {"state": {"arch": "aarch64", "apt": []}}}},
        dgx_vllm_toolkit_version=OLD,
    )
    assert run.rc == 0, run.failure("spark1")
    return (place / "specs").read_text().split()


@pytest.mark.parametrize("installed", ["", OLD, NEW])
def test_class_d_apt_takes_any_version_from_any_other(
    specs: list[str], installed: str, tmp_path: Path
) -> None:
    assert sorted(specs) == sorted(f"{name}={OLD}" for name in DEPENDS)
    done = Apt(tmp_path / "apt", installed).install(*specs)
    assert done.returncode == 0, done.stdout + done.stderr
    changed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("Inst ")}
    assert changed == ({*DEPENDS} if installed != OLD else set())


def test_naming_the_toolkit_alone_is_what_apt_refuses(tmp_path: Path) -> None:
    done = Apt(tmp_path / "apt", "").install(f"nvidia-container-toolkit={OLD}")
    assert done.returncode != 0 and "nvidia-container-toolkit-base" in done.stdout + done.stderr
