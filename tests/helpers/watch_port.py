"""The port of a watch on loopback, with a secret, for its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replica_watch.model import Report
from replica_watch.port import HttpPeers, Secret, StatusServer, serve_status

WORD = "5ec2e7" * 8


def secret_of(place: Path, word: str = WORD) -> Secret:
    """A node's secret, in a file below `place`."""
    place.mkdir(parents=True, exist_ok=True)
    file = place / "watch.secret"
    file.write_text(f"chat {word}\n", encoding="utf-8")
    file.chmod(0o600)
    return Secret(str(file), print)


class Port:
    """The port of spark2's watch; `said` are the lines of its journal and of those that ask."""

    def __init__(self, place: Path, readers: tuple[str, ...] = (), peer: str = "127.0.0.1") -> None:
        self.report = Report("spark2", 3, "up", "ready", "r", "why", failures=[1.0])
        self.said: list[str] = []
        self.secret = secret_of(place)
        self.server: StatusServer = serve_status(
            "spark2", "127.0.0.1", 0, lambda: self.report, {"spark1": peer}, readers, self.secret, self.said.append
        )  # fmt: skip
        self.number = int(self.server.server_address[1])

    def peers(self, secret: Secret | None = None, **more: Any) -> HttpPeers:
        """The peers as spark1's watch asks them."""
        given = {"host": "spark1", "peers": {"spark2": "127.0.0.1"}, "timeout": 20.0, **more}
        return HttpPeers(port=self.number, secret=secret or self.secret, say=self.said.append, **given)

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
