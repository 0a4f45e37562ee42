"""Docker through its command line, with answers as the real client gives them."""

from __future__ import annotations

import json

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import TIMED_OUT
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import docker as docker_cli

INFO = {
    "ServerVersion": "28.2.2",
    "CgroupDriver": "systemd",
    "DockerRootDir": "/srv/docker",
    "Runtimes": {"runc": {}, "nvidia": {}},
    "DefaultRuntime": "runc",
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
    "ClientInfo": {"Version": "28.2.2"},
}


def test_engine(runner):
    runner.on_json("docker", "info", answer=INFO)
    assert docker_cli.engine(runner) == {
        "installed": True,
        "running": True,
        "timed_out": False,
        "error": None,
        "version": "28.2.2",
        "cgroup_driver": "systemd",
        "root_dir": "/srv/docker",
        "runtimes": ["nvidia", "runc"],
        "default_runtime": "runc",
        "cdi_spec_dirs": ["/etc/cdi", "/var/run/cdi"],
        "image_store": "docker",
        "live_restore": False,
    }


@pytest.mark.parametrize(
    ("status", "store"),
    [
        ([["driver-type", "io.containerd.snapshotter.v1"]], "containerd"),
        ([["Backing Filesystem", "extfs"], ["Supports d_type", "true"]], "docker"),
        (None, "docker"),
    ],
)
def test_the_image_store_is_told_by_the_storage_driver(status, store, runner):
    runner.on_json("docker", "info", answer={**INFO, "DriverStatus": status})
    assert docker_cli.engine(runner)["image_store"] == store


def test_engine_absent(runner):
    found = docker_cli.engine(runner)
    assert (found["installed"], found["running"], found["version"]) == (False, False, None)


def test_engine_that_does_not_answer_in_time_is_not_called_stopped(runner):
    runner.on("docker", "info", rc=TIMED_OUT, stderr="docker gave no answer within 60 s")
    found = docker_cli.engine(runner)
    assert (found["installed"], found["running"], found["timed_out"]) == (True, False, True)
    assert found["error"] == "docker gave no answer within 60 s"


def test_engine_stopped(runner):
    answer = {"ServerErrors": ["Cannot connect to the Docker daemon"], "ClientInfo": {"Version": "20.10.24"}}
    runner.on("docker", "info", stdout=json.dumps(answer), rc=1)
    found = docker_cli.engine(runner)
    assert (found["installed"], found["running"], found["version"]) == (True, False, "20.10.24")
    assert found["error"] == "Cannot connect to the Docker daemon"


def test_engine_that_answers_nonsense(runner):
    runner.on("docker", "info", stdout="oops", stderr="permission denied", rc=1)
    assert docker_cli.engine(runner)["error"] == "permission denied"


def test_containers_leave_ours_out(runner):
    rows = [
        {"Names": "dgx-vllm", "Image": "a"},
        {"Names": "web", "Image": "nginx", "Ports": "0.0.0.0:80->80/tcp"},
    ]
    runner.on("docker", "ps", stdout="".join(json.dumps(row) + "\n" for row in rows))
    runner.on("docker", "container", "inspect", stdout="/web no\n")
    assert docker_cli.containers(runner, "dgx-vllm") == (
        [{"name": "web", "image": "nginx", "ports": "0.0.0.0:80->80/tcp", "restart": "no"}],
        None,
    )


def test_image(runner):
    found = {"Id": "sha256:1", "RepoDigests": ["a@sha256:2"], "Config": {"Labels": {"k": "v"}}, "Size": 9}
    runner.on_json("docker", "image", "inspect", "a:1", answer=[found])
    assert docker_cli.image(runner, "a:1") == {
        "error": None,
        "present": True,
        "id": "sha256:1",
        "digests": ["a@sha256:2"],
        "labels": {"k": "v"},
        "size_bytes": 9,
    }


@pytest.mark.parametrize("reference", ["", "missing:1"])
def test_no_image(runner, reference):
    runner.on("docker", "image", "inspect", stdout="[]\n", stderr="Error: No such image", rc=1)
    assert docker_cli.image(runner, reference)["present"] is False


def test_container(runner):
    found = {
        "Id": "c1",
        "Image": "sha256:1",
        "State": {"Running": True, "StartedAt": "2026-11-01T10:00:00Z"},
        "Config": {"Labels": {"dgx-vllm.release": "r1"}},
    }
    runner.on_json("docker", "container", "inspect", answer=[found])
    assert docker_cli.container(runner, "dgx-vllm") == {
        "error": None,
        "running": True,
        "id": "c1",
        "image_id": "sha256:1",
        "release": "r1",
        "started_at": "2026-11-01T10:00:00Z",
    }


