#!/usr/bin/env python3
"""Container health: GET /health where the server listens; exit 0 if the answer is 200.

Host and port come from the command line of process 1, from VLLM_EXTRA_ARGS (behind `docker run --init`, process 1 is
the command of the entry point, not that of vLLM), and from HOST and PORT. A container that serves nothing (another
command, or a headless rank) is healthy as long as it runs.
"""

from __future__ import annotations

import os
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
    """URL to ask, or None if this command line serves no HTTP."""
    if "serve" not in words:
        return None
    words = [*_extra(env), *words]
    if "--headless" in words:
        return None
    host, port = env.get("HOST", ""), env.get("PORT", "") or "8000"
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        value = value if equals else "".join(words[index + 1 : index + 2])
        if flag == "--host":
            host = value
        elif flag == "--port":
            port = value
    if host in ("", "0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/health"


def main() -> int:
    """Ask once, within 5 seconds."""
    words = Path("/proc/1/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    url = target(words, dict(os.environ))
    if url is None:
        return 0
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=5) as answer:
            return 0 if answer.status == 200 else 1
    except OSError as error:
        print(f"{url}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
