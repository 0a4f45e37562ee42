"""Single files of vLLM's released sources, fetched from the package index that pip uses, checked by hash, cached.

The sdist is streamed, hashed while it is read, and only the wanted files are kept, so nothing is built. The cache is
keyed by the sdist's sha256: ~/.cache/dgx-vllm-tests, or the directory in DGX_VLLM_TEST_CACHE.

0.15.0 and 0.15.1 were released as wheels only. They are not in the list below: the layouts of sm121_patch name 0.15
because 0.16.0 has the same functions, and a 0.15 that differs would be refused, as any unknown layout is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, Any

import pytest

IMAGE = Path(__file__).resolve().parents[2] / "files" / "image"

#: Releases that the default run uses: the first layout, the one with a GPU trial, the simulated one, the newest.
DEFAULT_VERSIONS = ("0.14.1", "0.26.0", "0.32.0", "0.33.0")

#: sha256 of vllm-VERSION.tar.gz: 0.14.0, the newest patch of every minor that has an sdist (0.15 has none), and
#: 0.13.0, which is refused.
SHA256 = {
    "0.13.0": "4ad43db45fef37114b550d03a4f423fb3fa3a31d8bc09ee810ef8b9cdcd4b5fe",
    "0.14.0": "ed86c6a9d22fbfd059648794493cad88444c71688f3ff6efcb26c5ca353f0e5d",
    "0.14.1": "c7c6d0a729d29e70ac10baacbc7186930da24f8ae34f60451330527ff0be84ac",
    "0.16.0": "1f684bb31fbef59d862e2fe666e23a41f1d39d93f86215ce1ce1db89a8f5665b",
    "0.17.1": "d26a95dcb92e2ff78ed4b48bff247d845b0c768edf6c0acf2401376a56c57b61",
    "0.18.1": "8d18eff1c4ed21eb8cf7a45a1d1b34752d5ec287e79186e451d5c2f797cacdb7",
    "0.19.1": "9fb88ce6b50991eba41d183584f65f51d7f6015d86a42cdabf79c1c8bd5d66fa",
    "0.20.2": "58809377798c5335c6e2fe30092abda54d9200b5b8a717b3735a63f5daa0e383",
    "0.21.0": "05ff89c3e926b88b77d7878e317a659ffba678afc21c1d48952037aa5457f058",
    "0.22.1": "cd34902729f3767e3dfbb391956b2986bc638a54be9893e78bda9cc55669f15c",
    "0.23.0": "760269db3d9611e12e524681df1bca0977d5d2f5fcb4481cc34d33efc4ae7ff5",
    "0.24.0": "0862453adc1f3339f1a0c9dca1179c34d6ed6e118f87b6e5bddd120af614ac66",
    "0.25.1": "ddbdec3f1c0f21afa70b7eb6ddf3faa29d26b1302ee4b5d5e00ec3af41b0c2e4",
    "0.26.0": "23e9fa19d7e20ce7dcc1c074d41503e2116d23f19e688f5d5ea91b741f958502",
    "0.27.1": "eec2d54d137ac1e59cb4c39226dfee1943eefc8f4788f5821d7300d6acbdb646",
    "0.28.0": "ac96dd0ec5be9c13f2aa4bfb50498c4727110406f6e4980b58a4097e4d18634a",
    "0.29.0": "c03feb07943ecae9e69e7dc424d7c5569ecf8d1292513aef2a4de67af381cd97",
    "0.30.0": "5f8f4e890c042ffa1c3e103f81c35e2d96f60a0a175ac43a4adbae7006bef62b",
    "0.31.0": "dde46f1efbe846e5bd0c5c4ec6ec71842c42254c7ff3d9bebb2a57028715d380",
    "0.32.0": "d2c957d5eee3d0985012151315ddc62cbe0cd368fc96a5fc3510438d9dddf2ad",
    "0.33.0": "f4c33c2503d52bb411146afa9618a4f48bed68912f617e6803ac8d76e4c74112",
}
ALL_VERSIONS = tuple(version for version in SHA256 if version != "0.13.0")

_LAYERS = "vllm/model_executor/layers"
WANTED = frozenset(
    {
        "CMakeLists.txt",
        "cmake/utils.cmake",
        "vllm/__init__.py",
        "vllm/_version.py",
        "vllm/engine/arg_utils.py",
        "vllm/entrypoints/openai/cli_args.py",
        "vllm/entrypoints/launchers/cli_args.py",
        "vllm/entrypoints/common/cli_args.py",
        "vllm/model_executor/model_loader/default_loader.py",
        "vllm/model_executor/model_loader/weight_utils.py",
        "vllm/utils/argparse_utils.py",
        "vllm/model_executor/kernels/linear/__init__.py",
        "vllm/model_executor/kernels/linear/scaled_mm/pytorch.py",
        f"{_LAYERS}/fused_moe/fused_moe.py",
        f"{_LAYERS}/fused_moe/oracle/fp8.py",
        f"{_LAYERS}/quantization/kernels/scaled_mm/__init__.py",
        f"{_LAYERS}/quantization/kernels/scaled_mm/pytorch.py",
        f"{_LAYERS}/quantization/utils/w8a8_utils.py",
        "vllm/v1/worker/gpu_worker.py",
    }
)
#: Whole folders: the classes from whose fields vLLM makes its options.
WANTED_FOLDERS = ("vllm/config/",)


def _wanted(name: str) -> bool:
    return name in WANTED or (name.startswith(WANTED_FOLDERS) and name.endswith(".py"))


def versions(*names: str) -> list[Any]:
    """Parameters for release names, those outside the default run marked slow and all_versions."""
    marks = (pytest.mark.slow, pytest.mark.all_versions)
    return [name if name in DEFAULT_VERSIONS else pytest.param(name, marks=marks) for name in names]


class SourceError(Exception):
    """One sentence: what is wrong, where, and how to mend it."""


def _pip_settings() -> dict[str, str]:
    """pip's own configuration by option name, environment and files alike (the last one wins, as in pip)."""
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found = re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", shown, re.MULTILINE)
    return dict(found)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for key, value in attrs if tag == "a" and key == "href" and value]


