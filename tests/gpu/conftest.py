"""The image's Python on the path, as run.sh puts it there."""

from __future__ import annotations

import sys
from pathlib import Path

IMAGE = str(Path(__file__).resolve().parents[2] / "files" / "image")
if IMAGE not in sys.path:
    sys.path.insert(0, IMAGE)
