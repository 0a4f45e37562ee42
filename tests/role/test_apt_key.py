"""The signing key of an apt repository: the one with the fingerprint is taken, and anything beside it refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
import yaml

from helpers.ansible_run import Run
from helpers.releases import node
from helpers.stages import ROLE, Stages

pytestmark = pytest.mark.skipif(shutil.which("gpg") is None, reason="there is no gpg here")
CHECKED = 6
"""Tasks of apt_repository.yml up to the installed key; those after it change this machine."""
Keys = tuple[dict[str, str], str, str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """gpg's home with the secret keys of ours@x, which has a subkey, and theirs@x."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    for user in ("ours@x", "theirs@x"):
        gpg(home, "--quick-generate-key", user, "ed25519", "sign", "never")
    lines = gpg(home, "--with-colons", "--list-keys", "ours@x").splitlines()
    primary = next(line.split(":")[9] for line in lines if line.startswith("fpr"))
    gpg(home, "--quick-add-key", primary, "ed25519", "sign", "never")
    yield home
    subprocess.run(
        ["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False, env=dict(os.environ)
    )


def gpg(home: Path, *words: str) -> str:
    command = ["gpg", "--batch", "--quiet", "--homedir", str(home), "--passphrase", "", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def keys(home: Path) -> Keys:
    """(armoured public keys by user, fingerprint of `ours`, that of its subkey)."""
    lines = gpg(home, "--with-colons", "--list-keys", "ours@x").splitlines()
    primary, subkey = [line.split(":")[9] for line in lines if line.startswith("fpr")]
    return (
        {user: gpg(home, "--armor", "--export", f"{user}@x") for user in ("ours", "theirs")},
        primary,
        subkey,
    )


def run_tasks(place: Path, served: str | None, fingerprint: str, *words: str) -> Run:
    """The tasks on a node whose publisher serves this text as its key; None: it does not answer."""
    stages = Stages(place, "common/packages")
    tasks = yaml.safe_load((ROLE / "tasks/common/apt_repository.yml").read_text(encoding="utf-8"))[:CHECKED]
    assert tasks[-1]["name"] == "Install the key"
    (stages.tasks / "key.yml").write_text(json.dumps(tasks), encoding="utf-8")
    if served is not None:
        (place / "served").write_text(served, encoding="utf-8")
    repository = {
        "name": "repository", "key_url": f"file://{place}/served", "fingerprint": fingerprint, "variable": "toolkit",
    }  # fmt: skip
    keyring = str(place / "keyrings/key.gpg")
    return stages.run(
        "key", {"one": {}}, *words, __dgx_vllm_repository=repository, __dgx_vllm_keyring=keyring
    )


def fingerprints(keyring: Path) -> list[str]:
    """Of the primary keys that apt finds: of a binary file, those of all its packets."""
    assert not keyring.read_bytes().startswith(b"-----"), "apt looks for more blocks in a text"
    words = ["gpg", "--batch", "--homedir", str(keyring.parent), "--show-keys", "--with-colons", str(keyring)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    primary = [number for number, line in enumerate(lines) if line.startswith("pub:")]
    return [lines[number + 1].split(":")[9] for number in primary]


@pytest.mark.parametrize(
    ("users", "of_subkey", "taken"),
    [
        (["ours"], False, True),
        (["ours"], True, False),
        (["theirs"], False, False),
        (["ours", "theirs"], False, False),
        (["theirs", "ours"], False, False),
    ],
)
def test_key(keys: Keys, users: list[str], of_subkey: bool, taken: bool, tmp_path: Path) -> None:
    armoured, primary, subkey = keys
    fingerprint = subkey if of_subkey else primary.lower()
    run = run_tasks(tmp_path, "".join(armoured[user] for user in users), fingerprint)
    keyring = tmp_path / "keyrings/key.gpg"
    assert ("or is not the only one there" in run.failure("one")) != taken
    assert keyring.exists() == taken
    if taken:
        assert fingerprints(keyring) == [primary]


@pytest.mark.parametrize(
    "kind", ["CERTIFICATE NOTE", "PGP SIGNATURE", "PGP MESSAGE", "PGP PRIVATE KEY BLOCK", "X"]
)
def test_h2_apt_gets_no_key_that_gpg_did_not_read(keys: Keys, kind: str, tmp_path: Path) -> None:
    armoured, primary, _ = keys
    other = armoured["theirs"].replace("PGP PUBLIC KEY BLOCK", kind)
    run_tasks(tmp_path, armoured["ours"] + other, primary)
    keyring = tmp_path / "keyrings/key.gpg"
    if keyring.exists():
        assert fingerprints(keyring) == [primary]
    elif kind == "CERTIFICATE NOTE":
        pytest.fail("gpg skips such a block, and the publisher's key is there")


@pytest.mark.parametrize("served", ["<html>Sign in to this network</html>", "", None, "cut"])
def test_m16_the_key_in_use_stays_until_the_new_one_is_judged(
    keys: Keys, served: str | None, tmp_path: Path
) -> None:
    armoured, primary, _ = keys
    keyring = tmp_path / "keyrings/key.gpg"
    keyring.parent.mkdir()
    keyring.write_bytes(b"the good one")
    run = run_tasks(tmp_path, armoured["ours"][:200] if served == "cut" else served, primary)
    assert run.failure("one")
    assert served is None or "check the address" in run.failure("one")
    assert keyring.read_bytes() == b"the good one"


def offered(place: Path, home: Path, user: str, keyring: Path) -> str:
    """What `apt-cache madison` offers of a flat repository that `user` signed, after the real `apt-get update`."""
    root = place / "root"
    for folder in ("etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/dpkg",
                   "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "repository"):  # fmt: skip
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()
    packages = root / "repository/Packages"
    packages.write_text("Package: probe\nVersion: 99.0-1\nArchitecture: all\nFilename: ./probe.deb\nSize: 1\n"
                        f"SHA256: {'0' * 64}\nDescription: x\nMaintainer: x <x@x>\n\n")  # fmt: skip
    content = packages.read_bytes()
    (root / "Release").write_text(
        f"Date: {format_datetime(datetime.now(UTC))}\nSHA256:\n"
        f" {hashlib.sha256(content).hexdigest()} {len(content)} Packages\n".replace("+0000", "UTC")
    )
    signed = ["--yes", "--local-user", f"{user}@x", "--output", str(root / "repository/InRelease")]
    gpg(home, *signed, "--clear-sign", str(root / "Release"))
    (root / "etc/apt/sources.list").write_text(f"deb [signed-by={keyring}] file:{root}/repository /\n")
    options = ["-o", f"Dir={root}", "-o", f"Dir::State::status={root}/var/lib/dpkg/status",
               "-o", "APT::Sandbox::User=root"]  # fmt: skip
    subprocess.run(["apt-get", *options, "update"], check=False, capture_output=True)
    return subprocess.run(
        ["apt-cache", *options, "madison", "probe"], check=False, capture_output=True, text=True
    ).stdout


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt here")
@pytest.mark.parametrize("user", ["ours", "theirs"])
def test_h2_apt_itself_takes_the_publishers_repository_only(
    keys: Keys, home: Path, user: str, tmp_path: Path
) -> None:
    armoured, primary, _ = keys
    note = armoured["theirs"].replace("PGP PUBLIC KEY BLOCK", "CERTIFICATE NOTE")
    assert run_tasks(tmp_path, armoured["ours"] + note, primary).rc == 0
    assert ("99.0-1" in offered(tmp_path, home, user, tmp_path / "keyrings/key.gpg")) == (user == "ours")


@pytest.mark.parametrize(("had", "asked"), [("ours", False), ("theirs", True), (None, True)])
def test_h2_the_key_file_of_an_earlier_version_is_replaced(
    keys: Keys, had: str | None, asked: bool, tmp_path: Path
) -> None:
    """On a node that has the toolkit, where nothing is installed; without the network if the file has the key."""
    armoured, primary, _ = keys
    stages = Stages(tmp_path, "common/packages", "common/state")
    path = stages.tasks / "common/apt_repository.yml"
    path.write_text(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8"))[:CHECKED]), encoding="utf-8")
    keyring = tmp_path / "keyrings/key.gpg"
    keyring.parent.mkdir()
    note = armoured["theirs"].replace("PGP PUBLIC KEY BLOCK", "CERTIFICATE NOTE")
    if had:
        keyring.with_suffix(".asc").write_text(armoured[had] + note, encoding="utf-8")
    (tmp_path / "served").write_text(armoured["ours"], encoding="utf-8")
    state = node(
        apt=[{"file": "/x", "uri": "https://x", "suite": "/", "signed_by": f"{tmp_path}/keyrings/key.asc"}]
    )
    main = yaml.safe_load((stages.tasks / "runtime/main.yml").read_text(encoding="utf-8"))
    (stages.tasks / "moved.yml").write_text(json.dumps(main[:1]), encoding="utf-8")
    url = f"file://{tmp_path}/served" if asked else "http://127.0.0.1:9/key"
    run = stages.run(
        "moved", {"one": state}, "-e", json.dumps({"__dgx_vllm_toolkit_keyring": str(keyring)}),
        dgx_vllm_toolkit_repo_key_url=url, dgx_vllm_toolkit_repo_key_fingerprint=primary,
    )  # fmt: skip
    assert run.rc == 0, run.failure("one")
    assert fingerprints(keyring) == [primary]
    assert stages.calls == (["one common/packages"] if asked else [])


def test_h2_a_key_that_is_a_keyring_already_is_left_alone(tmp_path: Path) -> None:
    stages = Stages(tmp_path, "common/apt_repository")
    main = yaml.safe_load((stages.tasks / "runtime/main.yml").read_text(encoding="utf-8"))
    (stages.tasks / "moved.yml").write_text(json.dumps(main[:1]), encoding="utf-8")
    of_others = {"file": "/x", "uri": "https://x", "suite": "/", "signed_by": "/usr/share/keyrings/their.asc"}
    run = stages.run("moved", {"one": node(apt=[of_others])})
    assert (run.rc, stages.calls) == (0, [])


def test_a_check_of_a_fresh_node_fetches_nothing(keys: Keys, tmp_path: Path) -> None:
    """Where no folder for the key exists yet."""
    armoured, primary, _ = keys
    run = run_tasks(tmp_path, armoured["ours"], primary, "--check")
    assert run.rc == 0, run.failure("one")
    assert not (tmp_path / "keyrings").exists()
