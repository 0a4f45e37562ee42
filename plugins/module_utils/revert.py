"""A change that takes itself back: a timer of systemd runs a script unless the change is confirmed before."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Runner
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under

MODE = 0o600


class Revert(NamedTuple):
    """One such change, whose `unit` has `script` run.

    The script is a file, because a reload makes systemd read its units again, and what systemd 252 then reads of a
    transient unit's command is not what it was given: a semicolon has become a backslash and a semicolon.
    """

    unit: str
    """Name of the timer and of its service."""
    what: str
    """What is reverted, for the unit's description."""
    script: str
    """Path of the script on the node."""

    def schedule(self, root: Path, runner: Runner, text: str, seconds: int) -> str:
        """Have `text` run after `seconds` s; why that cannot be, or ''."""
        files.write(under(root, self.script), text, MODE)
        self.cancel(runner)
        done = runner(
            [
                "systemd-run",
                "--quiet",
                "--collect",
                f"--unit={self.unit}",
                f"--description=Reverts {self.what}",
                f"--on-active={seconds}",
                "--timer-property=AccuracySec=1s",
                "/bin/sh",
                self.script,
            ]
        )
        return "" if done.rc == 0 else done.complaint or "it gave no reason"

    def now(self, runner: Runner) -> None:
        """Run the script at once, and not later."""
        runner(["/bin/sh", self.script])
        self.cancel(runner)

    def pending(self, runner: Runner) -> bool:
        """Whether the change has not been reverted yet."""
        return runner(["systemctl", "is-active", "--quiet", f"{self.unit}.timer"]).rc == 0

    def cancel(self, runner: Runner) -> None:
        """Leave the change in effect."""
        runner(["systemctl", "stop", f"{self.unit}.timer"])
