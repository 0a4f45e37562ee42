"""Facts of nodes with two releases, and a stub of the health check, for the stages that run on this machine."""

from __future__ import annotations

from typing import Any

from helpers.stages import Stages

IMAGE = "sha256:" + "0f" * 32


def plan(*members: str) -> dict[str, Any]:
    row = {"members": list(members), "world_size": len(members), "replica": "chat", "rails": []}
    addresses = {name: f"198.51.100.{number}" for number, name in enumerate(members, 1)}
    hosts = {
        name: {
            **row,
            "is_head": name == members[0],
            "peers": [one for one in members if one != name],
            "address": addresses[name],
            "peer_addresses": {one: address for one, address in addresses.items() if one != name},
        }
        for name in members
    }
    return {"hosts": hosts, "mistakes": []}


def node(
    release: str = "r2", current: str | None = "r2", previous: str | None = "r1", **more: Any
) -> dict[str, Any]:
    release_of = {"image_id": IMAGE, "host": "127.0.0.1", "port": 8000}
    state = {
        "service": {"release": release, "exists": True, "active_state": "active", "enabled": True},
        "watch": {"exists": False, "active_state": "inactive", "enabled": False},
        "current": current, "previous": previous, "releases": {"r1": release_of, "r2": release_of},
        "image": {"present": True, "id": IMAGE}, "model": {"present": True}, "docker": {"running": True},
        "health": {}, "ledger": {}, **more,
    }  # fmt: skip
    return {"__dgx_vllm_node": {"state": state}}


def health(healthy: bool, name: str = "__dgx_vllm_health", **more: Any) -> dict[str, Any]:
    """A stub's task that finds the server healthy or not."""
    word = "fine" if healthy else "no token"
    found = {
        "healthy": healthy,
        "msg": f"{{{{ inventory_hostname }}}}: {word}",
        "evidence": {},
        "invocation_id": "i",
    }
    return {"ansible.builtin.set_fact": {name: found, **more}}


SYSTEMCTL = """case "$*" in
  *show*) printf 'Id=x\\nLoadState=loaded\\nActiveState=active\\n' ;;
  *is-enabled*) cat "$AT/enabled"; grep -q enabled "$AT/enabled" ;;
esac
"""


def systemctl(stages: Stages, enabled: bool) -> None:
    """A systemctl whose units are active, and enabled or not; it notes how it was called."""
    stages.tool("systemctl", SYSTEMCTL)
    (stages.place / "enabled").write_text("enabled\n" if enabled else "disabled\n", encoding="utf-8")


def on_disk(stages: Stages, *hosts: str) -> None:
    for host in hosts:
        for release in ("r1", "r2"):
            stages.node(host, f"etc/releases/{release}").mkdir(parents=True)
        stages.node(host, "etc/current").symlink_to("releases/r2")
        stages.node(host, "etc/previous").symlink_to("releases/r1")
        stages.node(host, "lib/state").mkdir(parents=True)
