"""A desktop that runs on the node, and the memory that its programs have for themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import read_text

_SHELLS = frozenset(
    {"gnome-shell", "plasmashell", "Xorg", "Xwayland", "xfce4-session", "cinnamon", "weston", "sway"}
)
"""Programs of which a graphical session, or the screen to log in at, has one (15 letters of a name at most)."""

_PARTS = re.compile(
    r"gnome-|gdm|gsd-|gjs|mutter|nautilus|tracker-|localsearch|evolution-|gvfs|ibus-|xdg-|plasma|kwin|kded|xfce|sddm|lightdm"
)
_PRIVATE = re.compile(r"^RssAnon:\s+(\d+) kB", re.MULTILINE)


def desktop(root: Path) -> dict[str, Any]:
    """`shells`, the names of running desktops and display servers, and `bytes` of all programs of a desktop."""
    shells: set[str] = set()
    kilobytes = 0
    for folder in (root / "proc").glob("[0-9]*"):
        name = read_text(folder / "comm").strip()
        if name not in _SHELLS and not _PARTS.match(name):
            continue
        private = _PRIVATE.search(read_text(folder / "status"))
        kilobytes += int(private.group(1)) if private else 0
        shells |= {name} & _SHELLS
    return {"shells": sorted(shells), "bytes": 1024 * kilobytes if shells else 0}
