"""Tags resolved at a registry, and the sentence each failure ends in."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry import client
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.client import (
    Registry,
    RegistryError,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.reference import parse

from helpers.fake_registry import DIGEST, PASSWORD, TOKEN, USER


def ask(host, tmp_path, image="team/image:0.33.0", **login):
    return Registry(parse(f"{host}/{image}"), certificates=tmp_path / "certs.d", **login).digest()


def refused(host, tmp_path, image="team/image:0.33.0", **login):
    with pytest.raises(RegistryError) as caught:
        ask(host, tmp_path, image, **login)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert PASSWORD not in sentence
    return sentence


def test_a_tag_with_one_request(registry, tmp_path):
    assert ask(registry.host, tmp_path) == DIGEST
    assert [method for method, _, _ in registry.seen] == ["HEAD"]
    assert registry.accepted.startswith("application/vnd.oci.image.index.v1+json")


def test_without_the_header_the_manifest_is_hashed(registry, tmp_path):
    registry.send_digest = False
    assert ask(registry.host, tmp_path) == DIGEST
    registry.body = b"<html>a captive portal</html>"
    assert "does not answer with an image manifest" in refused(registry.host, tmp_path)


def test_a_digest_is_checked_to_exist(registry, tmp_path):
    assert ask(registry.host, tmp_path, f"team/image@{DIGEST}") == DIGEST
    other = "sha256:" + "0" * 64
    sentence = refused(registry.host, tmp_path, f"team/image:0.33.0@{other}")
    assert f"has no {registry.host}/team/image@{other}" in sentence


def test_a_registry_that_answers_another_digest(registry, tmp_path):
    registry.send_digest = False
    registry.body = b'{"schemaVersion": 2, "damaged": true}'
    assert "is damaged" in refused(registry.host, tmp_path, f"team/image@{DIGEST}")


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_logins(registry, tmp_path, scheme):
    registry.login = scheme
    assert ask(registry.host, tmp_path, username=USER, password=PASSWORD) == DIGEST
    wrong = refused(registry.host, tmp_path, username=USER, password="wrong")
    assert "refused this user name and password; check dgx_vllm_registry_username" in wrong
    assert "it asks for a login" in refused(registry.host, tmp_path)


def test_an_anonymous_token(registry, tmp_path):
    registry.login, registry.private = "bearer", False
    assert ask(registry.host, tmp_path) == DIGEST
    assert registry.seen[-1][2] == f"Bearer {TOKEN}"


def test_no_credentials_without_being_asked(registry, tmp_path):
    ask(registry.host, tmp_path, username=USER, password=PASSWORD)
    assert registry.seen[0][2] == ""


def test_a_netrc_of_the_user_is_not_sent(registry, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    ask(registry.host, tmp_path)
    assert [authorization for _, _, authorization in registry.seen] == [""]


def test_a_password_is_not_sent_to_a_token_server_without_tls(registry, tmp_path):
    registry.login, registry.realm = "bearer", "http://tokens.example.com/token"
    assert "without TLS" in refused(registry.host, tmp_path, username=USER, password=PASSWORD)


def test_a_redirect_does_not_carry_the_login(serve, tmp_path):
    first, second = serve(), serve()
    first.login, first.redirect = "basic", f"http://{second.host}"
    assert ask(first.host, tmp_path, username=USER, password=PASSWORD) == DIGEST
    assert first.seen[-1][2].startswith("Basic ")
    assert [authorization for _, _, authorization in second.seen] == [""]


def test_not_found_names_the_tags_there_are(registry, tmp_path):
    sentence = refused(registry.host, tmp_path, "team/image:0.99")
    name = f"{registry.host}/team/image:0.99"
    assert sentence == f"{registry.host} has no {name}; its tags are 0.26.0, 0.32.0, 0.33.0, a, b, …."
    registry.list_tags = False
    assert "check the repository's name" in refused(registry.host, tmp_path, "team/image:0.99")


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "does not give access to"), (429, "for 30 s"), (503, "answered 503"), (400, "ca.crt")],
)
def test_other_answers(registry, tmp_path, status, words):
    registry.status = status
    assert words in refused(registry.host, tmp_path)


def test_unreachable(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        assert "cannot be reached" in refused(host, tmp_path)
    assert "has no address" in refused("registry.invalid", tmp_path)


def test_a_registry_that_hangs(registry, tmp_path):
    registry.stall.clear()
    assert "no answer within 0.2 s" in refused(registry.host, tmp_path, timeout=0.2)


def test_the_challenge_is_parsed():
    header = 'Bearer realm="https://t.example/token",service="r",scope="repository:a:pull,push"'
    assert client.challenge(header) == (
        "bearer",
        {"realm": "https://t.example/token", "service": "r", "scope": "repository:a:pull,push"},
    )


def test_docker_hub_has_another_host():
    found = Registry(parse("alpine"))
    assert (found.host, found.reference.repository) == ("registry-1.docker.io", "library/alpine")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("a.localhost.example", False),
    ],
)
def test_loopback(host, expected):
    assert client.is_loopback(host) is expected


def self_signed(folder, name="registry", *issuer):
    """A new key and its certificate for 127.0.0.1, which `issuer` (options of openssl) may sign."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the test's certificate")
    folder.mkdir(parents=True)
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2"]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate), *subject, *issuer],
        check=True,
        capture_output=True,
    )
    return key, certificate


