#!/usr/bin/env python3
"""Container health: GET /health where the server listens; exit 0 if the answer is 200.

Host and port come from the command line of process 1, from VLLM_EXTRA_ARGS (behind `docker run --init`, process 1 is
the command of the entry point, not that of vLLM), from HOST and PORT, and from the file of --config. A container that
serves no HTTP on a port (another command, a headless rank, a socket, gRPC) is healthy as long as it runs.
"""

from __future__ import annotations

import os
import ssl
import sys
import urllib.request
from pathlib import Path

import entrypoint


def _extra(env: dict[str, str]) -> list[str]:
    """The words of VLLM_EXTRA_ARGS; none if its quotes do not close, which stops the entry point."""
    try:
        return entrypoint.split_words(env.get("VLLM_EXTRA_ARGS", ""))
    except entrypoint.Refused:
        return []


def target(words: list[str], env: dict[str, str]) -> str | None:
    """URL to ask, or None if this command line serves no HTTP on a port."""
    if "serve" not in words:
        return None
    given = entrypoint.grammar().read([*_extra(env), *words[words.index("serve") + 1 :]])
    file = entrypoint.from_file(given)
    found = {option.name: "".join(option.values[:1]) for option in given if option.on}
    if {"--headless", "--uds", "--grpc"} & {*file, *found}:
        return None
    # A variable wins over the file, because the entry point makes an argument of it.
    host = found.get("--host") or env.get("HOST") or file.get("--host", "")
    port = found.get("--port") or env.get("PORT") or file.get("--port", "8000")
    if host in ("", "0.0.0.0", "::"):
        host = "127.0.0.1"
    scheme = "https" if "--ssl-certfile" in {*file, *found} else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/health"


def main() -> int:
    """Ask once, within 5 seconds."""
    words = Path("/proc/1/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    url = target(words, dict(os.environ))
    if url is None:
        return 0
    try:
        # The container asks itself: the name in the certificate is another one.
        context = ssl._create_unverified_context()
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(url, timeout=5) as answer:
            return 0 if answer.status == 200 else 1
    except OSError as error:
        print(f"{url}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
