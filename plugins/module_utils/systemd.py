"""What systemd says of a unit."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner


def show(runner: Runner, unit: str, properties: Sequence[str]) -> tuple[dict[str, str], str]:
    """The named properties of a unit: (property -> value, "") or ({}, why systemctl gave none).

    systemd answers for a unit that does not exist, too: with LoadState=not-found and its defaults.
    """
    done = runner(["systemctl", "show", unit, f"--property={','.join(properties)}"])
    if done.rc != 0:
        return {}, done.complaint or f"systemctl ended with status {done.rc}"
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line), ""
