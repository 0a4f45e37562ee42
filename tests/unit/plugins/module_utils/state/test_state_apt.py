"""The repositories that apt is configured for, and those that are the role's under another name."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.runtime import repository_files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.apt import repositories

GUIDE = (
    "deb [signed-by=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg] "
    "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n"
    "#deb [signed-by=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg] "
    "https://nvidia.github.io/libnvidia-container/experimental/deb/$(ARCH) /\n"
)
STANZAS = """Types: deb deb-src
URIs: http://ports.ubuntu.com/ubuntu-ports/
Suites: noble noble-updates
Components: main
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

# turned off
Enabled: no
Types: deb
URIs: https://example.com/off
Suites: /
"""
REPOSITORY = {"name": "dgx-vllm-x", "url": "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)"}
OURS = f"Types: deb\nURIs: {REPOSITORY['url']}\nSuites: /\nSigned-By: /etc/k.asc\n"


def test_both_kinds_of_files_are_read(tmp_path, write):
    write(
        "/etc/apt/sources.list",
        "deb http://deb.debian.org/debian bookworm main\ndeb-src http://x bookworm main\n",
    )
    write("/etc/apt/sources.list.d/nvidia-container-toolkit.list", GUIDE)
    write("/etc/apt/sources.list.d/ubuntu.sources", STANZAS)
    found = [(one["uri"], one["suite"], one["signed_by"]) for one in repositories(tmp_path)]
    ubuntu, key = "http://ports.ubuntu.com/ubuntu-ports", "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    assert found == [
        ("http://deb.debian.org/debian", "bookworm", ""),
        (REPOSITORY["url"], "/", "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg"),
        (ubuntu, "noble", key),
        (ubuntu, "noble-updates", key),
    ]


@pytest.mark.parametrize("uri", ["$(ARCH)", "$(ARCH)/", "arm64", "amd64"])
def test_a_repository_that_nvidias_guide_added_is_found(tmp_path, write, uri):
    """Class C: with a second entry and another key apt fails with `Conflicting values set for option Signed-By`."""
    write("/etc/apt/sources.list.d/guide.list", GUIDE.replace("$(ARCH)", uri))
    write("/etc/apt/sources.list.d/dgx-vllm-x.sources", OURS)
    state = {"arch": "aarch64", "apt": repositories(tmp_path)}
    theirs = [] if uri == "amd64" else ["/etc/apt/sources.list.d/guide.list"]
    assert repository_files(state, REPOSITORY) == theirs


def test_no_repository_is_not_found():
    assert repository_files({"arch": "aarch64", "apt": []}, REPOSITORY) == []
    assert repository_files({"arch": "aarch64"}, {"name": "x", "url": ""}) == []
