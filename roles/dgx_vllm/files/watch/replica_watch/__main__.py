"""`python3 -m replica_watch CONFIG.json`: watch until stopped."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

from replica_watch.model import Settings
from replica_watch.port import SECRET_FILE, HttpPeers, Secret, serve_status
from replica_watch.system import HttpApi, Memory, SystemdUnits, accepts, key_from
from replica_watch.watch import Watch

INTERVAL = 2.0


def say(text: str) -> None:
    """One line in the journal; a journal that takes none keeps the watch from nothing."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def alive() -> None:
    """Notify systemd's watchdog, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(2.0)
        notify.sendto(b"READY=1\nWATCHDOG=1", address)


def make(config: Mapping[str, Any]) -> Watch:
    """The watch of this node in its real environment; its status is served from here on."""
    settings = Settings(
        host=config["host"],
        rank=int(config["rank"]),
        peers=tuple(config["peers"]),
        head=config["head"],
        **config.get("limits", {}),
    )
    api, engine = config["api"], config["engine"]
    memory = Memory(config["state"])
    # The configuration of a release from before it had these two.
    secret, readers = Secret(config.get("secret", SECRET_FILE), say), config.get("readers", [])
    peers, port = config["peers"], int(config["port"])
    watch = Watch(
        settings,
        clock=time.monotonic,
        # Linux counts its monotonic clock from the boot.
        uptime=time.monotonic,
        date=time.time,
        units=SystemdUnits(config["unit"], config["container"]),
        peers=HttpPeers(settings.host, peers, port, secret, say, source=config["address"]),
        api=HttpApi(api["address"], int(api["port"]), api["model"], key_from(api["env_file"])),
        head_listens=lambda: accepts(engine["address"], int(engine["port"])),
        say=say,
        save=memory.save,
        known=memory.load(),
    )
    address = config["address"]
    serve_status(settings.host, address, port, lambda: watch.report, peers, readers, secret, say)
    return watch


def main(path: str) -> None:
    """Tick forever; an error in one tick is logged and does not end the watch."""
    if "JOURNAL_STREAM" in os.environ:
        os.set_blocking(sys.stdout.fileno(), False)
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    watch = make(config)
    interval = float(config.get("interval", INTERVAL))
    say(f"watches {config['unit']} as rank {config['rank']} with {', '.join(config['peers'])}")
    while True:
        try:
            watch.tick()
        except Exception:
            say(f"a check failed: {traceback.format_exc(limit=3)}")
        alive()
        time.sleep(interval)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m replica_watch CONFIG.json")
    main(sys.argv[1])
