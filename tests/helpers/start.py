"""The role's start.py as a module, and a machine made of files for it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.ansible_run import ROOT

FILE = ROOT / "roles/dgx_vllm/files/start.py"


def load() -> Any:
    """Execute the file; its functions and constants."""
    spec = importlib.util.spec_from_file_location("dgx_vllm_start", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


START = load()
DRIVER = "580.95.05"
LIBRARY = "/usr/lib/aarch64-linux-gnu/libcuda.so.{}"
NVRM = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  {}  Release Build  (dvs-builder@U22)\n"


def specification(
    driver: str = DRIVER, uvm: bool = True, device: str = "all", kind: str = "nvidia.com/gpu"
) -> str:
    """A CDI specification as `nvidia-ctk cdi generate` writes it, shortened."""
    nodes = [
        "/dev/nvidia-modeset",
        "/dev/nvidia-uvm-tools",
        *(["/dev/nvidia-uvm"] if uvm else []),
        "/dev/nvidiactl",
    ]
    paths = "\n".join(f"    - path: {node}" for node in nodes)
    library = LIBRARY.format(driver)
    return (
        f'---\ncdiVersion: 0.5.0\nkind: {kind}\ndevices:\n- name: "0"\n  containerEdits:\n    deviceNodes:\n'
        f"    - path: /dev/nvidia0\n- name: {device}\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n"
        f"containerEdits:\n    deviceNodes:\n{paths}\n    hooks:\n    - hookName: createContainer\n"
        "      args:\n      - nvidia-cdi-hook\n      - create-symlinks\n      - --link\n"
        "      - libcuda.so.1::/usr/lib/aarch64-linux-gnu/libcuda.so\n    mounts:\n"
        f"    - hostPath: {library}\n      containerPath: {library}\n"
    )


class Machine:
    """Files under `root`, and commands that answer from `answers`; all is well until a test takes something away."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[list[str]] = []
        self.answers = {
            "docker": json.dumps(["/etc/cdi", "/var/run/cdi"]),
            "ip": "2: enp1s0f0np0    inet 198.51.100.1/26 brd 198.51.100.63 scope global enp1s0f0np0\n",
            "systemctl show": "1\n",
            "systemctl is-system-running": "starting\n",
        }
        self.put("/proc/driver/nvidia/version", NVRM.format(DRIVER))
        self.put("/proc/sys/kernel/random/boot_id", "boot-1\n")
        self.put(LIBRARY.format(DRIVER))
        self.put("/var/run/cdi/nvidia.yaml", specification())
        for name in ("nvidia-uvm", "nvidiactl", "infiniband/uverbs0"):
            self.put(f"/dev/{name}")

    def put(self, name: str, text: str = "") -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def take(self, name: str) -> None:
        (self.root / name.lstrip("/")).unlink()

    def run(self, argv: Sequence[str]) -> str:
        self.calls.append(list(argv))
        return self.answers.get(" ".join(argv[:2]), self.answers.get(argv[0], ""))

    @property
    def node(self) -> Any:
        return START.Node(self.root, self.run)

    def boot(self, name: str) -> None:
        """The machine boots again."""
        self.put("/proc/sys/kernel/random/boot_id", f"{name}\n")
        self.answers["systemctl is-system-running"] = "starting\n"
