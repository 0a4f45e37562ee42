"""Asking a model hub what a revision of a model consists of: its commit, its files, their sizes and checksums.

The interface is the one of huggingface.co, `/api/models/ID/revision/REV?blobs=true`, which mirrors offer too.
"""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.parse
from http.client import HTTPException
from typing import Any, NamedTuple

from ansible.module_utils.urls import open_url
from ansible_collections.dgx_vllm.spark.plugins.module_utils.deadline import within
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.names import is_commit, is_file_name

WHOLE = 4
"""A whole answer may take so many times the timeout of one read: listings of big models have megabytes."""

MAX_LISTING = 64 * 1024 * 1024


class HubFile(NamedTuple):
    """One file of a commit. `sha256` is known for large files, `git_sha1` (the git blob's) for others."""

    name: str
    size: int
    sha256: str
    git_sha1: str


class Listing(NamedTuple):
    """A commit and its files, or some of the `total` that it has."""

    commit: str
    files: list[HubFile]
    total: int = 0


class HubError(Exception):
    """No listing; the text says why and how to fix it. `unreachable`: the hub gave no answer at all."""

    def __init__(self, text: str, unreachable: bool = False) -> None:
        super().__init__(text)
        self.unreachable = unreachable


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


def list_files(endpoint: str, model: str, revision: str, token: str = "", timeout: float = 30.0) -> Listing:
    """The commit that `revision` stands for and its files; HubError with the remedy otherwise."""
    base = endpoint.rstrip("/")
    name, branch = urllib.parse.quote(model, safe="/"), urllib.parse.quote(revision, safe="")
    text = _get(f"{base}/api/models/{name}/revision/{branch}?blobs=true", model, revision, token, timeout)
    try:
        commit, files, gated = _read_listing(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise HubError(
            f"{base} gave no readable listing of {model} ({str(error)[:200]}): check that dgx_vllm_hf_endpoint is a "
            "model hub."
        ) from error
    if not files:
        raise HubError(f"{model} has no files at revision {revision}: set another dgx_vllm_model_revision.")
    if gated:
        probe = next((item.name for item in files if item.name == "config.json"), files[0].name)
        path = f"{name}/resolve/{commit}/{urllib.parse.quote(probe)}"
        _get(f"{base}/{path}", model, revision, token, timeout, method="HEAD")
    return Listing(commit, files)


def read_file(
    endpoint: str, model: str, commit: str, name: str, token: str = "", timeout: float = 30.0
) -> bytes:
    """The content of one small file of a commit; HubError with the remedy otherwise."""
    path = f"{urllib.parse.quote(model, safe='/')}/resolve/{commit}/{urllib.parse.quote(name)}"
    return _get(f"{endpoint.rstrip('/')}/{path}", model, commit, token, timeout)


def _read_listing(data: Any) -> tuple[str, list[HubFile], bool]:
    """Commit, files and whether the model is gated; ValueError says what is not as a hub's answer."""
    if not isinstance(data, dict):
        raise ValueError("it is not an object")
    if not is_commit(data.get("sha")):
        raise ValueError(f"its commit {data.get('sha')!r} is not 40 hex digits")
    siblings = data.get("siblings")
    if not isinstance(siblings, list):
        raise ValueError("it lists no files")
    return str(data["sha"]), [_file(item) for item in siblings], bool(data.get("gated"))


def _file(item: Any) -> HubFile:
    if not isinstance(item, dict) or not is_file_name(item.get("rfilename")):
        raise ValueError(f"{str(item)[:80]!r} names no file of a model")
    name, lfs = str(item["rfilename"]), item.get("lfs")
    large: dict[str, Any] = lfs if isinstance(lfs, dict) else {}
    size = large.get("size", item.get("size"))
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"the size of {name} is {size!r}")
    sha256 = str(large.get("sha256") or large.get("oid") or "").replace("sha256:", "")
    git_sha1 = "" if sha256 else str(item.get("blobId") or "")
    if not re.fullmatch("[0-9a-f]{64}", sha256) and not is_commit(git_sha1):
        raise ValueError(f"{name} has no checksum")
    return HubFile(name, size, sha256, git_sha1)


def _get(url: str, model: str, revision: str, token: str, timeout: float, method: str = "GET") -> bytes:

    def ask() -> bytes:
        with _open(url, method, token, timeout) as response:
            return bytes(response.read(MAX_LISTING))

    try:
        return within(WHOLE * timeout, ask)
    except urllib.error.HTTPError as error:
        raise HubError(_refusal(error, model, revision, token), unreachable=error.code >= 500) from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        host = urllib.parse.urlsplit(url).netloc
        if isinstance(reason, ssl.SSLError):
            text = f"The certificate of {host} is not trusted ({reason}): add its CA to the node."
        else:
            text = (
                f"{host} could not be reached ({reason}): check the node's name resolution, route and proxy, "
                "or set dgx_vllm_hf_endpoint to a mirror, or copy the model's cache to dgx_vllm_models_dir."
            )
        raise HubError(text, unreachable=True) from error


def _open(url: str, method: str, token: str, timeout: float, redirects: int = 3) -> Any:
    """The answer. A redirect loses the token; one that stays at its host (a renamed model) is then asked with it."""
    try:
        return open_url(
            url,
            method=method,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            unredirected_headers=["Authorization"],
            timeout=timeout,
            http_agent="dgx-vllm",
            use_netrc=False,
        )
    except urllib.error.HTTPError as error:
        if token and redirects and error.url != url and _origin(error.url) == _origin(url):
            return _open(error.url, method, token, timeout, redirects - 1)
        raise


def _refusal(error: urllib.error.HTTPError, model: str, revision: str, token: str) -> str:
    code = error.headers.get("X-Error-Code", "")
    message = error.headers.get("X-Error-Message", "")
    if code == "GatedRepo" or "gated" in message.lower() or "restricted" in message.lower():
        if not token:
            return f"{model} is gated and no token is given: accept its licence and set dgx_vllm_hf_token."
        return f"{model} is gated and this token has no access: accept its licence with the token's account."
    if code == "RevisionNotFound" or "revision" in message.lower():
        return f"{model} has no revision {revision}: correct dgx_vllm_model_revision."
    if code == "RepoNotFound" or error.code == 404:
        hint = "the token may not see it either" if token else "a private model needs dgx_vllm_hf_token"
        return f"The hub does not know the model {model} ({hint}): check the spelling of dgx_vllm_model."
    if error.code == 401 and not token:
        return f"The hub asks for a token for {model} or does not know it: check the name, set dgx_vllm_hf_token."
    if error.code in (401, 403):
        answer = f"{error.code} {message}".strip()
        return f"The hub refused the token ({answer}): put a valid one into dgx_vllm_hf_token."
    return f"The hub answered {error.code} for {model} ({message or error.reason}): try again later."
