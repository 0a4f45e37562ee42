"""Load the rules so that a node that can no longer be reached takes them back by itself.

The new rules lie in /run until they are kept: whatever happens before, a boot has the former ones.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.firewall import table
from ansible_collections.dgx_vllm.spark.plugins.module_utils.revert import Revert
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under

NEW = "/run/dgx-vllm-firewall.new"
REVERT = Revert("dgx-vllm-firewall-revert", "the rules of dgx-vllm", "/run/dgx-vllm-firewall.revert")
MODE = 0o644
DELETE = ("nft", "delete", "table", *table.TABLE)
SCRIPT = f"nft -f {table.RULES} || {' '.join(DELETE)}\n"
"""Without rules that were kept before, the table goes."""


class FirewallError(RuntimeError):
    """The rules were not loaded, or were taken back; the text is a sentence for the operator."""


def load(root: Path, runner: Runner, rules: str, seconds: int) -> None:
    """Load `rules`; after `seconds` s the former ones come back unless `keep` is called before."""
    files.write(under(root, NEW), rules, MODE)
    checked = runner(["nft", "-c", "-f", str(under(root, NEW))])
    if checked.rc == MISSING:
        raise FirewallError(
            "nft is missing; install nftables, or set dgx_vllm_firewall: false and run again."
        )
    if checked.rc != 0:
        raise FirewallError(
            f"nft refuses the rules, and nothing was loaded ({checked.complaint}); a kernel without nf_tables cannot "
            "have them: set dgx_vllm_firewall: false and use the firewall that you have."
        )
    complaint = REVERT.schedule(root, runner, SCRIPT, seconds)
    if complaint:
        raise FirewallError(
            f"systemd-run cannot schedule the automatic revert ({complaint}), so no rule was loaded; fix what it says "
            "and run again."
        )
    done = runner(["nft", "-f", str(under(root, NEW))])
    if done.rc != 0:
        REVERT.cancel(runner)
        raise FirewallError(f"nft cannot load the rules ({done.complaint}); the former ones are in effect.")


def keep(root: Path, runner: Runner, unit: str) -> None:
    """The node still answers: the rules stay, and `unit` (the text of its file) loads them at boot."""
    if not REVERT.pending(runner):
        raise FirewallError(
            f"The node took the rules back before it was reached again; look at `journalctl -u {REVERT.unit}` and at "
            "the route to the node, then run again."
        )
    rules = under(root, NEW)
    files.write(under(root, table.RULES), rules.read_text(encoding="utf-8"), MODE)
    files.write(under(root, table.UNIT_FILE), unit, MODE)
    files.write(under(root, table.DROP_IN), table.DROP_IN_TEXT, MODE)
    REVERT.cancel(runner)
    for words in (["daemon-reload"], ["reenable", table.UNIT], ["reload-or-restart", table.UNIT]):
        done = runner(["systemctl", *words])
        if done.rc != 0:
            raise FirewallError(
                f"The rules are loaded, but systemd refused {' '.join(words)} ({done.complaint}), so a boot may not "
                "load them; fix what it says and run again."
            )
    files.write(under(root, table.LOADED), table.listing(runner) + "\n", MODE)
    rules.unlink()


def remove(root: Path, runner: Runner) -> None:
    """Remove rules, unit and files."""
    REVERT.cancel(runner)
    runner(["systemctl", "disable", "--now", table.UNIT])
    runner(DELETE)
    for path in (table.UNIT_FILE, table.DROP_IN, table.RULES, table.LOADED, NEW, REVERT.script):
        under(root, path).unlink(missing_ok=True)
    with suppress(OSError):  # Others have drop-ins there too, or it is gone.
        under(root, table.DROP_IN).parent.rmdir()
    runner(["systemctl", "daemon-reload"])
