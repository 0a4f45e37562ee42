"""What counts as the role's own package, and what would go with it."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter import packages

APT = """Reading package lists...
The following NEW packages will be installed:
  containerd docker.io
Selecting previously unselected package containerd.
Preparing to unpack .../containerd_1.6.20~ds1-1+deb12u3_amd64.deb ...
Unpacking containerd (1.6.20~ds1-1+deb12u3) ...
Selecting previously unselected package libc-ares2:amd64.
Unpacking libc-ares2:amd64 (1.18.1-3) ...
Unpacking docker.io (20.10.24+dfsg1-1+deb12u1+b6) ...
Setting up containerd (1.6.20~ds1-1+deb12u3) ...
Setting up libc-ares2:amd64 (1.18.1-3) ...
Setting up docker.io (20.10.24+dfsg1-1+deb12u1+b6) ...
"""
NEW = ["linux-image-6.14.0-1019-nvidia", "docker.io", "containerd", "libc-ares2", "nvidia-driver-580-open"]
SIMULATED = """Reading package lists...
The following packages will be REMOVED:
  containerd* docker.io*
Purg docker.io [20.10.24+dfsg1-1+deb12u1+b6]
Purg nvidia-container-toolkit:amd64 [1.18.0-1]
Remv containerd [1.6.20~ds1-1+deb12u3]
"""


def test_filters_are_offered() -> None:
    assert set(packages.FilterModule().filters()) == {"beyond_ledger", "own_packages", "replaced_versions"}


def test_what_others_installed_meanwhile_is_theirs() -> None:
    assert packages.own_packages(NEW, {"stdout": APT}, ["docker.io"]) == [
        "containerd",
        "docker.io",
        "libc-ares2",
    ]


def test_an_installation_that_broke_off_is_noted_as_far_as_it_came() -> None:
    half = APT[: APT.index("Unpacking docker.io")]
    assert packages.own_packages(NEW, {"failed": True, "stdout": half}, ["docker.io"]) == [
        "containerd",
        "libc-ares2",
    ]


@pytest.mark.parametrize("installed", [{}, {"stdout": ""}, {"stdout": "something else"}])
def test_without_a_word_of_dpkg_only_what_was_asked_for_is_ours(installed: dict[str, str]) -> None:
    assert packages.own_packages(NEW, installed, ["docker.io=20.10.24", "curl"]) == ["docker.io"]


def test_an_upgrade_brings_nothing_new() -> None:
    assert packages.own_packages([], {"stdout": APT}, ["docker.io"]) == []


def test_what_the_removal_would_take_along_is_named() -> None:
    assert packages.beyond_ledger(SIMULATED, ["containerd", "docker.io"]) == ["nvidia-container-toolkit"]
    assert packages.beyond_ledger(SIMULATED, ["containerd", "docker.io", "nvidia-container-toolkit"]) == []


DOWNGRADE = """dpkg: warning: downgrading libnvidia-container1:arm64 from 1.18.0-1 to 1.17.0-1
Preparing to unpack .../libnvidia-container1_1.17.0-1_arm64.deb ...
Unpacking libnvidia-container1:arm64 (1.17.0-1) over (1.18.0-1) ...
Unpacking nvidia-container-toolkit (1.17.0-1) over (1:1.18.0~rc1-1) ...
Unpacking again (1.0) over (1.0) ...
Unpacking fresh (1.0) ...
"""


@pytest.mark.parametrize(
    ("known", "replaced"),
    [
        ([], ["libnvidia-container1=1.18.0-1", "nvidia-container-toolkit=1:1.18.0~rc1-1"]),
        (["nvidia-container-toolkit", "libnvidia-container1=1.16.0-1"], []),
    ],
)
def test_l10_the_version_before_the_role_is_noted(known: list[str], replaced: list[str]) -> None:
    assert packages.replaced_versions({"failed": True, "stdout": DOWNGRADE}, known) == replaced
    assert packages.replaced_versions({}, known) == []
