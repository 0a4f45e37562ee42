"""The firewall as it is on a node: the files that are there, and whether the kernel has just these rules."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text, under
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.service import digest

UNIT = "dgx-vllm-firewall.service"
TABLE = ("inet", "dgx_vllm")
RULES = "/etc/dgx-vllm/firewall.nft"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
LOADED = "/var/lib/dgx-vllm/state/firewall"
"""Digest of what nft listed when the rules were kept."""
WANTS = f"/etc/systemd/system/sysinit.target.wants/{UNIT}"
DROP_IN = "/etc/systemd/system/nftables.service.d/dgx-vllm.conf"
DROP_IN_TEXT = f"""# Managed by Ansible (role dgx_vllm): what this unit loads begins with `flush ruleset`.
[Service]
ExecStartPost=-/usr/sbin/nft -f {RULES}
ExecReload=-/usr/sbin/nft -f {RULES}
"""


def listing(runner: Runner) -> str:
    """Digest of the table as the kernel has it; '' if it has none."""
    done = runner(["nft", "list", "table", *TABLE])
    return hashlib.sha256(done.stdout.encode()).hexdigest() if done.rc == 0 else ""


def is_loaded(root: Path, runner: Runner) -> bool:
    """Whether the kernel has the rules that were kept, with nothing added or removed since."""
    kept = read_text(under(root, LOADED)).strip()
    return bool(kept) and listing(runner) == kept


def firewall(root: Path, runner: Runner) -> dict[str, Any]:
    """`rules_sha256`, `unit_sha256` (None if there is none), `enabled`, `loaded`; nft is asked if rules were kept."""
    drop_in = read_text(under(root, DROP_IN))
    return {
        "rules_sha256": digest(under(root, RULES)),
        "unit_sha256": digest(under(root, UNIT_FILE)),
        "enabled": under(root, WANTS).is_symlink() and drop_in == DROP_IN_TEXT,
        "loaded": is_loaded(root, runner),
    }