@pytest.fixture
def secure(serve, tmp_path):
    """A registry with a certificate of its own authority, and that certificate's file."""
    key, certificate = self_signed(tmp_path / "registry")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return serve(lambda plain: context.wrap_socket(plain, server_side=True)), certificate


def test_a_certificate_in_dockers_directory_is_trusted(secure, tmp_path):
    registry, certificate = secure
    directory = tmp_path / "certs.d" / registry.host
    directory.mkdir(parents=True)
    shutil.copy(certificate, directory / "ca.crt")
    assert ask(registry.host, tmp_path) == DIGEST


def test_an_authority_without_key_usage_is_trusted_as_docker_does(serve, tmp_path, monkeypatch):
    """Python 3.13 and newer would refuse it."""
    authority_key, authority = self_signed(tmp_path / "authority", "authority")
    issuer = ("-CA", str(authority), "-CAkey", str(authority_key))
    key, certificate = self_signed(tmp_path / "registry", "registry", *issuer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    registry = serve(lambda plain: context.wrap_socket(plain, server_side=True))
    directory = tmp_path / "certs.d" / registry.host
    directory.mkdir(parents=True)
    shutil.copy(authority, directory / "ca.crt")

    def strict() -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(client, "make_context", strict)
    assert ask(registry.host, tmp_path) == DIGEST


def test_dockers_certificates_are_added_to_the_systems(secure, tmp_path, monkeypatch):
    """A token server of a public authority stays trusted next to a registry with one of its own."""
    registry, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    directory = tmp_path / "certs.d" / registry.host
    directory.mkdir(parents=True)
    shutil.copy(self_signed(tmp_path / "other")[1], directory / "ca.crt")
    assert ask(registry.host, tmp_path) == DIGEST


def test_an_unknown_authority_is_refused(secure, tmp_path, monkeypatch):
    registry, _ = secure
    monkeypatch.setattr(client, "is_loopback", lambda host: False)
    sentence = refused(registry.host, tmp_path)
    assert "is not trusted" in sentence
    assert f"certs.d/{registry.host}/ca.crt" in sentence


def test_a_damaged_certificate_is_named(registry, tmp_path):
    directory = tmp_path / "certs.d" / registry.host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_text("nothing")
    assert "cannot be loaded" in refused(registry.host, tmp_path)


def test_plain_http_where_tls_is_expected(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "is_loopback", lambda host: False)
    assert "does not speak TLS" in refused(registry.host, tmp_path)
