"""A deployed Spark; run after the deployment and again after a reboot."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from testlib.node import KEY, MARKERS, REGISTRY_PASSWORD, UNIT

CONFIGS = "/app/vllm/vllm/model_executor/layers/fused_moe/configs/"


@pytest.fixture(scope="module")
def log(host: Any) -> str:
    """The container's log, as an operator reads it."""
    return str(host.run("docker logs dgx-vllm 2>&1").stdout)


@pytest.fixture(scope="module")
def container(host: Any) -> dict[str, Any]:
    inspected: dict[str, Any] = host.docker("dgx-vllm").inspect()
    return inspected


def request(host: Any, path: str, body: dict[str, Any] | None = None, key: str = KEY) -> tuple[int, Any]:
    """Status and JSON of one request from this machine: on the node, the key would be in sudo's journal lines."""
    address = next(a for a in host.interface("eth0").addresses if ":" not in a)
    call = urllib.request.Request(f"http://{address}:8000{path}", headers={"Authorization": f"Bearer {key}"})
    if body is not None:
        call.data = json.dumps(body).encode()
        call.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(call, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, None


def test_unit_is_up_and_starts_at_boot(host: Any) -> None:
    service = host.service(UNIT)
    assert service.is_enabled
    assert service.is_running, host.run(f"journalctl --no-pager -n 60 -u {UNIT}").stdout


def test_container_has_few_rights(container: dict[str, Any]) -> None:
    settings = container["HostConfig"]
    assert not settings["Privileged"]
    assert settings["PidsLimit"] == 4096
    assert settings["Memory"] == 6 << 30
    assert not set(settings["CapAdd"] or []) - {"IPC_LOCK", "CAP_IPC_LOCK"}


def test_container_runs_an_image_by_its_id(container: dict[str, Any]) -> None:
    assert container["Config"]["Image"] == container["Image"]


def test_gpu_reaches_the_container(host: Any) -> None:
    answer = host.run("docker exec dgx-vllm nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader")
    assert answer.stdout.strip() == "NVIDIA GB10, 12.1", answer.stderr


@pytest.mark.parametrize("marker", MARKERS, ids=["linear", "moe"])
def test_vllm_printed_the_marker(log: str, marker: str) -> None:
    assert log.count(marker) == 1


def test_the_process_that_serves_recorded_what_it_decided(host: Any) -> None:
    files = host.check_output("docker exec dgx-vllm sh -c 'ls /tmp/dgx-vllm/record-*.json'").split()
    records = [json.loads(host.check_output(f"docker exec dgx-vllm cat {file}")) for file in files]
    decisions = {(row["layer"], row["why"]) for record in records for row in record["decisions"]}
    assert decisions == {("linear", "routed"), ("moe", "routed")}
    assert any(record["census"] for record in records)
    assert not [error for record in records for error in record["errors"]]


def test_moe_config_is_there_and_loaded(host: Any, log: str) -> None:
    listing = host.check_output(f"docker exec dgx-vllm ls {CONFIGS}")
    assert "E=512,N=512,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json" in listing.splitlines()
    assert "Using configuration from" in log
    assert "Using default MoE config" not in log


def test_model_list_needs_the_key(host: Any) -> None:
    status, models = request(host, "/v1/models")
    assert status == 200
    assert [model["id"] for model in models["data"]] == ["testbed/tiny-moe-fp8"]
    assert request(host, "/v1/models", key="wrong")[0] == 401


def test_chat_completion(host: Any) -> None:
    status, answer = request(
        host,
        "/v1/chat/completions",
        {
            "model": "testbed/tiny-moe-fp8",
            "temperature": 0,
            "max_tokens": 8,
            "messages": [{"role": "user", "content": "Say something."}],
        },
    )
    assert status == 200, answer
    assert answer["usage"]["completion_tokens"] >= 1


def test_files_have_their_modes(host: Any) -> None:
    release = host.file("/etc/dgx-vllm/current")
    assert release.is_symlink
    environment = host.file(f"{release.linked_to}/vllm.env")
    assert (environment.user, environment.group, environment.mode) == ("root", "root", 0o600)
    assert host.file("/etc/dgx-vllm/docker").mode == 0o700
    assert host.file("/etc/dgx-vllm").mode == 0o755


@pytest.mark.parametrize("secret", (KEY, REGISTRY_PASSWORD), ids=["api-key", "registry-password"])
@pytest.mark.parametrize(
    "command",
    [
        f"systemctl cat {UNIT}",
        f"systemctl show {UNIT}",
        "ps axww -o args",
        "journalctl --no-pager -b",
        "docker logs dgx-vllm 2>&1",
        "find /etc/dgx-vllm /var/lib/dgx-vllm -type f -perm /044 -exec cat {} + | tr -cd '\\11\\12\\40-\\176'",
    ],
    ids=["unit", "unit-properties", "processes", "journal", "log", "readable-files"],
)
def test_no_secret_is_shown(host: Any, command: str, secret: str) -> None:
    shown = host.run(command).stdout
    assert shown, "the command printed nothing, so this test proves nothing"
    assert secret not in shown
