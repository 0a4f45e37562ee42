"""Secrets are planted, the role's stages run at -vvv with --diff, and everything that is left or shown is searched.

docs/security.md names the files that may hold one; they have mode 0600.
"""

from __future__ import annotations

import json
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import mask
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.result import causes_in_words, explained
from test_service_run import node

from helpers.ansible_run import ROOT, Run
from helpers.planted import SECRETS, USER, VARIABLES, planted_below, planted_in
from helpers.releases import systemctl
from helpers.stages import Stages

DOCKER = r"""case $1 in
  login)
    umask 077
    printf '{"auths": {"r": {"auth": "%s"}}}' "$(printf '%s:%s' "$3" "$(cat)" | base64 -w 0)" \
      >"$DOCKER_CONFIG/config.json"; cp "$DOCKER_CONFIG/config.json" "$AT/seen-login" ;;
  logout) echo '{"auths": {}}' >"$DOCKER_CONFIG/config.json" ;;
  pull) [ ! -e "$AT/refuse" ] || { echo "denied: $4 $DOCKER_CONFIG" >&2; exit 1; } ;;
esac
"""
STATE: dict[str, Any] = {"image": {"present": True, "id": "sha256:" + "0f" * 32}}


class Site:
    """The role's stages on one node, with every secret planted, and what is searched afterwards."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.stages = Stages(place, "common/state", "service/restart", "service/watch")
        systemctl(self.stages, enabled=True)
        self.stages.tool("docker", DOCKER)

    def run(self, *files: str, words: tuple[str, ...] = (), **changes: Any) -> Run:
        """Run task files in order; the inventory itself may hold secrets and is not kept."""
        steps = [{"name": name, "ansible.builtin.include_tasks": f"{name}.yml"} for name in files]
        (self.stages.tasks / "steps.yml").write_text(json.dumps(steps), encoding="utf-8")
        host = {**node(exists=False, enabled=False), **VARIABLES}
        host["__dgx_vllm_node"]["state"] |= {"docker": {"running": True, "version": "28.5.2"}, **changes}
        run = self.stages.run(
            "steps", {"one": host}, "-vvv", "--diff", *words, dgx_vllm_image="registry.example.com/i"
        )
        (self.place / "hosts.json").unlink()
        return run

    def left(self) -> dict[str, set[str]]:
        """File below the node or the operator's folders -> the secrets in it."""
        (self.place / "seen-login").unlink(missing_ok=True)
        found = planted_below(self.place)
        return {str(Path(file).relative_to(self.place)): names for file, names in found.items()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def shown(run: Run) -> set[str]:
    return planted_in(json.dumps(run.out, ensure_ascii=False) + run.err) | planted_in(json.dumps(run.out))


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    for number, text in enumerate((json.dumps(VARIABLES), *SECRETS.values())):
        (tmp_path / str(number)).write_text(text, encoding="utf-8")
    found = planted_below(tmp_path)
    assert set(SECRETS) == set().union(*found.values())
    assert len(found) == len(SECRETS) + 1


def test_l3_a_release_keeps_its_secrets_in_one_file(site: Site) -> None:
    run = site.run("common/validate", "service/main")
    assert run.rc == 0, run.failure("one")
    ((file, names),) = site.left().items()
    assert re.fullmatch(r"nodes/one/etc/releases/\w+/vllm\.env", file)
    assert names == {"api_key", "aws", "proxy", "plain"}, "the server needs no other"
    assert stat.S_IMODE((site.place / file).stat().st_mode) == 0o600
    assert shown(run) == set()


def test_check_mode_shows_none(site: Site) -> None:
    run = site.run("common/validate", "service/main", words=("--check",))
    assert run.rc == 0, run.failure("one")
    assert (shown(run), site.left()) == (set(), {})


@pytest.mark.parametrize("refused", [True, False])
def test_l3_the_registry_login_is_gone_after_a_pull(refused: bool, site: Site) -> None:
    if refused:
        (site.place / "refuse").touch()
    run = site.run("image/pull")
    assert (run.failure("one") == "") is not refused
    assert planted_in((site.place / "seen-login").read_text()) == {"registry_password"}, "it was there"
    assert (shown(run), site.left()) == (set(), {})


def test_l3_the_download_shows_no_token(site: Site) -> None:
    missing = {"model": {"present": False, "commit": None}, "other_models": [], **STATE}
    run = site.run(
        "model/main", words=("--check", "-e", "dgx_vllm_hf_endpoint=http://127.0.0.1:9"), **missing
    )
    assert [task for task, _, _ in run.results() if "Download the model and" in task]
    # A task in the background removes its own file shortly after its result is read.
    end = time.monotonic() + 30
    while site.left() and time.monotonic() < end:
        time.sleep(0.2)
    assert (shown(run), site.left()) == (set(), {})


LOG = f"""non-default args: {{'model': 'm', 'api_key': ['{SECRETS["api_key"]}']}}
AWS_SECRET_ACCESS_KEY={SECRETS["aws"]} MY_CREDENTIAL={SECRETS["plain"]}
{{"HF_TOKEN": "{SECRETS["hf_token"]}", "aws_secret_access_key": "{SECRETS["aws"]}"}}
requests.exceptions.ProxyError: http://{USER}:{SECRETS["proxy"]}@192.0.2.1:3128 refused
Authorization: Bearer {SECRETS["aws"]}
Authorization: Basic {SECRETS["download"]}
ValueError: {SECRETS["plain"]} is not a url
docker login --password {SECRETS["download"]}
RuntimeError: 401 for Bearer {SECRETS["hf_token"]} at https://{USER}:{SECRETS["download"]}@example.com/x
"""


def test_l3_logs_are_masked_before_they_leave_the_node() -> None:
    wanted = Wanted(api_key=SECRETS["api_key"], secrets=[SECRETS["plain"]])
    said = explained(LOG.splitlines(), wanted)
    text = "\n".join(
        [*said.tail, said.root_error, *causes_in_words(said, wanted), *(str(one) for one in said.causes)]
    )
    assert "RuntimeError" in text
    assert planted_in(text) == set()
    assert planted_in(mask(LOG, [SECRETS["api_key"], SECRETS["plain"]])) == set()


def test_docs_name_the_files_that_may_hold_one() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    for path in ("/etc/dgx-vllm/releases/ID/vllm.env", "/etc/dgx-vllm/docker/config.json"):
        assert re.search(rf"^\| `{re.escape(path)}` \|.*0600", page, re.MULTILINE), path
