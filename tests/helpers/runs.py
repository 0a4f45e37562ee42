"""A node, or two that form a replica, as the modules read them through the life of a deployment.

What the role leaves on a node (Docker, image, weights, unit, netplan file, container, a held port, used memory) is
there as on a machine; the weights are sparse files of real size. Whatever is read or judged is the product's own code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.filter.preflight import (
    preflight,
    preflight_drift,
    preflight_fabric,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, TIMED_OUT, Completed
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.rails import Options
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric.rails import collect as collect_fabric
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.weights import record_path, snapshot
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import collect as state_collect
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan

from helpers.machine import Machine
from helpers.netplan_text import arp_text, netplan_text

GIB = 2**30
STAGES = ("fresh", "interrupted", "prepared", "again", "rebooted", "serving")
MODELS, DATA = "/var/lib/dgx-vllm/models", "/var/lib/dgx-vllm"
MODEL = "org/name"
COMMIT = "c" * 40
CONTAINER = "d" * 64
IMAGE = {"Id": "sha256:1", "RepoDigests": ["registry.example.com/vllm@sha256:9"], "Size": 25 * GIB}
PACKAGES = ("docker.io", "nvidia-container-toolkit")
KERNEL = "6.17.0-1014-nvidia"


class Node:
    """One machine; a test changes the attributes before or between the stages."""

    def __init__(self, root: Path, host: str, row: dict[str, Any], weights: int) -> None:
        self.host, self.row, self.weights = host, row, weights
        self.machine = Machine(root)
        self.root = root
        self.stage = "fresh"
        self.arch = "aarch64"
        self.gpu = "NVIDIA GB10, 12.1, 580.95.05"
        self.docker, self.cgroup_driver = "28.2.2", "systemd"
        self.silent = self.taken = False
        self.toolkit = "1.18.0-1"
        self.commit, self.image = COMMIT, dict(IMAGE)
        self.model = MODEL
        self.clock = 0.0
        self.synchronized = "yes"
        self.free = 900 * GIB
        self.interfaces: tuple[str, ...] = ()
        self.listens = ""
        self.heads = 32
        self.foreign = ""
        self.write("/etc/os-release", 'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.3 LTS"')
        self.write("/proc/sys/kernel/osrelease", KERNEL)
        self.write("/proc/cmdline", "quiet")
        self.write("/proc/self/mounts", "/dev/nvme0n1p2 / ext4 rw 0 0")
        self.write(f"/lib/modules/{KERNEL}/modules.dep", "updates/dkms/nvidia.ko.zst:")
        self.write(f"/boot/config-{KERNEL}", "# CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT is not set")
        self.swap = 0
        self.memory(110)
        if row["rails"]:
            self.machine.port(0)

    def write(self, path: str, text: str) -> None:
        self.machine.write(path.lstrip("/"), text)

    def sparse(self, path: str, size: int) -> None:
        self.write(path, "")
        with (self.root / path.lstrip("/")).open("r+b") as file:
            file.truncate(size)

    def memory(self, available: int, swap: int = 0) -> None:
        """/proc/meminfo in GiB; swap stays as it was given once."""
        self.swap = swap or self.swap
        fields = {"MemTotal": 120, "MemAvailable": available, "SwapTotal": self.swap}
        self.write(
            "/proc/meminfo", "".join(f"{key}: {value * GIB // 1024} kB\n" for key, value in fields.items())
        )

    @property
    def installed(self) -> bool:
        """Docker, toolkit and rails are there."""
        return self.stage != "fresh"

    @property
    def complete(self) -> bool:
        """Image, weights and release are there."""
        return self.stage not in ("fresh", "interrupted")

    def enter(self, stage: str) -> None:
        """Leave on the machine what a run of the role, a reboot or a running server leaves."""
        self.stage = stage
        part = f"{MODELS}/hub/models--org--name"
        if stage == "interrupted":
            self.write("/etc/docker/.keep", "")
            self.machine.addresses["docker0"] = ["172.17.0.1/16"]
            self.write("/etc/cdi/nvidia.yaml", "cdiVersion: 0.5.0")
            self.sparse(f"{part}/blobs/{'a' * 64}", self.weights // 2)
            self.configure_rails()
        if stage == "prepared":
            self.fetch()
        if stage == "serving":
            self.memory(12)

    def configure_rails(self) -> None:
        names = [rail["interface"] for rail in self.fabric()["rails"]]
        addresses = [rail["address"] for rail in self.row["rails"]]
        if len(names) != len(addresses) or not names:
            return
        self.machine.addresses |= {name: [address] for name, address in zip(names, addresses, strict=True)}
        self.write("/etc/netplan/40-cx7.yaml", netplan_text(names, addresses))
        self.write("/etc/sysctl.d/90-dgx-vllm.conf", arp_text(names))

    def fetch(self) -> None:
        folder = snapshot(MODELS, MODEL, self.commit)
        config = json.dumps({"num_attention_heads": self.heads})
        self.write(f"{folder}/config.json", config)
        self.sparse(f"{folder}/model.safetensors", self.weights)
        files = {"config.json": len(config) + 1, "model.safetensors": self.weights}
        known = {"model": MODEL, "revision": "main", "commit": self.commit, "files": files}
        self.write(record_path(DATA, MODEL, "main"), json.dumps(known))

    def runner(self, argv: Sequence[str]) -> Completed:
        words = list(argv)
        if words[0] == "docker":
            return self._docker(words)
        if words[0] == "nvidia-smi":
            return Completed(0, f"{self.gpu}\n", "")
        if words[0] == "timedatectl":
            return Completed(0, f"{self.synchronized}\n", "")
        if words[0] == "dpkg-query":
            versions = {"docker.io": self.docker, "nvidia-container-toolkit": self.toolkit}
            lines = [f"{name}\tinstalled\t{versions[name]}\n" for name in PACKAGES] if self.installed else []
            return Completed(0, "".join(lines), "")
        if words[0] == "systemctl" and self.silent:
            return Completed(TIMED_OUT, "", "systemctl gave no answer within 60 s")
        if words[0] == "systemctl" and words[2] == "dgx-vllm-watch.service":
            return Completed(0, "LoadState=not-found\nActiveState=inactive\n", "")
        if words[0] == "systemctl" and words[2] == "dgx-vllm.service":
            active = {"rebooted": "activating", "again": "active", "serving": "active"}.get(
                self.stage, "inactive"
            )
            # A unit whose container cannot have its name is not active.
            active = "activating" if self.taken else active
            loaded = "loaded" if self.complete else "not-found"
            return Completed(0, f"LoadState={loaded}\nActiveState={active}\nUnitFileState=enabled\n", "")
        if words[0] == "ss" and "-Hltnp" in words:
            serving = self.stage in ("again", "serving")
            users = self.listens or ('users:(("vllm",pid=77,fd=9))' if serving else "")
            if serving and not self.listens:
                self.write("/proc/77/comm", "vllm")
                self.write("/proc/77/cgroup", f"0::/system.slice/docker-{CONTAINER}.scope")
            return Completed(0, f"LISTEN 0 2048 127.0.0.1:8000 0.0.0.0:* {users}\n" if users else "", "")
        return self.machine.runner(argv)

    def _docker(self, words: list[str]) -> Completed:
        if not self.installed:
            return Completed(MISSING, "", "docker is not installed")
        running = self.stage in ("again", "serving")
        if words[1] == "info":
            info = {"ServerVersion": self.docker, "CgroupDriver": self.cgroup_driver}
            return Completed(0, json.dumps(info), "")
        if words[1] == "ps":
            names = [*(["dgx-vllm"] if running else []), *([self.foreign] if self.foreign else [])]
            rows = [{"Names": name, "Image": "sha256:1", "Ports": ""} for name in names]
            return Completed(0, "\n".join(map(json.dumps, rows)), "")
        if words[1:3] == ["container", "inspect"] and (running or self.taken):
            labels = {} if self.taken else {"dgx-vllm.release": "r1"}
            found = {"Id": CONTAINER, "State": {"Running": True}, "Image": "sha256:1"}
            return Completed(0, json.dumps([{**found, "Config": {"Labels": labels}}]), "")
        if words[1:3] == ["image", "inspect"] and self.complete:
            return Completed(0, json.dumps([self.image]), "")
        return Completed(1, "", "No such object")

    def state(self) -> dict[str, Any]:
        query = state_collect.Query(image="vllm", model=self.model, packages=PACKAGES)
        found = state_collect.collect(query, self.root, self.runner, self.arch)
        found["time"]["offset_seconds"] = self.clock
        return found

    def fabric(self) -> dict[str, Any]:
        options = Options(self.interfaces, ("192.0.2.11",), len(self.row["rails"]))
        return collect_fabric(options, self.root, self.machine.runner)


class Deployment:
    """One node, or two as a replica, and the findings that the role makes about them before a stage."""

    def __init__(self, place: Path, size: int, weights: int, monkeypatch: Any, **settings: Any) -> None:
        fleet = {
            f"spark{number}": {
                "ansible_host": f"192.0.2.{number}",
                "dgx_vllm_replica": "chat",
                "dgx_vllm_tensor_parallel_size": size,
                "dgx_vllm_fabric_prefix": "198.51.100.0/24" if size > 1 else "",
            }
            for number in range(1, size + 1)
        }
        self.plan = plan(fleet)
        assert self.plan["mistakes"] == []
        rows = self.plan["hosts"]
        self.nodes = {host: Node(place / host, host, rows[host], weights) for host in fleet}
        self.settings: dict[str, Any] = {
            "world_size": size, "tensor_parallel_size": size, "kv_cache_memory_bytes": 20 * GIB,
            "min_free_docker_gib": 60, "min_free_models_gib": 100, "image_source": "pull", **settings,
        }  # fmt: skip
        monkeypatch.setattr(state_collect.host.os, "statvfs", self._statvfs)

    def _statvfs(self, path: Path) -> Any:
        free = next(node.free for node in self.nodes.values() if str(path).startswith(str(node.root)))
        return SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=3600 * GIB)

    def enter(self, stage: str) -> None:
        for node in self.nodes.values():
            node.enter(stage)

    def findings(self) -> list[dict[str, str]]:
        """What roles/dgx_vllm/tasks/preflight.yml evaluates."""
        states = {host: node.state() for host, node in self.nodes.items()}
        hostvars = {
            host: {
                "__dgx_vllm_node": {"state": states[host]},
                "__dgx_vllm_fabric_read": {"fabric": node.fabric()} if len(self.nodes) > 1 else {},
            }
            for host, node in self.nodes.items()
        }
        found: list[dict[str, str]] = []
        for host, node in self.nodes.items():
            state = states[host]
            given = {
                **self.settings,
                "image_needed": not state["image"]["present"],
                "model_needed": state["model"]["kind"] == "hub" and not state["model"]["present"],
            }
            found += preflight(state, given, host)
            found += preflight_drift(hostvars, list(self.nodes), given, host)
            if len(self.nodes) > 1:
                known = {**self.settings, "docker_installed": state["docker"]["installed"]}
                found += preflight_fabric(node.fabric(), node.row, known)
        return found

    def walk(self, each: Callable[[str], None] = lambda stage: None) -> dict[str, dict[str, str]]:
        """Stage -> check -> the worst status that any node has there; `each` is called on entering a stage."""
        order = ("pass", "warn", "fail")
        walked: dict[str, dict[str, str]] = {}
        for stage in STAGES:
            self.enter(stage)
            each(stage)
            worst: dict[str, str] = {}
            for one in self.findings():
                known = worst.get(one["check"], "pass")
                worst[one["check"]] = max(known, one["status"], key=order.index)
            walked[stage] = worst
        return walked
