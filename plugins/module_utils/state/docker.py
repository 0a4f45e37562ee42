"""What Docker has and runs, read through its command line (no SDK is needed on a node)."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import (
    MISSING,
    TIMED_OUT,
    Completed,
    Runner,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text, under

DOCKER_ROOT, CONTAINERD_ROOT = "/var/lib/docker", "/var/lib/containerd"
_CONTAINERD_FILE = "/etc/containerd/config.toml"
_JSON = "{{json .}}"
_CONTAINERD_STORE = "io.containerd.snapshotter.v1"
"""In DriverStatus of an engine that keeps images in containerd (new installations of Docker 29 and later)."""


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _object(done: Completed) -> tuple[dict[str, Any], str | None]:
    """The object of an `inspect` answer, empty if there is no such thing; and why that is not known, if it is not."""
    answer = _parsed(done.stdout) if done.rc == 0 else None
    first = answer[0] if isinstance(answer, list) and answer else answer
    if isinstance(first, dict):
        return first, None
    absent = done.rc == MISSING or (done.rc == 1 and "no such" in done.stderr.lower())
    return {}, None if absent else complaint(done)


def complaint(done: Completed) -> str:
    """Why docker gave no answer that can be used."""
    return (
        done.complaint if done.rc and done.complaint else f"docker ended with status {done.rc} and no answer"
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def engine(runner: Runner) -> dict[str, Any]:
    """Docker's version and set-up from `docker info`.

    `image_store` is containerd, where an image's id is the digest of its manifest, or docker, where it is that of its
    configuration. With the daemon down the client still answers (status 1, `ServerErrors`): then `running` is false and
    `error` holds its message. One that gave no answer in time may run.
    """
    report: dict[str, Any] = {
        "installed": False,
        "running": False,
        "timed_out": False,
        "error": None,
        "version": None,
        "cgroup_driver": None,
        "root_dir": None,
        "runtimes": [],
        "default_runtime": None,
        "cdi_spec_dirs": [],
        "image_store": None,
        "live_restore": False,
    }
    done = runner(["docker", "info", "--format", _JSON])
    if done.rc == MISSING:
        return report
    report.update(installed=True, timed_out=done.rc == TIMED_OUT)
    info = _parsed(done.stdout)
    info = _dictionary(info)
    client = _dictionary(info.get("ClientInfo"))
    report["version"] = info.get("ServerVersion") or client.get("Version") or None
    if done.rc != 0 or not info.get("ServerVersion"):
        errors = [str(error) for error in _list(info.get("ServerErrors"))]
        report["error"] = "; ".join(errors) or done.complaint or "docker info gave no answer"
        return report
    report.update(
        running=True,
        cgroup_driver=info.get("CgroupDriver"),
        root_dir=str(info.get("DockerRootDir") or "") or None,
        runtimes=sorted(_dictionary(info.get("Runtimes"))),
        default_runtime=info.get("DefaultRuntime"),
        cdi_spec_dirs=[str(folder) for folder in _list(info.get("CDISpecDirs"))],
        live_restore=bool(info.get("LiveRestoreEnabled")),
        image_store="containerd" if _CONTAINERD_STORE in str(info.get("DriverStatus")) else "docker",
    )
    return report


def image_folder(root: Path, report: Mapping[str, Any]) -> str:
    """Where an engine (as `engine` reports it) keeps its images: in containerd's folder if that is its image store."""
    if report["image_store"] == "containerd":
        configured = re.search(
            r"^root\s*=\s*[\"']([^\"']+)[\"']", read_text(under(root, _CONTAINERD_FILE)), re.MULTILINE
        )
        return configured.group(1) if configured else CONTAINERD_ROOT
    return str(report["root_dir"] or DOCKER_ROOT)


