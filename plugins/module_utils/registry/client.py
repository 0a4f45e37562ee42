"""Asking a container registry for the digest behind a tag (OCI distribution API, over ansible.module_utils.urls).

Why a client of our own: no module of community.docker asks a registry for a digest, and `docker manifest inspect`
needs an engine, which a fresh node does not have.
Credentials go only to the registry itself and to the token server it names over HTTPS; a redirect does not carry
them.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
import socket
import ssl
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit

from ansible.module_utils.urls import Request, make_context
from ansible_collections.dgx_vllm.spark.plugins.module_utils.deadline import within
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.reference import (
    DOCKER_HUB,
    ImageReference,
    is_digest,
)

HUB_HOST = "registry-1.docker.io"
CERTIFICATES = Path("/etc/docker/certs.d")
_LIMIT = 8 * 2**20
_TAGS_SHOWN = 5

ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
"""Indexes first: nodes of all architectures get the same digest."""


class RegistryError(Exception):
    """One sentence: what is wrong, where, how to fix it."""


def is_loopback(host: str) -> bool:
    """Whether `host` (no port) is this machine; only then is plain HTTP used, as Docker does."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def challenge(header: str) -> tuple[str, dict[str, str]]:
    """Scheme (lower case) and parameters of a Www-Authenticate header."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), dict(re.findall(r'(\w+)="([^"]*)"', rest))


def _context(directories: list[Path]) -> ssl.SSLContext:
    """The system's trust and what Docker would read for this registry: *.crt, and *.cert with its *.key."""
    context: ssl.SSLContext = make_context()
    # Python 3.13 turned it on; Docker takes an authority without a key usage, as many private ones are.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for directory in directories:
        try:
            for authority in sorted(directory.glob("*.crt")):
                context.load_verify_locations(cafile=str(authority))
            for certificate in sorted(directory.glob("*.cert")):
                context.load_cert_chain(str(certificate), str(certificate.with_suffix(".key")))
        except OSError as error:  # ssl.SSLError is one
            raise RegistryError(
                f"A certificate under {directory} cannot be loaded ({error}); replace it."
            ) from error
    return context