class Index:
    """The package index that pip is set up for."""

    def __init__(self) -> None:
        settings = _pip_settings()
        parts = urllib.parse.urlsplit(settings.get("index-url", "https://pypi.org/simple"))
        self._login = (
            base64.b64encode(f"{parts.username}:{parts.password}".encode()) if parts.username else b""
        )
        host = parts.netloc.rpartition("@")[2]
        self._url = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/") + "/", "", ""))
        self._tls = ssl.create_default_context(cafile=settings.get("cert") or None)
        self._timeout = float(settings.get("default-timeout") or settings.get("timeout") or 60)

    def open(self, url: str, accept: str = "*/*") -> IO[bytes]:
        """Open a URL; the login goes to the index's own host only."""
        headers = {"Accept": accept}
        if self._login and urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(self._url).netloc:
            headers["Authorization"] = "Basic " + self._login.decode()
        request = urllib.request.Request(url, headers=headers)
        answer: IO[bytes] = urllib.request.urlopen(request, timeout=self._timeout, context=self._tls)
        return answer

    def file_url(self, project: str, filename: str) -> str:
        """Where the index keeps a file; JSON (PEP 691) when the index speaks it, HTML else."""
        page = f"{self._url}{project}/"
        with self.open(page, "application/vnd.pypi.simple.v1+json, text/html;q=0.1") as answer:
            text = answer.read().decode("utf-8")
        if text.lstrip().startswith("{"):
            links = [item["url"] for item in json.loads(text)["files"] if item["filename"] == filename]
        else:
            parser = _Links()
            parser.feed(text)
            links = [
                link for link in parser.links if urllib.parse.urlsplit(link).path.endswith("/" + filename)
            ]
        if not links:
            raise SourceError(f"{page} has no {filename}: check the index that pip is set up for.")
        return urllib.parse.urljoin(page, str(links[0]))


class _Hashing:
    """A readable stream that hashes what goes through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def _cache() -> Path:
    given = os.environ.get("DGX_VLLM_TEST_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "dgx-vllm-tests"


def fetch(version: str) -> Path:
    """A directory with the WANTED files of a release; read-only by agreement, copy it to change it."""
    wanted_digest = SHA256[version]
    selection = hashlib.sha256("\n".join(sorted([*WANTED, *WANTED_FOLDERS])).encode()).hexdigest()[:12]
    place = _cache() / "vllm-sdist" / f"{wanted_digest}-{selection}"
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=place.parent, prefix=".fetch-"))
    try:
        index = Index()
        with index.open(index.file_url("vllm", f"vllm-{version}.tar.gz")) as answer:
            stream = _Hashing(answer)
            with tarfile.open(fileobj=stream, mode="r|gz") as archive:  # type: ignore[call-overload]
                for member in archive:
                    name = member.name.partition("/")[2]
                    content = archive.extractfile(member) if _wanted(name) and member.isfile() else None
                    if content is not None:
                        target = work / name
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(content.read())
            while stream.read(1 << 20):
                pass
        if stream.digest.hexdigest() != wanted_digest:
            raise SourceError(
                f"vllm-{version}.tar.gz has another sha256 than {wanted_digest}: do not use that index."
            )
        try:
            work.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    except OSError as error:
        raise SourceError(
            f"vllm-{version}.tar.gz cannot be fetched ({error}): check pip's index-url."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place
