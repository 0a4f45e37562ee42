"""The bed's hub with one large model, for a download that breaks off; runs on the node beside hub.py and model.py.

breaking_hub.py ROOT PORT LIMIT: makes the model bed/large-bf16 under ROOT, serves it, and goes away (exit 3) after
LIMIT bytes of a file. LIMIT 0: serves it whole. The Range headers that came are kept in ROOT/../ranges.
"""

from __future__ import annotations

import os
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path

import hub
import model

MIB = 1 << 20


class BreakingHub(hub.Hub):
    """Ends the whole process in the middle of a large file."""

    limit = 0

    def send_file(self, folder: Path, name: str, body: bool) -> None:
        if body and name.endswith(".safetensors"):
            with (self.root.parent / "ranges").open("a", encoding="utf-8") as log:
                print(self.headers.get("Range", "all"), file=log)
            if self.limit:
                self.wfile = Leaky(self.wfile, self.limit)  # type: ignore[assignment]
        super().send_file(folder, name, body)


class Leaky:
    """A stream that lets `limit` bytes through and then ends the process."""

    def __init__(self, stream: object, limit: int) -> None:
        self.stream, self.left = stream, limit

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            os._exit(3)
        self.stream.write(data)  # type: ignore[attr-defined]
        return len(data)


def main(root: Path, port: int, limit: int) -> None:
    folder = root / "bed/large-bf16/main"
    if not folder.is_dir():
        model.write_repository(folder, model.dense_config())
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes() + bytes(range(256)) * (48 * MIB // 256))
    BreakingHub.root, BreakingHub.token, BreakingHub.limit = root, "none", limit
    ThreadingHTTPServer(("127.0.0.1", port), BreakingHub).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