def test_a_stopped_container_has_no_start(runner):
    found = {"Id": "c1", "Image": "i", "State": {"Running": False, "StartedAt": "2026-11-01T10:00:00Z"}}
    runner.on_json("docker", "container", "inspect", answer=[found])
    assert docker_cli.container(runner, "dgx-vllm")["started_at"] is None


@pytest.mark.parametrize(
    ("text", "error", "content"),
    [
        ('{"data-root": "/x"}', None, {"data-root": "/x"}),
        (" \n", None, {}),
        ("[1]", "is not a JSON object", {}),
        ('{"a": 1,}', "is not valid JSON", {}),
    ],
)
def test_daemon_json(write, text, error, content):
    found = docker_cli.daemon_json(write("/etc/docker/daemon.json", text))
    assert found["exists"] is True
    assert found["content"] == content
    assert found["error"] is None if error is None else error in found["error"]


def test_no_daemon_json(tmp_path):
    found = docker_cli.daemon_json(tmp_path / "daemon.json")
    assert found == {"exists": False, "error": None, "content": {}, "mode": None}


def test_l10_the_mode_of_daemon_json(write):
    path = write("/etc/docker/daemon.json", "{}")
    path.chmod(0o600)
    assert docker_cli.daemon_json(path)["mode"] == "0600"


@pytest.mark.parametrize(
    ("store", "root_dir", "configuration", "folder"),
    [
        ("docker", "/data/docker", "", "/data/docker"),
        (None, None, "", "/var/lib/docker"),
        ("containerd", "/data/docker", "", "/var/lib/containerd"),
        ("containerd", "/data/docker", 'version = 2\n#root = "/x"\nroot = "/data/ctd"\n', "/data/ctd"),
    ],
)
def test_images_lie_where_their_store_keeps_them(tmp_path, write, store, root_dir, configuration, folder):
    """R10: with containerd's image store the images are not in Docker's folder."""
    write("/etc/containerd/config.toml", configuration)
    assert docker_cli.image_folder(tmp_path, {"image_store": store, "root_dir": root_dir}) == folder


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (None, False),
        ('{"auths": {}}', False),
        ("{}", False),
        ('{"auths": {"r": {"auth": "eA=="}}}', True),
        ("{", True),
    ],
)
def test_l3_a_login_that_was_left_is_seen(text, left, tmp_path):
    file = tmp_path / "config.json"
    if text is not None:
        file.write_text(text)
    assert docker_cli.registry_login(file) is left


def test_m2_no_answer_of_docker_is_not_absence(runner):
    runner.on("docker", stderr="docker gave no answer within 60 s", rc=124)
    said = "docker gave no answer within 60 s"
    assert docker_cli.image(runner, "a:1")["error"] == said
    assert docker_cli.container(runner, "dgx-vllm")["error"] == said
    assert docker_cli.containers(runner, "dgx-vllm") == ([], said)


def test_m2_what_is_not_there_is_known(runner):
    runner.on("docker", "image", stderr="Error response from daemon: No such image: a:1", rc=1)
    runner.on("docker", "container", stderr="Error response from daemon: No such container: x", rc=1)
    assert (docker_cli.image(runner, "a:1")["error"], docker_cli.container(runner, "x")["error"]) == (
        None,
        None,
    )


@pytest.mark.parametrize(
    "answer", [[{"Config": 1, "State": [], "RepoDigests": 2, "Size": "x"}], [1], {"Config": [2]}]
)
def test_m2_odd_answers_are_no_traceback(runner, answer):
    runner.on_json("docker", answer=answer)
    docker_cli.image(runner, "a:1")
    docker_cli.container(runner, "x")
    docker_cli.containers(runner, "x")


@pytest.mark.parametrize(
    "key", ["DockerRootDir", "Runtimes", "CDISpecDirs", "ClientInfo", "ServerErrors", "DriverStatus"]
)
@pytest.mark.parametrize("value", [1, "x", [1], {"a": 1}, None])
def test_m2_an_odd_docker_info_is_no_traceback(runner, key, value):
    runner.on_json("docker", answer={"ServerVersion": "28.2.2", key: value})
    assert docker_cli.engine(runner)["running"]
