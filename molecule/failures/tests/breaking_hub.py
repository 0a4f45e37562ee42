"""The testbed's hub with one larger model, for interrupted downloads; runs on the node, next to hub.py and model.py.

breaking_hub.py ROOT PORT drop|die|whole: makes the model testbed/large-bf16 under ROOT and serves it. After 30 MiB of a
file `drop` closes that connection, once; `die` ends the whole hub; `whole` does neither. Each request, file and range,
is recorded in ROOT/../requests.
"""

from __future__ import annotations

import os
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path

import hub
import model

MIB = 1 << 20
SIZES = {"model-00001-of-00002.safetensors": 4, "model-00002-of-00002.safetensors": 48}


class BreakingHub(hub.Hub):
    """Breaks off in the middle of a large file."""

    how = "whole"

    def send_file(self, folder: Path, name: str, body: bool) -> None:
        if body:
            with (self.root.parent / "requests").open("a", encoding="utf-8") as log:
                print(name, self.headers.get("Range", "all"), file=log)
            if self.how != "whole":
                self.wfile = Leaky(self.wfile, 30 * MIB, self.how)  # type: ignore[assignment]
        try:
            super().send_file(folder, name, body)
        except ConnectionAbortedError:
            BreakingHub.how = "whole"
            self.close_connection = True


class Leaky:
    """A stream that lets `limit` bytes through and then breaks."""

    def __init__(self, stream: object, limit: int, how: str) -> None:
        self.stream, self.left, self.how = stream, limit, how

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            if self.how == "die":
                os._exit(3)
            raise ConnectionAbortedError
        self.stream.write(data)  # type: ignore[attr-defined]
        return len(data)


def main(root: Path, port: int, how: str) -> None:
    folder = root / "testbed/large-bf16/main"
    if not folder.is_dir():
        model.write_repository(folder, model.dense_config())
        (folder / "model.safetensors").unlink()
        for number, (name, size) in enumerate(SIZES.items()):
            (folder / name).write_bytes(bytes([number]) * (size * MIB))
    BreakingHub.root, BreakingHub.token, BreakingHub.how = root, "none", how
    ThreadingHTTPServer(("127.0.0.1", port), BreakingHub).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
