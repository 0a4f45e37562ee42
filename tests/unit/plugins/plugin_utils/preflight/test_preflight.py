"""Each check's findings, and what accepting a failure does."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Finding
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.checks import CHECKS, preflight
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.values import numbers

GIB = 2**30


def row(node: dict[str, Any], settings: dict[str, Any], check: str) -> Finding:
    (found,) = [one for one in preflight(node, settings) if one.check == check]
    assert found.status == "pass" or found.remedy, "what is not a pass names its remedy"
    return found


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        tree = tree[name]
    tree[last] = value


def test_a_healthy_node_passes_everything(node, settings):
    rows = preflight(node, settings, "spark1")
    assert {one.where for one in rows} == {"spark1"}
    assert [one.check for one in rows] == list(CHECKS)
    assert {one.status for one in rows} == {"pass"}


def test_settings_may_be_left_out(node):
    assert {one.status for one in preflight(node, {})} == {"pass"}


GPU = "NVIDIA GB10"
FOLDER = {
    "kind": "path", "present": True, "path": "/srv/m", "size_bytes": 9 * GIB, "unreadable": "", "unwritable": "",
    "lacking": "", "heads": None,
}  # fmt: skip
TWO_KEYS = [
    {
        "file": f"/etc/apt/{name}.list",
        "uri": "https://x/deb/" + uri,
        "suite": "/",
        "signed_by": f"/k/{name}.gpg",
    }
    for name, uri in (("a", "$(ARCH)"), ("b", "arm64/"))
]
CASES = [
    # check, what is different on the node, settings, status, words of found + reason + remedy
    ("gpu", {"gpu": {"error": "nvidia-smi is not installed", "gpus": []}}, {}, "fail", "not installed"),
    ("gpu", {"gpu": {"error": "NVML: Driver/library version mismatch", "gpus": []}}, {}, "fail", "reboot"),
    ("gpu", {"gpu.gpus": [{"name": "NVIDIA H100", "compute_capability": "9.0"}]}, {}, "fail", "NVIDIA H100"),
    ("gpu", {"gpu.gpus": [{"name": GPU, "compute_capability": "12.0"}]}, {}, "fail", "capability 12.1"),
    ("gpu", {"gpu.gpus": [{"name": "NVIDIA X", "compute_capability": "12.1"}]}, {}, "fail", "NVIDIA X"),
    ("driver", {"gpu.gpus": []}, {}, "warn", "check gpu"),
    ("driver", {"gpu.gpus": [{"driver_version": "590.48.01"}]}, {}, "fail", "reported by users"),
    ("driver", {"gpu.gpus": [{"driver_version": "585.1"}]}, {"driver_denied": ["585.*"]}, "fail", "585.*"),
    ("driver", {"gpu.gpus": [{"driver_version": "575.57.08"}]}, {}, "fail", "CUDA 13"),
    ("driver", {"gpu.gpus": [{"driver_version": "595.10"}]}, {}, "pass", "595.10"),
    ("architecture", {"arch": "x86_64"}, {}, "fail", "aarch64"),
    ("architecture", {"arch": "x86_64"}, {"architectures": ["aarch64", "x86_64"]}, "pass", "x86_64"),
    ("os", {"os": {"id": "debian", "version_id": "12", "pretty_name": "Debian 12"}}, {}, "pass", "Debian 12"),
    ("os", {"os.version_id": "22.04"}, {}, "warn", "24.04"),
    ("os", {"os": {"id": "fedora", "version_id": "43", "pretty_name": ""}}, {}, "fail", "fedora 43"),
    ("kernel", {"kernel.running": "7.0.0-1019-nvidia"}, {}, "warn", "reported by users"),
    (
        "kernel",
        {"kernel.running": "7.0.0-1019-nvidia", "kernel.command_line": "a kho=off"},
        {},
        "pass",
        "7.0.0-1019",
    ),
    ("kernel", {"kernel.running": "7.0.0-1019-nvidia"}, {"world_size": 2}, "fail", "NCCL cannot start"),
    # ansible-core 2.18 hands a number over as text.
    ("kernel", {"kernel.running": "7.0.0-1019-nvidia"}, {"world_size": "2"}, "fail", "NCCL cannot start"),
    ("kernel", {"kernel.running": "7.0.0-1019-nvidia"}, {"world_size": "1"}, "warn", "standalone"),
    (
        "kernel",
        {"kernel.running": "7.0.0-31-generic", "kernel.handover": ["7.0.0-31-generic"]},
        {"world_size": 2},
        "fail",
        "kho=off to GRUB_CMDLINE_LINUX",
    ),
    (
        "kernel",
        {"kernel.running": "7.0.0-31-generic", "kernel.handover": ["7.0.0-31-generic"]},
        {},
        "warn",
        "standalone",
    ),
    (
        "kernel",
        {"kernel.running": "7.0.0-40-generic", "kernel.handover": []},
        {"world_size": 2},
        "pass",
        "7.0.0-40",
    ),
    (
        "kernel",
        {
            "kernel.installed": ["6.17.0-1014-nvidia", "7.0.0-31-generic"],
            "kernel.handover": ["7.0.0-31-generic"],
        },
        {"world_size": 2},
        "warn",
        "boots next",
    ),
    ("apt", {"apt": TWO_KEYS}, {}, "warn", "/etc/apt/a.list and /etc/apt/b.list"),
    ("apt", {"apt": TWO_KEYS, "docker.installed": False}, {}, "fail", "apt then reads none at all"),
    ("apt", {"apt": [TWO_KEYS[0], {**TWO_KEYS[1], "signed_by": "/k/a.gpg"}]}, {}, "pass", "1 repositories"),
    ("apt", {"apt": [TWO_KEYS[0], {**TWO_KEYS[1], "suite": "noble"}]}, {}, "pass", "2 repositories"),
    (
        "desktop",
        {"desktop": {"shells": ["gnome-shell"], "bytes": 3 * GIB}},
        {},
        "warn",
        "gnome-shell, 3.0 GiB",
    ),
    (
        "disk_models",
        {"disks.models.free_bytes": 60 * GIB, "model.partial_bytes": 50 * GIB},
        {},
        "fail",
        "110.0 GiB",
    ),
    (
        "disk_models",
        {"disks.models.free_bytes": 60 * GIB, "model.partial_bytes": 50 * GIB},
        {"image_needed": False},
        "pass",
        "50.0 GiB needed",
    ),
    (
        "disk_docker",
        {"disks.docker.free_bytes": 40 * GIB, "base_image": {"size_bytes": 25 * GIB}},
        {},
        "pass",
        "35.0 GiB needed",
    ),
    (
        "model",
        {"model": {**FOLDER, "present": False, "lacking": "has no weights"}},
        {},
        "fail",
        "it has no weights",
    ),
    ("model", {"model": {**FOLDER, "unreadable": "/srv/m/a"}}, {}, "fail", "sudo chmod -R go+rX /srv/m"),
    ("model", {"model": FOLDER}, {}, "pass", "9.0 GiB"),
    ("model", {"model.unwritable": "/home/u/hf"}, {}, "fail", "sudo chown -R root /home/u/hf"),
    (
        "heads",
        {"model.heads": 64},
        {"tensor_parallel_size": 3},
        "warn",
        "`dgx_vllm_pipeline_parallel_size: 3`",
    ),
    ("heads", {"model.heads": 24}, {"tensor_parallel_size": "3"}, "pass", "24 heads in 3 parts"),
    ("heads", {}, {"tensor_parallel_size": 3}, "pass", "not known yet"),
    ("heads", {"model.heads": 7}, {}, "pass", "one part"),
    (
        "memory",
        {"model.size_bytes": 162 * GIB},
        {"kv_cache_memory_bytes": 20 * GIB, "world_size": "2"},
        "pass",
        "81.0 GiB weights, its part of 2",
    ),
    (
        "memory",
        {"model.size_bytes": 162 * GIB},
        {"kv_cache_memory_bytes": 20 * GIB},
        "fail",
        "162.0 GiB weights",
    ),
    ("kernel_module", {"kernel.without_nvidia_module": ["6.17.0-1014-nvidia"]}, {}, "fail", "boots next"),
    ("kernel_module", {"kernel.without_nvidia_module": ["6.17.0-1008-nvidia"]}, {}, "warn", "1008"),
    ("docker", {"docker.installed": False}, {}, "warn", "will install Docker"),
    ("docker", {"docker.running": False, "docker.error": "no socket"}, {}, "warn", "no socket"),
    ("docker", {"docker.timed_out": True, "docker.running": False}, {}, "fail", "is not restarted"),
    ("docker", {"daemon_json.error": "is not valid JSON: x"}, {}, "fail", "daemon.json"),
    ("docker", {"docker.version": "20.10.24+dfsg1"}, {"gpu_access": "cdi"}, "fail", "25"),
    ("containers", {"docker.containers": [{"name": "lab", "restart": "no"}]}, {}, "pass", "need not restart"),
    (
        "containers",
        {"docker.containers": [{"name": "lab", "restart": "no"}]},
        {"docker_restarts": True},
        "fail",
        "lab",
    ),
    (
        "containers",
        {"docker.containers": [{"name": "lab", "restart": "on-failure"}]},
        {"docker_restarts": True},
        "fail",
        "docker update --restart=unless-stopped lab",
    ),
    (
        "containers",
        {"docker.containers": [{"name": "lab", "restart": "no"}]},
        {"docker_restarts": True, "docker_restart": True},
        "warn",
        "lab",
    ),
    (
        "containers",
        {"docker.containers": [{"name": "lab", "restart": "no"}], "docker.live_restore": True},
        {"docker_restarts": True},
        "pass",
        "come back",
    ),
    (
        "containers",
        {"docker.containers": [{"name": "lab", "restart": "always"}]},
        {"docker_restarts": True},
        "pass",
        "come back",
    ),
    ("driver", {"gpu.driver": {"loaded": "580.95.05", "installed": "580.126.09"}}, {}, "warn", "reboot"),
    ("driver", {"gpu.driver": {"loaded": "580.95.05", "installed": None}}, {}, "pass", "580.95.05"),
    ("cgroup_driver", {"docker.version": "20.10.24"}, {}, "fail", "daemon-reload"),
    ("cgroup_driver", {}, {"gpu_access": "runtime"}, "fail", "cgroupfs"),
    ("cgroup_driver", {"docker.cgroup_driver": "cgroupfs"}, {"gpu_access": "runtime"}, "pass", "cgroupfs"),
    ("cgroup_driver", {"docker.cgroup_driver": None, "docker.version": None}, {}, "pass", "stage runtime"),
    ("memory", {"memory.total_bytes": 0}, {}, "fail", "MemTotal"),
    ("memory", {}, {"gpu_memory_utilization": 0.90}, "warn", "0.85"),
    ("memory", {}, {"gpu_memory_utilization": 0.85}, "pass", "102.0 GiB"),
    ("memory", {"memory.available_bytes": 60 * GIB}, {}, "fail", "0.50 or less"),
    (
        "memory",
        {"memory.available_bytes": 60 * GIB, "docker.containers": [{"name": "jupyter"}]},
        {},
        "fail",
        "jupyter",
    ),
    ("memory", {"memory.available_bytes": 9 * GIB, "service.active_state": "active"}, {}, "pass", "9.0 GiB"),
    ("memory", {"memory.available_bytes": 9 * GIB, "container.running": True}, {}, "pass", "9.0 GiB"),
    (
        "memory",
        {},
        {"kv_cache_memory_bytes": 20 * GIB, "gpu_memory_utilization": 0.85},
        "pass",
        "unknown size",
    ),
    # vLLM asks for its share at the start also with a KV cache in bytes.
    (
        "memory",
        {"memory.available_bytes": 60 * GIB},
        {"kv_cache_memory_bytes": 20 * GIB},
        "fail",
        "dgx_vllm_gpu_memory_utilization to 0.50 or less",
    ),
    (
        "memory",
        {"memory.available_bytes": 60 * GIB},
        {"kv_cache_memory_bytes": 20 * GIB, "gpu_memory_utilization": 0.4},
        "pass",
        "60.0 GiB",
    ),
    # Class D: a draft model is weights too.
    (
        "memory",
        {"model.size_bytes": 50 * GIB, "other_models": [{"size_bytes": 45 * GIB}]},
        {"kv_cache_memory_bytes": 20 * GIB},
        "fail",
        "95.0 GiB weights",
    ),
    ("memory", {"model.size_bytes": 80 * GIB}, {"kv_cache_memory_bytes": 35 * GIB}, "fail", "90%"),
    (
        "memory",
        {"model.size_bytes": 80 * GIB, "memory.available_bytes": 90 * GIB},
        {"kv_cache_memory_bytes": 20 * GIB},
        "fail",
        "80.0 GiB weights",
    ),
    ("swap", {"memory.swap_total_bytes": 16 * GIB}, {}, "warn", "swapoff"),
    ("swap", {"memory.swap_total_bytes": GIB}, {}, "pass", "1.0 GiB"),
    ("disk_docker", {"disks.docker.free_bytes": 10 * GIB}, {}, "fail", "dgx_vllm_min_free_docker_gib"),
    ("disk_docker", {"disks.docker.free_bytes": GIB}, {"image_needed": False}, "pass", "nothing to fetch"),
    ("disk_models", {"disks.models.free_bytes": 120 * GIB}, {}, "fail", "one file system"),
    (
        "disk_models",
        {"disks.models": {"path": "/m", "mount": "/m", "free_bytes": 120 * GIB}},
        {},
        "pass",
        "/m",
    ),
    ("disk_models", {"disks.models.free_bytes": 120 * GIB}, {"image_needed": False}, "pass", "120.0 GiB"),
    ("disk_models", {"disks.models.free_bytes": 0}, {"model_needed": False}, "pass", "nothing to fetch"),
    ("time_sync", {"time.synchronized": False}, {}, "warn", "not synchronized"),
    ("time_sync", {"time.synchronized": None}, {}, "warn", "unknown"),
    (
        "docker",
        {"packages": {"docker.io": None}},
        {"docker_version": "28.2.2-0ubuntu1"},
        "fail",
        "28.2.2 without the package docker.io",
    ),
    (
        "docker",
        {"packages": {"docker.io": "27.5.1"}},
        {"docker_version": "28.2.2-0ubuntu1"},
        "pass",
        "28.2.2",
    ),
    ("docker", {"packages": {"docker.io": None}}, {"docker_version": ""}, "pass", "28.2.2"),
    ("exposure", {}, {"host": "0.0.0.0"}, "fail", "dgx_vllm_api_key"),
    ("exposure", {}, {"host": "[::]"}, "fail", "exposure into dgx_vllm_preflight_accept"),
    ("exposure", {}, {"host": "0.0.0.0", "accept": ["exposure"]}, "warn", "accepted: everyone"),
    ("exposure", {}, {"host": "0.0.0.0", "api_key_set": True}, "pass", "0.0.0.0"),
    ("exposure", {}, {"host": "spark1.lan"}, "warn", "spark1.lan"),
    ("exposure", {}, {"host": "::1"}, "pass", "::1"),
    ("exposure", {}, {"host": "localhost"}, "pass", "localhost"),
]


@pytest.mark.parametrize(("check", "different", "asked", "status", "words"), CASES)
def test_findings(node, settings, check, different, asked, status, words):
    for path, value in different.items():
        put(node, path, value)
    found = row(node, {**settings, **asked}, check)
    assert found.status == status, found
    assert words in f"{found.found} {found.reason} {found.remedy}"


def held(unit: str | None, *addresses: str) -> dict[str, Any]:
    return {"in_use": True, "pid": 77, "process": "nginx", "unit": unit, "addresses": list(addresses)}


@pytest.mark.parametrize(
    ("port", "host", "status", "words"),
    [
        (held("nginx.service", "0.0.0.0"), "127.0.0.1", "fail", "systemctl stop nginx.service"),
        (held(None, "127.0.0.1"), "127.0.0.1", "fail", "end process 77"),
        (held(None, "127.0.0.1"), "0.0.0.0", "fail", "pid 77"),
        (held(None, "192.0.2.7"), "127.0.0.1", "pass", "192.0.2.7"),
        (held(None, "192.0.2.7"), "some.name", "fail", "dgx_vllm_port"),
        (held("dgx-vllm.service", "127.0.0.1"), "127.0.0.1", "pass", "our own"),
    ],
)
def test_port(node, settings, port, host, status, words):
    node["port"] = port
    found = row(node, {**settings, "host": host}, "port")
    assert found.status == status
    assert words in f"{found.found} {found.reason} {found.remedy}"


def test_a_port_that_could_not_be_read_is_a_warning(node, settings):
    node["port"]["error"] = "ss is not installed"
    found = row(node, settings, "port")
    assert (found.status, found.found, found.reason) == ("warn", "8000 not checked", "ss is not installed")
    assert "iproute2" in found.remedy


def test_a_container_that_publishes_the_port_is_named(node, settings):
    node["port"] = held("docker.service", "0.0.0.0")
    node["docker"]["containers"] = [{"name": "web", "image": "x", "ports": "0.0.0.0:8000->80/tcp"}]
    found = row(node, settings, "port")
    assert (found.status, found.found) == ("fail", "8000 used by container web")
    assert "docker stop web" in found.remedy


def test_an_accepted_failure_is_a_warning(node, settings):
    node["arch"] = "x86_64"
    found = row(node, {**settings, "accept": ["architecture"]}, "architecture")
    assert (found.status, found.found) == ("warn", "x86_64")
    assert found.reason.startswith("accepted: ")


def test_accepting_a_warning_or_a_pass_changes_nothing(node, settings):
    node["time"]["synchronized"] = False
    rows = preflight(node, {**settings, "accept": ["time_sync", "gpu"]})
    assert not [one for one in rows if "accepted" in one.reason]


def test_an_unknown_accepted_name_fails(node, settings):
    *_, last = preflight(node, {**settings, "accept": ["gpus"]})
    assert (last.check, last.status, last.found) == ("accept", "fail", "gpus")
    assert "kernel_module" in last.remedy


def test_a_node_that_cannot_be_checked_fails_closed(settings):
    rows = preflight({}, settings)
    assert len(rows) == len(CHECKS)
    judged = {"exposure", "apt", "desktop", "heads", "isolation", "fabric_prefix"}
    assert {one.check for one in rows if one.status != "fail"} <= judged


@pytest.mark.parametrize(
    ("version", "expected"),
    [("28.2.2", (28, 2, 2)), ("20.10.24+dfsg1", (20, 10, 24)), (None, ()), ("", ()), ("abc", ())],
)
def test_numbers(version, expected):
    assert numbers(version) == expected