def containers(runner: Runner, ours: str) -> tuple[list[dict[str, str]], str | None]:
    """Name, image, published ports and restart policy of every running container but `ours`; and why unknown, if so."""
    rows: list[dict[str, str]] = []
    done = runner(["docker", "ps", "--format", _JSON])
    if done.rc not in (0, MISSING):
        return [], complaint(done)
    for line in done.stdout.splitlines():
        row = _parsed(line)
        if not isinstance(row, dict):
            return [], "docker ps printed a line that is not an object"
        if row.get("Names") != ours:
            rows.append(
                {
                    "name": str(row.get("Names")),
                    "image": str(row.get("Image")),
                    "ports": str(row.get("Ports") or ""),
                }
            )
    policies = _policies(runner, [row["name"] for row in rows])
    return [{**row, "restart": policies.get(row["name"], "")} for row in rows], None


def _policies(runner: Runner, names: list[str]) -> dict[str, str]:
    """Restart policy by name; a container that has ended in between is left out."""
    if not names:
        return {}
    text = "{{.Name}} {{.HostConfig.RestartPolicy.Name}}"
    lines = runner(["docker", "container", "inspect", "--format", text, *names]).stdout.splitlines()
    return {name.lstrip("/"): policy for name, _, policy in (line.partition(" ") for line in lines)}


def image(runner: Runner, reference: str) -> dict[str, Any]:
    """Id, registry digests, labels and size (bytes) of an image that this node holds.

    `error` says why docker gave no answer: then it is not known whether the image is `present`.
    """
    details, error = _object(runner(["docker", "image", "inspect", reference])) if reference else ({}, None)
    size = details.get("Size")
    return {
        "error": error,
        "present": bool(details),
        "id": details.get("Id"),
        "digests": _list(details.get("RepoDigests")),
        "labels": _dictionary(_dictionary(details.get("Config")).get("Labels")),
        "size_bytes": size if isinstance(size, int) else 0,
    }


def base_image(runner: Runner, reference: str) -> dict[str, Any]:
    """The same of an image by digest; without it, a copy under its tag of which no registry's digest is known."""
    found = image(runner, reference)
    if found["present"] or "@" not in reference:
        return found
    loaded = image(runner, reference.partition("@")[0])
    return found if loaded["digests"] else loaded


def container(runner: Runner, name: str) -> dict[str, Any]:
    """Whether the container of our name runs, from which image (its id) and release, and since when.

    One that is there without a release is somebody else's. `error` says why docker gave no answer.
    """
    details, error = _object(runner(["docker", "container", "inspect", name]))
    status = _dictionary(details.get("State"))
    labels = _dictionary(_dictionary(details.get("Config")).get("Labels"))
    return {
        "error": error,
        "running": bool(status.get("Running")),
        "id": details.get("Id"),
        "image_id": details.get("Image"),
        "release": labels.get("dgx-vllm.release"),
        "started_at": status.get("StartedAt") if status.get("Running") else None,
    }


def daemon_json(path: Path) -> dict[str, Any]:
    """Docker's configuration file; `error` if it is there but is not one JSON object. `mode` as four octal digits."""
    try:
        mode = f"{stat.S_IMODE(path.stat().st_mode):04o}"
    except OSError:
        mode = None
    return {**_settings(path), "mode": mode}


def _settings(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {"exists": False, "error": None, "content": {}}
    except (OSError, UnicodeDecodeError) as error:
        return {"exists": True, "error": f"cannot be read: {error}", "content": {}}
    if not text.strip():
        return {"exists": True, "error": None, "content": {}}
    try:
        content = json.loads(text)
    except ValueError as error:
        return {"exists": True, "error": f"is not valid JSON: {error}", "content": {}}
    if not isinstance(content, dict):
        return {"exists": True, "error": "is not a JSON object", "content": {}}
    return {"exists": True, "error": None, "content": content}


def registry_login(path: Path) -> bool:
    """Whether a configuration of Docker's client holds a login; one that cannot be read may hold one."""
    found = daemon_json(path)
    return found["error"] is not None or bool(found["content"].get("auths"))