class Registry:
    """One repository of one registry."""

    def __init__(
        self,
        reference: ImageReference,
        username: str = "",
        password: str = "",
        certificates: Path = CERTIFICATES,
        timeout: float = 30.0,
    ) -> None:
        self.reference = reference
        self.host = HUB_HOST if reference.registry == DOCKER_HUB else reference.registry
        self._basic = base64.b64encode(f"{username}:{password}".encode()).decode() if username else ""
        self._timeout = timeout
        self._authorization = ""
        self._directories = [certificates / name for name in dict.fromkeys((reference.registry, self.host))]

    @cached_property
    def _client(self) -> Any:
        """Not open_url: its ca_path replaces the system's trust, Docker's certificates are added to it."""
        return Request(
            context=_context(self._directories),
            timeout=self._timeout,
            http_agent="dgx-vllm",
            unredirected_headers=["Authorization"],
            use_netrc=False,
        )

    def digest(self) -> str:
        """The digest the registry gives for the reference. Raises RegistryError."""
        path = f"/v2/{self.reference.repository}/manifests/{quote(self.reference.manifest, safe=':')}"
        _, headers, _ = self._ask(path, "HEAD")
        digest = headers.get("docker-content-digest", "")
        if not is_digest(digest):
            _, headers, body = self._ask(path, "GET")
            if b'"schemaVersion"' not in body:
                raise RegistryError(
                    f"{self.host} does not answer with an image manifest; check its name and port."
                )
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
        if self.reference.digest and digest != self.reference.digest:
            raise RegistryError(
                f"{self.host} answers {self.reference.digest} of {self.reference.name} with {digest}; "
                "the registry or a proxy in front of it is damaged, ask its operator."
            )
        return digest

    def _base(self) -> str:
        certified = any(True for directory in self._directories for _ in directory.glob("*.crt"))
        plain = is_loopback(urlsplit(f"//{self.host}").hostname or "") and not certified
        return f"{'http' if plain else 'https'}://{self.host}"

    def _ask(self, path: str, method: str) -> tuple[int, dict[str, str], bytes]:
        """One request to the registry, with a login if it asks for one."""
        url = self._base() + path
        status, headers, body = self._send(url, method, self._authorization)
        if status == 401 and not self._authorization:
            self._authorization = self._log_in(headers.get("www-authenticate", ""))
            status, headers, body = self._send(url, method, self._authorization)
        if status >= 300:
            raise RegistryError(self._sentence(status, headers))
        return status, headers, body

    def _log_in(self, header: str) -> str:
        scheme, parameters = challenge(header)
        if scheme == "basic":
            return f"Basic {self._basic}" if self._basic else ""
        realm = parameters.get("realm", "")
        try:
            target = urlsplit(realm)
        except ValueError as error:
            raise RegistryError(
                f"{self.host} sends logins to {realm!r}, which is not a URL; ask its operator."
            ) from error
        if scheme != "bearer" or target.scheme not in ("http", "https"):
            raise RegistryError(
                f"{self.host} asks for the login scheme {scheme or 'none'}, which Docker does not support."
            )
        if target.scheme == "http" and not is_loopback(target.hostname or ""):
            raise RegistryError(
                f"{self.host} sends logins to {realm} without TLS; have its operator use https."
            )
        query = {"scope": f"repository:{self.reference.repository}:pull"}
        if parameters.get("service"):
            query["service"] = parameters["service"]
        url = f"{realm}{'&' if target.query else '?'}{urlencode(query)}"
        status, headers, body = self._send(url, "GET", f"Basic {self._basic}" if self._basic else "")
        if status != 200:
            raise RegistryError(self._sentence(status, headers))
        try:
            answer = json.loads(body)
            token = answer.get("token") or answer["access_token"]
            if not (isinstance(token, str) and token.isascii() and token.isprintable()):
                raise ValueError("a token that no header can carry")
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            raise RegistryError(
                f"The token server {realm} of {self.host} gave no token; ask its operator."
            ) from error
        return f"Bearer {token}"

    def _send(self, url: str, method: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        headers = {"Accept": ACCEPT, **({"Authorization": authorization} if authorization else {})}

        def ask() -> tuple[int, dict[str, str], bytes]:
            try:
                with self._client.open(method, url, headers=headers) as answer:
                    return answer.status, _lower(answer.headers), answer.read(_LIMIT)
            except HTTPError as error:
                with error:
                    return error.code, _lower(error.headers), error.read(_LIMIT)

        try:
            return within(self._timeout, ask)
        except (OSError, HTTPException, UnicodeError) as error:
            raise RegistryError(self._unreachable(urlsplit(url).netloc, error)) from error

    def _unreachable(self, where: str, error: Exception) -> str:
        cause: Any = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"The certificate of {where} is not trusted ({cause.verify_message}); "
                f"put its authority into {self._directories[0]}/ca.crt on this machine."
            )
        if isinstance(cause, ssl.SSLError):
            return f"{where} does not speak TLS as expected ({cause.reason}); check its name and port."
        if isinstance(cause, socket.gaierror):
            return f"The registry {where} has no address ({cause.strerror}); check its name and the DNS."
        if isinstance(cause, (TimeoutError, socket.timeout)):  # one class from Python 3.10 on
            return f"The registry {where} gave no answer within {self._timeout:g} s; check network and proxy."
        return f"The registry {where} cannot be reached ({cause}); check its name and port and the network."

    def _sentence(self, status: int, headers: dict[str, str]) -> str:
        digest, tag = self.reference.digest, self.reference.tag
        name = self.reference.name + (f"@{digest}" if digest else f":{tag}")
        if status in (401, 403):
            how = (
                "the registry refused this user name and password; check dgx_vllm_registry_username and "
                "dgx_vllm_registry_password"
                if self._basic
                else "it asks for a login, or there is no such repository; check the name and set "
                "dgx_vllm_registry_username and dgx_vllm_registry_password"
            )
            return f"{self.host} does not give access to {name} ({status}): {how}."
        if status == 404:
            return f"{self.host} has no {name}; {self._alternatives()}."
        if status == 429:
            wait = headers.get("retry-after", "")
            span = f" for {wait} s" if wait else ""
            return f"{self.host} limits the number of requests{span}; log in, wait, or use a mirror."
        if status == 400 and self._base().startswith("http:"):
            return (
                f"{self.host} answered 400 to plain HTTP, as a TLS registry does; "
                f"put its authority into {self._directories[0]}/ca.crt on this machine."
            )
        return f"{self.host} answered {status} for {name}; try again, and ask its operator if it stays so."

    def _alternatives(self) -> str:
        """The tags that do exist, if the registry lists them."""
        url = f"{self._base()}/v2/{self.reference.repository}/tags/list"
        try:
            status, _, body = self._send(url, "GET", self._authorization)
            tags = [str(tag) for tag in (json.loads(body).get("tags") or [])] if status == 200 else []
        except (RegistryError, ValueError, RecursionError, TypeError, AttributeError):
            tags = []
        if not tags:
            return "check the repository's name and the tag or digest"
        shown = ", ".join(tags[:_TAGS_SHOWN]) + (", …" if len(tags) > _TAGS_SHOWN else "")
        return f"its tags are {shown}"


def _lower(headers: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in headers.items()}
