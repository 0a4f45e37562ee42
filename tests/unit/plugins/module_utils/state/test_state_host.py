"""The machine's own facts, read from a tree that looks like a node's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import host

OLD, RUNNING, NEW = "6.14.0-1015-nvidia", "6.17.0-1008-nvidia", "6.17.0-1014-nvidia"


def kernels(write, *names: str, having: tuple[str, ...] = ()) -> None:
    for name in names:
        module = "kernel/nvidia-580-open/nvidia.ko.zst:\n" if name in having else "kernel/nvidia-fs.ko:\n"
        write(f"/lib/modules/{name}/modules.dep", f"kernel/fs/ext4.ko:\n{module}")


def test_os_release(tmp_path, write):
    write("/etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nID=ubuntu\nVERSION_ID="24.04"\n')
    assert host.operating_system(tmp_path) == {
        "id": "ubuntu",
        "version_id": "24.04",
        "pretty_name": "Ubuntu 24.04.3 LTS",
    }


def test_a_newer_kernel_without_the_module_is_named(tmp_path, write):
    write("/proc/sys/kernel/osrelease", RUNNING + "\n")
    write("/proc/cmdline", "quiet kho=off\n")
    kernels(write, NEW, OLD, RUNNING, having=(RUNNING,))
    assert host.kernel(tmp_path) == {
        "running": RUNNING,
        "installed": [OLD, RUNNING, NEW],
        "without_nvidia_module": [NEW],
        "command_line": "quiet kho=off",
        "handover": [],
    }


def test_kernels_with_kexec_handover_are_named_by_their_configuration(tmp_path, write):
    write("/proc/sys/kernel/osrelease", RUNNING)
    kernels(write, RUNNING, NEW, having=(RUNNING, NEW))
    write(f"/boot/config-{RUNNING}", "# CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT is not set\n")
    write(f"/boot/config-{NEW}", "CONFIG_KEXEC_HANDOVER=y\nCONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT=y\n")
    assert host.kernel(tmp_path)["handover"] == [NEW]


def test_a_running_kernel_that_is_not_installed_is_asked_too(tmp_path, write):
    write("/proc/sys/kernel/osrelease", "7.0.0-31-generic")
    write("/boot/config-7.0.0-31-generic", "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT=y\n")
    assert host.kernel(tmp_path)["handover"] == ["7.0.0-31-generic"]


def test_no_kernel_is_blamed_when_none_has_the_module(tmp_path, write):
    write("/proc/sys/kernel/osrelease", RUNNING)
    kernels(write, RUNNING, NEW)
    assert host.kernel(tmp_path)["without_nvidia_module"] == []


def test_kernel_tree_is_searched_without_modules_dep(tmp_path, write):
    write("/proc/sys/kernel/osrelease", RUNNING)
    write(f"/lib/modules/{RUNNING}/kernel/nvidia.ko.xz", "")
    write(f"/lib/modules/{NEW}/kernel/ext4.ko", "")
    assert host.kernel(tmp_path)["without_nvidia_module"] == [NEW]


def test_left_over_module_directory_is_no_kernel(tmp_path, write):
    write(f"/lib/modules/{OLD}/updates/left.ko", "")
    assert host.kernel(tmp_path)["installed"] == []


@pytest.mark.parametrize(
    ("older", "newer"),
    [("6.8.0-9", "6.8.0-10"), ("6.9.0-1", "6.17.0-1"), ("6.17.0-1008-nvidia", "6.17.0-1014-nvidia")],
)
def test_kernels_sort_by_number(older, newer):
    assert host.version_key(older) < host.version_key(newer)


def test_memory_is_in_bytes(tmp_path, write):
    write(
        "/proc/meminfo",
        "MemTotal: 125500000 kB\nMemAvailable: 1000 kB\nSwapTotal: 8 kB\nHugePages_Total: 0\n",
    )
    assert host.memory(tmp_path) == {
        "total_bytes": 125500000 * 1024,
        "available_bytes": 1000 * 1024,
        "swap_total_bytes": 8 * 1024,
    }


def test_disk_takes_the_nearest_parent_and_the_longest_mount(tmp_path, write):
    write(
        "/proc/self/mounts", "a / ext4 rw 0 0\nb /var ext4 rw 0 0\nc /var/lib xfs rw 0 0\nd /v ext4 rw 0 0\n"
    )
    (tmp_path / "var/lib").mkdir(parents=True)
    found = host.disk(tmp_path, "/var/lib/dgx-vllm/models")
    figures = os.statvfs(tmp_path)
    assert (found["path"], found["mount"]) == ("/var/lib/dgx-vllm/models", "/var/lib")
    assert found["total_bytes"] == figures.f_blocks * figures.f_frsize
    assert 0 < found["free_bytes"] <= found["total_bytes"]


def test_an_empty_node_raises_nothing(tmp_path, runner):
    assert host.operating_system(tmp_path)["id"] == ""
    assert host.memory(tmp_path)["total_bytes"] == 0
    assert host.disk(tmp_path, "/nowhere")["mount"] == "/"
    assert host.clock(runner) == {"synchronized": None, "offset_seconds": None}


@pytest.mark.parametrize(("answer", "expected"), [("yes\n", True), ("no\n", False), ("\n", None)])
def test_clock(runner, answer, expected):
    runner.on("timedatectl", "show", stdout=answer)
    assert host.clock(runner)["synchronized"] is expected


def test_packages_that_are_only_configured_are_not_installed(runner):
    runner.on(
        "dpkg-query",
        stdout="docker.io\tinstalled\t20.10.24\nold\tconfig-files\t1.0\n",
        stderr="dpkg-query: no packages found matching missing",
        rc=1,
    )
    assert host.packages(["docker.io", "old", "missing"], runner) == {
        "docker.io": "20.10.24",
        "old": None,
        "missing": None,
    }


def test_no_packages_asked_runs_nothing(runner):
    assert host.packages([], runner) == {}
    assert runner.seen == []


def test_version_key_does_not_mix_types():
    assert sorted(["6.1.0-a", "6.1.0-1"], key=host.version_key) == ["6.1.0-a", "6.1.0-1"]


def test_read_text_of_a_directory_is_empty(tmp_path: Path):
    assert host.read_text(tmp_path) == ""
