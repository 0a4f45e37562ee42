"""`systemctl show`, read in one place."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils import systemd
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, Completed


def test_values_keep_their_equals_signs() -> None:
    seen: list[Sequence[str]] = []

    def runner(argv: Sequence[str]) -> Completed:
        seen.append(argv)
        return Completed(0, "LoadState=loaded\nEnvironment=A=1 B=2\nResult=\n", "")

    shown, complaint = systemd.show(runner, "a.service", ("LoadState", "Environment", "Result"))
    assert seen == [["systemctl", "show", "a.service", "--property=LoadState,Environment,Result"]]
    assert (shown, complaint) == ({"LoadState": "loaded", "Environment": "A=1 B=2", "Result": ""}, "")


def test_why_there_are_none() -> None:
    assert systemd.show(lambda argv: Completed(MISSING, "", "systemctl is not installed"), "a", ("b",)) == (
        {},
        "systemctl is not installed",
    )
    assert systemd.show(lambda argv: Completed(1, "", ""), "a", ("b",)) == (
        {},
        "systemctl ended with status 1",
    )
