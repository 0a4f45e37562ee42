"""A run that the role must refuse without a trace on the node: what is wrong, and the sentence that says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from node import Node, differences
from runs import Operator, Run


@dataclass(frozen=True)
class Refusal:
    """`sentence`: parts that the message must have. `variables`: without dgx_vllm_, `given`: as -e words.

    `breaks` and `mends` are shell scripts for the node, run before and after.
    """

    sentence: tuple[str, ...]
    variables: dict[str, Any] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    breaks: str = "true"
    mends: str = "true"


def refused(operator: Operator, node: Node, case: Refusal) -> Run:
    """Make the run of `case`; it must fail with its sentence and leave node and server as they were."""
    node.sh(case.breaks)
    try:
        before = node.snapshot()
        run = operator.fail(given=case.given, **case.variables)
        changes = differences(before, node.snapshot())
    finally:
        node.sh(case.mends)
    missing = [part for part in case.sentence if part not in run.message]
    assert not missing, f"the message lacks {missing}: {run.message}"
    assert not changes, f"the run was refused, and yet it left: {changes}"
    return run
