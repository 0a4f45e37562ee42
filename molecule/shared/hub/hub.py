#!/usr/bin/env python3
"""A small Hugging Face hub: the part of its HTTP interface that downloading a model uses.

Model information with commit and files, the file tree, HEAD and GET of a file with ETag, X-Repo-Commit, X-Linked-* and
Range, and the error codes (X-Error-Code) for a wrong token, a gated or missing repository, revision or file.
Repositories are ROOT/<owner>/<name>/<revision>/; those whose name begins with "gated" need the token.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

API = re.compile(
    r"^/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<verb>revision|tree)/(?P<rev>[^/]+)(?P<path>/.*)?)?$"
)
FILE = re.compile(r"^/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)$")
CHUNK = 1 << 16


class HubError(Exception):
    """An answer other than success: HTTP status, X-Error-Code and X-Error-Message of the real hub."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@lru_cache
def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache
def blob_id(path: Path) -> str:
    """git's name of the file's contents, the ETag of small files."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@lru_cache
def commit(folder: Path) -> str:
    """A commit hash for one revision: 40 hex digits that follow from its files."""
    text = "".join(f"{path.name} {sha256(path)}\n" for path in sorted(folder.iterdir()))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def is_large(path: Path) -> bool:
    return path.suffix == ".safetensors"


class Hub(BaseHTTPRequestHandler):
    """One request. `root` and `token` are set by main()."""

    protocol_version = "HTTP/1.1"
    root: ClassVar[Path]
    token: ClassVar[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """No log: nobody reads it."""

    def answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        try:
            signed_in = self.check_token()
            if path == "/api/whoami-v2":
                self.who(signed_in, body)
            elif match := API.match(path):
                folder = self.folder(match["repo"], match["rev"] or "main", signed_in, open_info=True)
                self.send_json(
                    self.tree(folder) if match["verb"] == "tree" else self.info(match["repo"], folder), body
                )
            elif match := FILE.match(path):
                folder = self.folder(match["repo"], match["rev"], signed_in)
                self.send_file(folder, match["path"], body)
            else:
                raise HubError(404, "EntryNotFound", "Entry not found")
        except HubError as error:
            self.send_json(
                {"error": error.message},
                body,
                error.status,
                {"X-Error-Code": error.code, "X-Error-Message": error.message},
            )

    def check_token(self) -> bool:
        given = self.headers.get("Authorization", "")
        if not given:
            return False
        if given != f"Bearer {self.token}":
            raise HubError(401, "InvalidCredentials", "Invalid credentials in Authorization header")
        return True

    def who(self, signed_in: bool, body: bool) -> None:
        if not signed_in:
            raise HubError(401, "InvalidCredentials", "Invalid username or password.")
        self.send_json({"type": "user", "name": "operator", "auth": {"type": "access_token"}}, body)

    def folder(self, repo: str, revision: str, signed_in: bool, open_info: bool = False) -> Path:
        """The directory of a revision given by name or commit; raises HubError when there is none or it is gated."""
        base = self.root / repo
        if ".." in repo or not base.is_dir():
            if signed_in:
                raise HubError(404, "RepoNotFound", "Repository not found")
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        if base.name.startswith("gated") and not open_info and not signed_in:
            raise HubError(
                401,
                "GatedRepo",
                f"Access to model {repo} is restricted. You must have access to it and "
                "be authenticated to access it. Please log in.",
            )
        for folder in base.iterdir():
            if revision in (folder.name, commit(folder)):
                return folder
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def info(self, repo: str, folder: Path) -> dict[str, Any]:
        files = [
            {"rfilename": path.name, "size": path.stat().st_size, "blobId": blob_id(path)}
            | (
                {"lfs": {"sha256": sha256(path), "size": path.stat().st_size, "pointerSize": 134}}
                if is_large(path)
                else {}
            )
            for path in sorted(folder.iterdir())
        ]
        gated = "manual" if repo.split("/")[1].startswith("gated") else False
        return {
            "_id": commit(folder)[:24],
            "id": repo,
            "modelId": repo,
            "sha": commit(folder),
            "private": False,
            "gated": gated,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": files,
        }

    def tree(self, folder: Path) -> list[dict[str, Any]]:
        return [
            {"type": "file", "oid": blob_id(path), "size": path.stat().st_size, "path": path.name}
            | (
                {"lfs": {"oid": sha256(path), "size": path.stat().st_size, "pointerSize": 134}}
                if is_large(path)
                else {}
            )
            for path in sorted(folder.iterdir())
        ]

    def send_json(
        self, value: Any, body: bool, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def send_file(self, folder: Path, name: str, body: bool) -> None:
        path = folder / name
        if ".." in name or not path.is_file():
            raise HubError(404, "EntryNotFound", "Entry not found")
        size = path.stat().st_size
        start, end = 0, size
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if requested:
            start = int(requested[1])
            end = min(size, int(requested[2]) + 1) if requested[2] else size
        etag = sha256(path) if is_large(path) else blob_id(path)
        self.send_response(206 if requested else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(max(0, end - start)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", commit(folder))
        if is_large(path):
            self.send_header("X-Linked-Etag", f'"{etag}"')
            self.send_header("X-Linked-Size", str(size))
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if not body:
            return
        with path.open("rb") as file:
            file.seek(start)
            left = end - start
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                self.wfile.write(chunk)
                left -= len(chunk)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", required=True)
    options = parser.parse_args()
    Hub.root, Hub.token = options.root, options.token
    ThreadingHTTPServer(("", options.port), Hub).serve_forever()


if __name__ == "__main__":
    main()
