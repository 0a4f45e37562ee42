"""What the role takes away again, and what it leaves because others put it there. Run on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.ansible_run import Run
from helpers.releases import health, node, on_disk, plan, systemctl
from helpers.stages import Stages

OURS, THEIRS = "sha256:" + "aa" * 32, "sha256:" + "bb" * 32
KEY = "a" * 12


def uninstall(place: Path, *foreign: str, **ledger: Any) -> tuple[Stages, Run, Path]:
    stages = Stages(place, "common/validate", "common/state")
    stages.tool("docker", f"case $2 in inspect) echo {OURS} ;; esac\n")
    home = stages.node("one")
    for path in (
        f"cache/{KEY}/compiled",
        "models/hub/models--org--m/blobs/1",
        "models/hub/.locks/models--org--m/1",
        *foreign,
    ):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).touch()
    absent = {"exists": False}
    release = {"r1": {"image_id": OURS}, "r2": {"image_id": THEIRS}}
    state = node(service=absent, watch=absent, daemon_json=absent, releases=release, ledger=ledger)
    run = stages.run("uninstall", {"one": {**state, "dgx_vllm_remove_weights": True}}, dgx_vllm_model="org/m")
    assert run.rc == 0, run.failure("one")
    return stages, run, home


def left(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_everything_of_the_role_goes(tmp_path: Path) -> None:
    home = tmp_path / "nodes/one"
    folders = {"folders": [f"{home}/cache", f"{home}/models"], "caches": [f"{home}/cache/{KEY}"]}
    stages, _, _ = uninstall(tmp_path, "models/hub/version.txt", "models/.check", images=[OURS], **folders)
    assert list(home.iterdir()) == []
    assert [call for call in stages.calls if "image rm" in call] == [f"docker image rm --force {OURS}"]


def test_the_folders_of_needrestart_go_if_the_role_made_them(tmp_path: Path) -> None:
    """S1: the deeper folder was made last, and is removed first."""
    home = tmp_path / "nodes/one"
    folders = [f"{home}/cache", f"{home}/models", f"{home}/needrestart", f"{home}/needrestart/conf.d"]
    file = "needrestart/conf.d/dgx-vllm.conf"
    uninstall(tmp_path, file, folders=folders, caches=[f"{home}/cache/{KEY}"], needrestart=f"{home}/{file}")
    assert list(home.iterdir()) == []


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    home = tmp_path / "nodes/one"
    foreign = ["cache/pip/x", "models/hub/models--other--m/blobs/1"]
    folders = {"folders": [f"{home}/cache", f"{home}/models"], "caches": [f"{home}/cache/{KEY}"]}
    stages, _, _ = uninstall(tmp_path, *foreign, **folders)
    assert left(home) == foreign
    assert not [call for call in stages.calls if "docker" in call]


@pytest.mark.parametrize("mine", ["my-model/config.json", "hub/version.txt"])
def test_folders_that_were_there_stay(mine: str, tmp_path: Path) -> None:
    _, _, home = uninstall(tmp_path, f"models/{mine}", caches=[f"{tmp_path}/nodes/one/cache/{KEY}"])
    assert left(home) == [f"models/{mine}"]
    assert (home / "cache").is_dir()


def test_an_image_that_was_there_is_not_noted(tmp_path: Path) -> None:
    stages = Stages(tmp_path, "image/pull")
    stages.tool("docker", f"echo {OURS}\n")
    given = node()
    for image, ours in ((OURS, False), (THEIRS, True)):
        given["__dgx_vllm_node"]["state"]["image"] = {"present": True, "id": image}
        run = stages.run("image/get", {"one": given}, dgx_vllm_image_source="pull")
        assert run.rc == 0, run.failure("one")
        ledger = stages.node("one", "lib/state/ledger.json")
        assert (THEIRS in ledger.read_text() if ledger.exists() else False) == ours


def test_an_upgrade_takes_the_cache_of_the_release_that_goes(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    stages.tool("docker")
    stages.stub("health", health(True, __dgx_vllm_release="r3"))
    on_disk(stages, "one")
    images = {"r0": THEIRS, "r1": OURS, "r2": "sha256:" + "cc" * 32, "r3": "sha256:" + "dd" * 32}
    caches = [stages.node("one", f"cache/{image[7:19]}") for image in images.values()]
    for cache in caches:
        cache.mkdir(parents=True)
    given = node(
        releases={name: {"image_id": image} for name, image in images.items()},
        image={"present": True, "id": images["r3"]},
        ledger={"caches": [str(cache) for cache in caches], "images": [OURS]},
    )
    systemctl(stages, enabled=True)
    run = stages.run("verify", {"one": given}, __dgx_vllm_plan=plan("one"))
    assert run.rc == 0, run.failure("one")
    assert [cache.exists() for cache in caches] == [False, False, True, True]
    assert [call for call in stages.calls if "docker" in call] == [f"docker image rm {OURS}"]
    assert not stages.node("one", "etc/releases/r1").exists()


@pytest.mark.parametrize("noted", [True, False])
def test_the_firewall_goes_before_its_package(noted: bool, tmp_path: Path) -> None:
    stages = Stages(
        tmp_path,
        "common/validate",
        "common/state",
        "firewall/remove",
        "uninstall/dependents",
        "uninstall/packages",
    )
    absent = {"exists": False}
    ledger = {"packages": ["nftables"], "firewall": noted}
    given = node(service=absent, watch=absent, daemon_json=absent, releases={}, ledger=ledger)
    run = stages.run("uninstall", {"one": given}, dgx_vllm_model="org/m")
    assert run.rc == 0, run.failure("one")
    ran = [call.removeprefix("one ") for call in stages.calls if "firewall" in call or "packages" in call]
    assert ran == [*(["firewall/remove"] if noted else []), "uninstall/packages"]


@pytest.mark.parametrize("left", [True, False])
def test_l3_a_login_that_a_cut_run_left_goes_with_the_next_run(left: bool, tmp_path: Path) -> None:
    """Even with an image that is there, and whatever stage the run is for."""
    stages = Stages(tmp_path, "runtime/main", "image/main", "model/main")
    file = stages.node("one", "etc/docker/config.json")
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    first = yaml.safe_load((stages.tasks / "prepare.yml").read_text(encoding="utf-8"))[0]
    assert first["tags"] == ["always"]
    given = node(registry_login=left)
    run = stages.run("prepare", {"one": given}, __dgx_vllm_plan=plan("one"), dgx_vllm_model="o/m")
    assert run.rc == 0, run.failure("one")
    assert file.exists() is not left


@pytest.mark.parametrize("pulled", [True, False])
def test_the_registry_password_does_not_stay(pulled: bool, tmp_path: Path) -> None:
    stages = Stages(tmp_path, "common/state")
    note = 'echo "$DOCKER_CONFIG" >>"$AT/config"; '
    stages.tool(
        "docker", f'{note}case $1 in login) cat >"$AT/password" ;; pull) {str(pulled).lower()} ;; esac\n'
    )
    login = {"dgx_vllm_registry_username": "me", "dgx_vllm_registry_password": "word-for-tests"}
    run = stages.run("image/pull", {"one": node()}, dgx_vllm_image="registry.example.com/i:1", **login)
    assert (run.failure("one") == "") == pulled
    assert (tmp_path / "password").read_text() == "word-for-tests"
    assert [call.split()[1] for call in stages.calls if "docker" in call] == ["login", "pull", "logout"]
    assert (tmp_path / "config").read_text().splitlines() == [str(stages.node("one", "etc/docker"))] * 3


def removal(place: Path, tool: str = "", **state: Any) -> tuple[Stages, Run]:
    """Uninstall on a node with a release that holds a secret; `tool` is the text of its docker."""
    stages = Stages(place, "common/validate", "common/state", "uninstall/dependents", "uninstall/packages")
    stages.tool("docker", tool)
    on_disk(stages, "one")
    stages.node("one", "etc/releases/r1/vllm.env").write_text("VLLM_API_KEY=k\n", encoding="utf-8")
    absent = {"exists": False}
    given = {"service": absent, "watch": absent, "daemon_json": absent, "releases": {}, **state}
    return stages, stages.run("uninstall", {"one": node(**given)}, dgx_vllm_model="org/m")


@pytest.mark.parametrize("unit", ["service", "watch"])
def test_m2_a_silent_systemd_stops_uninstall_before_any_change(unit: str, tmp_path: Path) -> None:
    stages, run = removal(
        tmp_path, **{unit: {"exists": False, "error": "systemctl gave no answer within 60 s"}}
    )
    assert "systemctl show on one gives no answer" in run.failure("one")
    assert stages.node("one", "etc/releases/r1/vllm.env").exists()


@pytest.mark.parametrize("what", ["container", "volume", "network", "image"])
def test_m8_what_others_keep_in_docker_keeps_it(what: str, tmp_path: Path) -> None:
    docker = f'case "$1 $2" in "{what} ls") echo theirs ;; "image inspect") exit 1 ;; esac\n'
    stages, run = removal(tmp_path, docker, ledger={"packages": ["docker.io"]})
    assert "but holds theirs too" in run.failure("one")
    assert not any("uninstall/packages" in call for call in stages.calls)


def test_m8_what_is_the_roles_does_not_keep_docker(tmp_path: Path) -> None:
    inspected = json.dumps([{"Id": OURS}])
    docker = (
        'case "$1 $2" in "container ls") echo dgx-vllm r1 ;; '
        f'"image ls") echo {OURS} ;; "image inspect") echo \'{inspected}\' ;; esac\n'
    )
    stages, run = removal(tmp_path, docker, ledger={"packages": ["docker.io"], "images": [OURS]})
    assert run.rc == 0, run.failure("one")
    assert any("uninstall/packages" in call for call in stages.calls)


def test_m8_a_list_that_docker_does_not_give_stops_before_any_change(tmp_path: Path) -> None:
    stages, run = removal(tmp_path, "echo no answer >&2; exit 1\n", ledger={"packages": ["docker.io"]})
    assert "it is not known what else it holds" in run.failure("one")
    assert stages.node("one", "etc/releases/r1/vllm.env").exists()


def test_m8_a_silent_docker_does_not_keep_the_secrets(tmp_path: Path) -> None:
    docker = {"installed": True, "running": False, "error": "Cannot connect to the Docker daemon"}
    stages, run = removal(
        tmp_path, "exit 1\n", docker=docker, ledger={"packages": ["docker.io"], "images": [OURS]}
    )
    assert "Cannot connect to the Docker daemon" in run.failure("one")
    assert not stages.node("one", "etc").exists()
    assert stages.node("one", "lib/state").exists(), "the ledger, for the run after"
    assert not any("docker" in call or "uninstall/packages" in call for call in stages.calls)


def test_m8_a_docker_that_is_gone_does_not_stop_uninstall(tmp_path: Path) -> None:
    docker = {"installed": False, "running": False, "error": None}
    stages, run = removal(
        tmp_path, "exit 1\n", docker=docker, ledger={"packages": ["docker.io"], "images": [OURS]}
    )
    assert run.rc == 0, run.failure("one")
    assert not stages.node("one", "lib").exists()


def test_m8_an_image_that_stays_is_a_failure(tmp_path: Path) -> None:
    docker = 'echo "No such image: aa" >&2; echo "conflict: cannot be forced" >&2; [ $2 != rm ]\n'
    _, run = removal(tmp_path, docker, ledger={"images": ["aa", OURS]})
    assert "keeps an image of the role: conflict: cannot be forced" in run.failure("one")


def test_m8_images_that_are_gone_are_not_a_failure(tmp_path: Path) -> None:
    _, run = removal(tmp_path, 'echo "No such image: aa" >&2; [ $2 != rm ]\n', ledger={"images": ["aa"]})
    assert run.rc == 0, run.failure("one")


def test_l10_the_key_of_a_repository_goes_even_if_no_package_came_from_it(tmp_path: Path) -> None:
    stages = Stages(tmp_path, "common/validate", "common/state")
    keyring = tmp_path / "keyrings/key.gpg"
    keyring.parent.mkdir()
    for path in (keyring, keyring.with_suffix(".asc"), keyring.with_name("theirs.gpg")):
        path.touch()
    absent = {"exists": False}
    given = node(service=absent, watch=absent, daemon_json=absent, releases={}, ledger={})
    place = json.dumps({"__dgx_vllm_toolkit_keyring": str(keyring)})
    run = stages.run("uninstall", {"one": given}, "-e", place, dgx_vllm_model="org/m")
    assert run.rc == 0, run.failure("one")
    assert [path.name for path in keyring.parent.iterdir()] == ["theirs.gpg"]
