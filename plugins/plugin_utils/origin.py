"""Where a value of the inventory is written. The only file that uses a private interface of ansible-core."""

from __future__ import annotations

import os
from typing import Any


def origin(value: Any) -> str:
    """file:line of an inventory value; '' if the value has none, or if this ansible-core keeps none.

    ansible-core has no public interface for this. The private one exists since 2.19 and may go without notice: then
    messages lose the place and nothing else.
    """
    try:
        from ansible._internal._datatag._tags import Origin
    except ImportError:
        return ""
    tag = Origin.get_tag(value)
    if tag is None or not tag.path or not tag.line_num:
        return ""
    return f"{os.path.relpath(tag.path)}:{tag.line_num}"
