"""R15: a desktop that runs, and the memory of its programs."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.desktop import desktop


def program(write, pid: int, name: str, kilobytes: int | None) -> None:
    write(f"/proc/{pid}/comm", f"{name}\n")
    write(f"/proc/{pid}/status", f"Name:\t{name}\n" + (f"RssAnon:\t {kilobytes} kB\n" if kilobytes else ""))


def test_a_desktop_and_the_memory_of_its_programs(tmp_path, write):
    for pid, (name, size) in enumerate(
        (("gnome-shell", 400), ("gsd-power", 20), ("Xwayland", 80), ("kthreadd", None), ("python3", 9000)), 10
    ):
        program(write, pid, name, size)
    assert desktop(tmp_path) == {"shells": ["Xwayland", "gnome-shell"], "bytes": 500 * 1024}


def test_a_server_has_none(tmp_path, write):
    for pid, name in enumerate(("systemd", "gdm-is-not-a-shell", "dockerd"), 10):
        program(write, pid, name, 50)
    assert desktop(tmp_path) == {"shells": [], "bytes": 0}
