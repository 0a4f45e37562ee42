"""B3: before `docker run` the unit waits for what the container needs, and says what for and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import cdi

from helpers.start import DRIVER, LIBRARY, NVRM, START, Machine, specification

UVM = "nvidia-modprobe -u -c 0"
WORDS = ["wait", "--note", "/note", "--rdma", "--address", "enp1s0f0np0=198.51.100.1"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def lacks(machine: Machine, *words: str) -> list[Any]:
    found = START.lacks(machine.node, START.arguments().parse_args([*WORDS, *words]))
    assert isinstance(found, list)
    return found


def newer(machine: Machine) -> None:
    """The driver was updated, its libraries and the specification too; the old module is loaded."""
    machine.put(LIBRARY.format("580.126.09"))
    machine.put("/var/run/cdi/nvidia.yaml", specification("580.126.09"))


def stale(machine: Machine) -> None:
    """The driver was updated and the machine rebooted; a static specification stayed as it was."""
    machine.take(LIBRARY.format(DRIVER))
    machine.put("/proc/driver/nvidia/version", NVRM.format("580.126.09"))


CASES: list[tuple[Callable[[Machine], None], str, str]] = [
    (
        lambda m: m.take("/var/run/cdi/nvidia.yaml"),
        "no CDI specification in /etc/cdi or /var/run/cdi",
        "cdi-refresh",
    ),
    (
        lambda m: m.put("/var/run/cdi/nvidia.yaml", specification(kind="nvidia.com/mig")),
        "no CDI spec",
        "cdi-refresh",
    ),
    (
        lambda m: m.put("/var/run/cdi/nvidia.yaml", specification(device='"0"')),
        "no CDI spec",
        "nvidia-ctk cdi generate",
    ),
    (stale, f"names {LIBRARY.format(DRIVER)}, which is gone", "nvidia-ctk cdi generate"),
    (newer, f"has libraries of driver 580.126.09, and {DRIVER} is loaded", "reboot"),
    (
        lambda m: m.put("/var/run/cdi/nvidia.yaml", specification(uvm=False)),
        "lacks /dev/nvidia-uvm",
        "cdi-refresh",
    ),
    (lambda m: m.take("/dev/nvidia-uvm"), "/dev/nvidia-uvm is missing", UVM),
    (lambda m: m.take("/dev/infiniband/uverbs0"), "/dev/infiniband/uverbs* is missing", "plug the cable in"),
    (lambda m: m.answers.update(ip=""), "enp1s0f0np0 has no address 198.51.100.1", "at the cable"),
]


def test_a_machine_that_has_everything_lacks_nothing(machine: Machine) -> None:
    assert lacks(machine) == []


@pytest.mark.parametrize(("change", "what", "remedy"), CASES)
def test_what_is_missing_has_a_sentence_and_a_remedy(
    machine: Machine, change: Callable[[Machine], None], what: str, remedy: str
) -> None:
    change(machine)
    (lack,) = lacks(machine)
    assert what in lack.what
    assert remedy in lack.remedy


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.take("/proc/driver/nvidia/version"),
        lambda m: m.put("/proc/driver/nvidia/version", "unheard of\n"),
        lambda m: m.put("/var/run/cdi/nvidia.yaml", "kind: nvidia.com/gpu\ndevices:\n- name: all\n"),
        lambda m: m.put("/var/run/cdi/nvidia.json", '{"kind":"nvidia.com/gpu","devices":[{"name":"all"}]}'),
        lambda m: m.answers.update(docker=""),
        lambda m: m.put(
            "/var/run/cdi/nvidia.yaml",
            specification().replace("containerPath: /usr/lib", "containerPath: /elsewhere/usr/lib"),
        ),
    ],
)
def test_what_is_not_known_is_not_wrong(machine: Machine, change: Callable[[Machine], None]) -> None:
    change(machine)
    assert lacks(machine) == []


def test_the_folder_that_docker_reads_last_counts(machine: Machine) -> None:
    machine.put("/etc/cdi/nvidia.yaml", specification("570.1.2"))
    assert lacks(machine) == []
    machine.put("/run/own/nvidia.yaml", specification("570.1.2"))
    machine.answers["docker"] = '["/var/run/cdi", "/run/own"]'
    assert "570.1.2" in lacks(machine)[0].what


def test_the_device_is_made_if_it_can_be(machine: Machine) -> None:
    machine.take("/dev/nvidia-uvm")

    def run(argv: list[str]) -> str:
        if argv[0] == "nvidia-modprobe":
            machine.put("/dev/nvidia-uvm")
        return machine.run(argv)

    assert list(START.lacks_of_devices(START.Node(machine.root, run), "/dev/nvidia-uvm")) == []
    assert machine.calls == [UVM.split()]


def test_the_specification_is_asked_for_without_waiting_for_the_boot_that_waits_for_it(
    machine: Machine,
) -> None:
    """Toolkit 1.19.0 writes it after multi-user.target, which waits for the unit that waits for the specification."""
    lacks(machine)
    assert not [call for call in machine.calls if call[0] == "systemctl"]
    machine.take("/var/run/cdi/nvidia.yaml")
    lacks(machine)
    asked = "systemctl start --no-block --job-mode=ignore-dependencies nvidia-cdi-refresh.service"
    assert asked.split() in machine.calls


def test_the_runtime_hook_needs_no_specification(machine: Machine) -> None:
    machine.take("/var/run/cdi/nvidia.yaml")
    machine.take("/dev/nvidia-uvm")
    assert lacks(machine, "--gpu", "runtime") == []


def waited(missing: Callable[[float], list[Any]]) -> tuple[bool, float]:
    """Result and duration of a wait on a clock that only sleeping moves."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return START.wait(lambda: missing(now[0]), lambda: now[0], sleep), now[0]


def test_a_late_specification_is_waited_for_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    lack = START.Lack("no CDI specification names the GPU", "refresh it")
    assert waited(lambda now: [lack] if now < 20 else []) == (True, 20)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "[dgx-vllm] waits for up to 300 s: no CDI specification names the GPU"
    assert last == "[dgx-vllm] everything is there after 20 s"


def test_the_wait_ends_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    lack = START.Lack("/dev/nvidia-uvm is missing", UVM)
    assert waited(lambda _: [lack]) == (False, 300)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "[dgx-vllm] does not start: after 300 s /dev/nvidia-uvm is missing. To correct it: nvidia-"
    )


def test_nothing_is_said_if_nothing_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert waited(lambda _: []) == (True, 0)
    assert capsys.readouterr().out == ""


def test_specifications_and_drivers_are_read_as_the_state_module_reads_them() -> None:
    """The program stands alone on the node, so it has its own copy of these patterns."""
    for name in ("_KIND", "_LIBRARY", "_DRIVER"):
        assert getattr(START, name).pattern == getattr(cdi, name).pattern
    assert START.CDI_FOLDERS == cdi.FOLDERS
