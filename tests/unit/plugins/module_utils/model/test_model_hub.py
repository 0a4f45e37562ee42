"""What the hub is asked, and what each of its refusals is called. Against a real local HTTP server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.model.hub import HubError, list_files

COMMIT = "c" * 40


def test_listing(hub: Any) -> None:
    listing = list_files(hub.url + "/", "org/tiny", "main")
    assert listing.commit == COMMIT
    assert sum(item.size for item in listing.files) == 5002
    config, weights = sorted(listing.files)
    assert (config.name, len(config.git_sha1), config.sha256) == ("config.json", 40, "")
    assert (weights.name, len(weights.sha256), weights.git_sha1) == ("model.safetensors", 64, "")


@pytest.mark.parametrize(
    ("change", "token", "words"),
    [
        ({"status": 404, "error_code": "RepoNotFound"}, "", "does not know the model org/tiny"),
        ({"status": 404}, "t0ken", "does not know the model org/tiny"),
        ({"status": 401}, "", "asks for a token"),
        ({"token": "right"}, "wr0ng", "refused the token"),
        ({"gated": True, "token": "right"}, "", "is gated and no token is given"),
        ({"status": 403, "error_code": "GatedRepo"}, "t0ken", "this token has no access"),
        ({"status": 503}, "", "answered 503"),
        ({"files": {}}, "", "has no files"),
    ],
)
def test_refusals_have_names(hub: Any, change: dict[str, Any], token: str, words: str) -> None:
    for key, value in change.items():
        setattr(hub, key, value)
    with pytest.raises(HubError) as error:
        list_files(hub.url, "org/tiny", "main", token)
    assert words in str(error.value)
    assert token == "" or token not in str(error.value)
    assert error.value.unreachable is (change.get("status") == 503)


def test_no_such_revision(hub: Any) -> None:
    with pytest.raises(HubError, match="has no revision v9"):
        list_files(hub.url, "org/tiny", "v9")


def test_gated_with_access(hub: Any) -> None:
    hub.gated, hub.token = True, "right"
    assert list_files(hub.url, "org/tiny", "main", "right").commit == COMMIT
    assert hub.seen[-1][:2] == ("HEAD", f"/org/tiny/resolve/{COMMIT}/config.json")


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(HubError, match="could not be reached") as error:
        list_files(f"http://127.0.0.1:{port}", "org/tiny", "main")
    assert error.value.unreachable


def test_not_a_hub(hub: Any) -> None:
    hub.listing = lambda: {"hello": "world"}
    with pytest.raises(HubError, match="no readable listing"):
        list_files(hub.url, "org/tiny", "main")


def test_the_token_does_not_follow_a_redirect_to_another_host(hub: Any, second_hub: Any) -> None:
    hub.redirect = second_hub.url
    assert list_files(hub.url, "org/tiny", "main", "t0ken").commit == COMMIT
    assert hub.seen[0][2] == "Bearer t0ken"
    assert second_hub.seen[0][2] == ""


def test_the_token_follows_a_renamed_model_at_the_same_host(hub: Any) -> None:
    hub.gated, hub.token = True, "right"
    assert list_files(hub.url, "org/renamed", "main", "right").commit == COMMIT
    asked = [(path.partition("?")[0], authorization) for _, path, authorization in hub.seen]
    assert asked[-2:] == [
        (f"/org/tiny/resolve/{COMMIT}/config.json", ""),
        (f"/org/tiny/resolve/{COMMIT}/config.json", "Bearer right"),
    ]


def test_a_netrc_of_the_user_is_not_sent(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login robot password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    list_files(hub.url, "org/tiny", "main")
    assert hub.seen[0][2] == ""


def test_the_proxy_of_the_environment_is_asked(
    hub: Any, second_hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", second_hub.url)
    monkeypatch.setenv("no_proxy", "")
    assert list_files("http://hub.example.com", "org/tiny", "main").commit == COMMIT
    assert second_hub.seen[0][1].startswith("http://hub.example.com/api/models/org/tiny/")
    assert hub.seen == []
