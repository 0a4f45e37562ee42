"""What a commit and a file of a model may be called.

Both come from another machine and go into environment files, commands and paths: a hub, or whoever stands before an
http:// endpoint, must not turn weights into code.
"""

from __future__ import annotations

import re

_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(text: object) -> bool:
    """Whether `text` is a git commit: 40 hex digits in lower case, as model hubs give it."""
    return isinstance(text, str) and _COMMIT.fullmatch(text) is not None


def is_file_name(text: object) -> bool:
    """Whether `text` is a path below the model's folder: printable, relative, and without steps upwards."""
    if not isinstance(text, str) or not text.isprintable() or "\\" in text:
        return False
    return all(part not in ("", ".", "..") for part in text.split("/"))
