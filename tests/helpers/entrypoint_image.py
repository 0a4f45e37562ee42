"""A directory that stands for the image, in which the real entry point runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve import options as serve_options

from helpers import vllm_sources

ENTRYPOINT = vllm_sources.IMAGE / "entrypoint.py"
FAKE_VLLM = f"""#!{sys.executable}
import json, os, sys
kept = {{k: v for k, v in os.environ.items() if k.startswith(("VLLM", "DGX", "HF_")) or k in ("MODEL", "PORT", "HOST")}}
print(json.dumps({{"argv": sys.argv, "env": kept, "pid": os.getpid()}}), flush=True)
"""


class Image:
    """A `vllm` command, an installed package of some version, and the table of options of the locked version."""

    def __init__(self, place: Path, version: str, program: str = FAKE_VLLM) -> None:
        self.place = place
        (place / "opt").mkdir()
        for name in ("serve_arguments.py", "setting_kinds.py"):
            shutil.copy(vllm_sources.IMAGE / name, place / "opt")
        text = ENTRYPOINT.read_text().replace('"/opt/nvidia/', f'"{place}/nvidia/')
        (place / "opt" / "entrypoint.py").write_text(text)
        if version == serve_options.VERSION:
            (place / "opt" / "serve_options.txt").write_text(serve_options.OPTIONS)
        (place / "bin").mkdir()
        (place / "bin" / "vllm").write_text(program)
        (place / "bin" / "vllm").chmod(0o755)
        (place / "site" / "vllm").mkdir(parents=True)
        (place / "site" / "vllm" / "__init__.py").write_text("raise ImportError('must not be imported')\n")
        (place / "site" / "vllm" / "_version.py").write_text(f"__version__ = version = '{version}'\n")

    def environment(self, **variables: str) -> dict[str, str]:
        path = f"{self.place / 'bin'}:{os.environ['PATH']}"
        return {"PATH": path, "PYTHONPATH": str(self.place / "site"), "HOME": str(self.place), **variables}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-B", str(self.place / "opt" / "entrypoint.py"), *arguments],
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def serve(self, *arguments: str, **variables: str) -> dict[str, Any]:
        done = self.run("serve", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        answer["stderr"] = done.stderr
        return answer
