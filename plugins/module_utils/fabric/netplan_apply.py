"""Put the rails' netplan file into effect so that a node that loses its network reverts the change by itself."""

from __future__ import annotations

import shlex
from pathlib import Path

from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan
from ansible_collections.dgx_vllm.spark.plugins.module_utils.revert import Revert
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under

BEFORE = "/run/dgx-vllm-netplan.before"
MODE = int(netplan.MODE, 8)
REVERT = Revert("dgx-vllm-netplan-revert", netplan.PATH, "/run/dgx-vllm-netplan.revert")
ORIGINAL = "/var/lib/dgx-vllm/state/40-cx7.yaml.original"
"""A file of somebody else that had our path; uninstall puts it back."""


class ApplyError(RuntimeError):
    """The change did not happen or was reverted; the text is a sentence for the operator."""


def revert_script(old: str | None, new: str) -> str:
    """What the timer runs: restore the previous file, delete the addresses that only the new one gives."""
    file, before = shlex.quote(netplan.PATH), shlex.quote(BEFORE)
    gone = [pair for pair in netplan.given(new) if pair not in netplan.given(old)]
    lines = [
        f"rm -f {file}" if old is None else f"cp -p {before} {file}",
        *(f"ip address del {shlex.quote(address)} dev {shlex.quote(name)}" for name, address in gone),
        "exec netplan apply",
    ]
    return "\n".join(lines) + "\n"


def apply(root: Path, runner: Runner, text: str, seconds: int) -> None:
    """Write the file and apply it; after `seconds` s all is reverted unless `keep` is called before."""
    file = under(root, netplan.PATH)
    others = netplan.unapplied(root)
    if others:
        raise ApplyError(
            f"{', '.join(others)} changed after netplan was last applied, and the revert of the rails would not take"
            " that back: put it into effect (`netplan try`) or undo it, then run again."
        )
    old = netplan.read(root)["text"]
    if old is not None:
        files.write(under(root, BEFORE), old, MODE)
        if not netplan.ours(old):
            files.write(under(root, ORIGINAL), old, MODE)
    complaint = REVERT.schedule(root, runner, revert_script(old, text), seconds)
    if complaint:
        raise ApplyError(
            f"systemd-run cannot schedule the automatic revert ({complaint}), so {netplan.PATH} was left as it "
            "is; fix what it says and run again."
        )
    files.write(file, text, MODE)
    for step in ("generate", "apply"):
        done = runner(["netplan", step])
        if done.rc != 0:
            REVERT.now(runner)
            raise ApplyError(
                f"netplan {step} failed ({done.complaint}), and {netplan.PATH} has been restored; fix what it says, "
                "or set dgx_vllm_fabric_manage: false and give the rails their addresses yourself."
            )


def keep(runner: Runner) -> None:
    """The node still answers: stop the timer."""
    if not REVERT.pending(runner):
        raise ApplyError(
            f"The node reverted {netplan.PATH} before it was reached again; look at `journalctl -u {REVERT.unit}` and "
            "at the route to the node, then run again."
        )
    REVERT.cancel(runner)


def remove(root: Path, runner: Runner) -> bool:
    """Remove our file and its addresses, put the original back; False if there is nothing of ours."""
    text = netplan.read(root)["text"]
    if not netplan.ours(text):
        return False
    original = under(root, ORIGINAL)
    if original.exists():
        files.write(under(root, netplan.PATH), original.read_text(encoding="utf-8"), MODE)
    else:
        under(root, netplan.PATH).unlink()
    for name, address in netplan.given(text):
        runner(["ip", "address", "del", address, "dev", name])
    runner(["netplan", "apply"])
    return True
