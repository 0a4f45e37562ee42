"""A run that the role must refuse without a trace on the node: what is wrong, and the message that says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from testlib.node import Node, differences
from testlib.runs import Operator, Run


@dataclass(frozen=True)
class Refusal:
    """`message`: parts that the message must have. `variables`: without dgx_vllm_, `given`: as -e NAME=VALUE.

    `breaks` and `restores` are shell scripts for the node, run before and after.
    """

    message: tuple[str, ...]
    variables: dict[str, Any] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    breaks: str = "true"
    restores: str = "true"


def refused(operator: Operator, node: Node, case: Refusal) -> Run:
    """Make the run of `case`; it must fail with its message and leave node and server unchanged."""
    node.sh(case.breaks)
    try:
        before = node.snapshot()
        run = operator.fail(given=case.given, **case.variables)
        changes = differences(before, node.snapshot())
    finally:
        node.sh(case.restores)
    missing = [part for part in case.message if part not in run.message]
    assert not missing, f"the message lacks {missing}: {run.message}"
    assert not changes, f"the run was refused, and yet it left: {changes}"
    return run
