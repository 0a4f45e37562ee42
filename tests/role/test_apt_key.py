"""The signing key of an apt repository: the one with the fingerprint is taken, and anything beside it refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from helpers.stages import ROLE, Stages

pytestmark = pytest.mark.skipif(shutil.which("gpg") is None, reason="there is no gpg here")
CHECKED = 5
"""Tasks of apt_repository.yml up to the refusal; those after it change this machine."""
Keys = tuple[dict[str, str], str, str]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """(armoured public keys by user, fingerprint of `ours`, that of its subkey)."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)

    def gpg(*words: str) -> str:
        command = ["gpg", "--batch", "--quiet", "--homedir", str(home), "--passphrase", "", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    for user in ("ours@x", "theirs@x"):
        gpg("--quick-generate-key", user, "ed25519", "sign", "never")
    lines = gpg("--with-colons", "--list-keys", "ours@x").splitlines()
    primary = next(line.split(":")[9] for line in lines if line.startswith("fpr"))
    gpg("--quick-add-key", primary, "ed25519", "sign", "never")
    lines = gpg("--with-colons", "--list-keys", "ours@x").splitlines()
    subkey = [line.split(":")[9] for line in lines if line.startswith("fpr")][1]
    armoured = {user: gpg("--armor", "--export", f"{user}@x") for user in ("ours", "theirs")}
    subprocess.run(
        ["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False, env=dict(os.environ)
    )
    return armoured, primary, subkey


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
    stages = Stages(tmp_path, "common/packages")
    tasks = yaml.safe_load((ROLE / "tasks/common/apt_repository.yml").read_text(encoding="utf-8"))[:CHECKED]
    assert tasks[-1]["name"].startswith("Refuse")
    (stages.tasks / "key.yml").write_text(json.dumps(tasks), encoding="utf-8")
    (tmp_path / "served").write_text("".join(armoured[user] for user in users), encoding="utf-8")
    keyring = tmp_path / "keyrings/key.asc"
    repository = {
        "key_url": f"file://{tmp_path}/served", "fingerprint": subkey if of_subkey else primary.lower(),
        "variable": "toolkit",
    }  # fmt: skip
    run = stages.run("key", {"one": {}}, __dgx_vllm_repository=repository, __dgx_vllm_keyring=str(keyring))
    assert keyring.exists() == taken
    assert ("or is not the only one there" in run.failure("one")) != taken
