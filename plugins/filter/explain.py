"""Filter explain: known errors in a text, with their remedies."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.dgx_vllm.spark.plugins.module_utils.remedies import explain

DOCUMENTATION = r"""
name: explain
short_description: Known errors in a log or error text, with their remedies
version_added: "0.1.0"
description: Looks a text up in the table of errors of vLLM, Docker and the model hub.
options:
  _input:
    description: The text, or a list of lines.
    type: raw
    required: true
author:
  - dgx-vllm contributors (@dgx-vllm)
"""

EXAMPLES = r"""
- name: Say why the pull failed
  ansible.builtin.fail:
    msg: "{{ (pull.stderr | dgx_vllm.spark.explain | first).remedy }}"
"""

RETURN = r"""
_value:
  description: The errors found, most telling first, with the keys id, sentence, remedy and line.
  type: list
  elements: dict
"""


def explain_filter(text: Any) -> list[dict[str, str]]:
    """The findings of `explain` as plain dicts; `text` may be a string, a list of lines, or None."""
    if text is None:
        return []
    lines = text if isinstance(text, (list, tuple)) else [text]
    return [dict(item._asdict()) for item in explain("\n".join(str(line) for line in lines))]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"explain": explain_filter}
