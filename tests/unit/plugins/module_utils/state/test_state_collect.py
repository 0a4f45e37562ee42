"""The service, the role's records, the weights, and the whole state at once."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.weights import record_path, weights
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.collect import Query, collect, service

UNIT = "dgx-vllm.service"
MODELS, DATA = "/var/lib/dgx-vllm/models", "/var/lib/dgx-vllm"
SNAPSHOT = f"{MODELS}/hub/models--org--name/snapshots/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
SHOWN = """LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
NRestarts=2
Result=success
InvocationID=ab12
NeedDaemonReload=yes
FragmentPath=/etc/systemd/system/dgx-vllm.service
"""


def test_service(tmp_path, runner, write):
    text = "[Unit]\nDescription=x\nX-DgxVllm-Release=20261101-ab12cd\n"
    write(f"/etc/systemd/system/{UNIT}", text)
    runner.on("systemctl", "show", UNIT, stdout=SHOWN)
    assert service.service(tmp_path, runner, UNIT) == {
        "error": None,
        "exists": True,
        "load_state": "loaded",
        "active_state": "active",
        "sub_state": "running",
        "enabled": True,
        "n_restarts": 2,
        "result": "success",
        "invocation_id": "ab12",
        "release": "20261101-ab12cd",
        "unit_sha256": sha256(text.encode()).hexdigest(),
        "needs_reload": True,
    }


@pytest.mark.parametrize("shown", ["LoadState=not-found\nActiveState=inactive\n", ""])
def test_no_service(tmp_path, runner, shown):
    runner.on("systemctl", "show", UNIT, stdout=shown)
    found = service.service(tmp_path, runner, UNIT)
    assert (found["exists"], found["release"], found["n_restarts"]) == (False, None, 0)


def test_releases(tmp_path, write):
    assert service.releases(tmp_path) == {"releases": {}, "current": None, "previous": None}
    unit, environment = (
        "[Unit]\nX-DgxVllm-Image-Id=sha256:1\n",
        "HOST=0.0.0.0\nPORT=8001\nVLLM_API_KEY=hidden\n",
    )
    write("/releases/b/dgx-vllm.service", unit)
    write("/releases/b/vllm.env", environment).chmod(0o600)
    (tmp_path / "releases/a").mkdir()
    (tmp_path / "current").symlink_to("releases/b")
    (tmp_path / "previous").symlink_to("releases/a/")
    assert service.releases(tmp_path) == {
        "releases": {
            "a": {
                "unit_sha256": None,
                "env_sha256": None,
                "env_mode": None,
                "host": "",
                "port": 0,
                "image_id": None,
                "watch_sha256": None,
                "start_sha256": None,
            },
            "b": {
                "unit_sha256": sha256(unit.encode()).hexdigest(),
                "env_sha256": sha256(environment.encode()).hexdigest(),
                "env_mode": "0600",
                "host": "0.0.0.0",
                "port": 8001,
                "image_id": "sha256:1",
                "watch_sha256": None,
                "start_sha256": None,
            },
        },
        "current": "b",
        "previous": "a",
    }


def test_the_watch_and_the_release_that_it_reads(tmp_path, write, runner):
    runner.on("systemctl", stdout="LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n")
    config = write("/etc/dgx-vllm/releases/a/watch.json", "{}").parents[2]
    assert service.watch(tmp_path, runner, "w.service", config)["release"] is None
    (config / "watch.json").symlink_to("releases/a/watch.json")
    assert service.watch(tmp_path, runner, "w.service", config) == {
        "error": None,
        "exists": True,
        "active_state": "active",
        "enabled": True,
        "unit_sha256": None,
        "release": "a",
        "secret": {"replica": "", "sha256": ""},
    }


def test_m4_the_secret_is_told_by_its_digest_if_only_root_reads_it(tmp_path, write, runner):
    word = "0a" * 32
    file = write("/etc/dgx-vllm/watch.secret", f"chat {word}\n")
    none = {"replica": "", "sha256": ""}
    for mode, text, expected in (
        (0o600, f"chat {word}\n", {"replica": "chat", "sha256": sha256(word.encode()).hexdigest()}),
        (0o644, f"chat {word}\n", none),
        (0o600, "", none),
        (0o600, "chat short\n", none),
        (0o600, f"chat {word} more\n", none),
        (0o600, "\0" * 70, none),
    ):
        file.write_text(text)
        file.chmod(mode)
        assert service.watch(tmp_path, runner, "w.service", file.parent)["secret"] == expected


@pytest.mark.parametrize(("text", "expected"), [('{"a": 1}', {"a": 1}), ("[]", {}), ("{", {})])
def test_record(write, text, expected):
    assert service.record(write("/health.json", text)) == expected


def put_model(write, revision: str = "main", **files: int) -> None:
    known = {
        "model": "org/name",
        "revision": revision,
        "commit": "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00",
        "files": files,
    }
    write(record_path(DATA, "org/name", revision), json.dumps(known))
    for name, size in files.items():
        write(f"{SNAPSHOT}/{name}", "x" * size)


def test_a_complete_hub_model(tmp_path, write):
    put_model(write, **{"config.json": 3, "model.safetensors": 10})
    assert weights(tmp_path, "org/name", "main", MODELS, DATA) == {
        "kind": "hub",
        "present": True,
        "commit": "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00",
        "path": SNAPSHOT,
        "size_bytes": 10,
        "partial_bytes": 0,
        "lacking": "",
        "files": {},
        "heads": None,
        "unreadable": "",
        "unwritable": "",
    }


def test_a_truncated_or_missing_file_is_not_present(tmp_path, write):
    put_model(write, **{"model.safetensors": 10})
    (tmp_path / SNAPSHOT.lstrip("/") / "model.safetensors").write_text("short")
    assert weights(tmp_path, "org/name", "main", MODELS, DATA)["present"] is False
    (tmp_path / SNAPSHOT.lstrip("/") / "model.safetensors").unlink()
    assert weights(tmp_path, "org/name", "main", MODELS, DATA)["present"] is False


def test_another_revision_is_not_present(tmp_path, write):
    put_model(write, a=1)
    assert weights(tmp_path, "org/name", "v2", MODELS, DATA)["commit"] is None


@pytest.mark.parametrize(
    "text", ["", "{}", '{"commit": "c", "files": []}', '{"commit": "c", "files": {"a": 1}}']
)
def test_a_damaged_record_is_no_model(tmp_path, write, text):
    write(record_path(DATA, "org/name", "main"), text)
    assert weights(tmp_path, "org/name", "main", MODELS, DATA)["present"] is False


def test_a_model_by_path(tmp_path, write):
    assert weights(tmp_path, "/srv/m", "main", MODELS, DATA)["present"] is False
    write("/srv/m/config.json", "{}")
    write("/srv/m/model.safetensors", "weights")
    found = weights(tmp_path, "/srv/m", "main", MODELS, DATA)
    assert (found["kind"], found["present"], found["path"], found["size_bytes"]) == (
        "path",
        True,
        "/srv/m",
        7,
    )


def test_a_model_of_mistrals_format_by_path(tmp_path, write):
    write("/srv/m/params.json", "{}")
    write("/srv/m/consolidated.safetensors", "abc")
    assert weights(tmp_path, "/srv/m", "main", MODELS, DATA)["size_bytes"] == 3


def test_class_g_only_what_vllm_reads_is_counted(tmp_path, write):
    """gpt-oss-120b fetched whole by an earlier version: three times the weights, one of which vLLM reads."""
    sizes = {"config.json": 3, "model-00001-of-00001.safetensors": 65, "original/model.safetensors": 65}
    put_model(write, **sizes, **{"metal/model.bin": 65})
    assert weights(tmp_path, "org/name", "main", MODELS, DATA)["size_bytes"] == 65


def test_class_d_a_draft_model_is_looked_for_too(tmp_path, runner, write):
    put_model(write, **{"config.json": 3, "model.safetensors": 10})
    draft = {"model": "org/name", "revision": "main", "files": {}}
    absent = {"model": "org/other", "revision": "main", "files": {}}
    state = collect(Query(models_dir=MODELS, data_dir=DATA, other_models=(draft, absent)), tmp_path, runner)
    assert [(one["model"], one["present"], one["size_bytes"]) for one in state["other_models"]] == [
        ("org/name", True, 10),
        ("org/other", False, 0),
    ]
    assert state["other_models"][1]["revision"] == "main", "the download asks for it"


def test_no_model_asked(tmp_path):
    assert weights(tmp_path, "", "main", MODELS, DATA)["present"] is False


def test_a_bare_machine_is_described_without_an_error(tmp_path, runner):
    state = collect(Query(packages=("docker.io",)), tmp_path, runner, machine="aarch64")
    assert state["arch"] == "aarch64"
    assert state["docker"]["installed"] is False
    assert state["packages"] == {"docker.io": None}
    assert state["gpu"]["error"] == "nvidia-smi is not installed"
    assert (state["releases"], state["current"], state["ledger"]) == ({}, None, {})
    json.dumps(state)


def test_the_keys_are_those_the_role_reads(tmp_path, runner):
    assert set(collect(Query(), tmp_path, runner)) == {
        *(
            "arch",
            "os",
            "kernel",
            "gpu",
            "memory",
            "disks",
            "port",
            "time",
            "packages",
            "docker",
            "daemon_json",
        ),
        *(
            "nvidia_ctk",
            "cdi",
            "boot_id",
            "needrestart_sha256",
            "image",
            "model",
            "other_models",
            "service",
            "container",
            "releases",
            "current",
            "previous",
        ),
        *("ledger", "health", "watch", "apt", "base_image", "desktop", "firewall", "registry_login"),
    }


def test_nothing_it_runs_changes_the_node(tmp_path, runner):
    collect(Query(image="a:1", packages=("x",)), tmp_path, runner)
    harmless = {
        ("docker", "info"), ("docker", "ps"), ("docker", "image"), ("docker", "container"),
        ("systemctl", "show"), ("timedatectl", "show"), ("dpkg-query", "-W"), ("ss", "-Hltnp"),
        ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version"),
    }  # fmt: skip
    assert {words[:2] for words in runner.seen} <= harmless
    assert all(words[2] == "inspect" for words in runner.seen if words[1] in ("image", "container"))


@pytest.mark.parametrize(("rc", "stderr"), [(124, "systemctl gave no answer within 60 s"), (0, "")])
def test_m2_a_silent_systemctl_is_not_an_absent_unit(tmp_path, runner, rc, stderr):
    runner.on("systemctl", stderr=stderr, rc=rc)
    error = service.service(tmp_path, runner, UNIT)["error"]
    assert error == (stderr or "systemctl show gave an answer without LoadState")
    assert service.watch(tmp_path, runner, "w.service", tmp_path)["error"]
