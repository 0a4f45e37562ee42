"""Makes the watch, which is no part of the collection's plugins, and the fake world importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "files/watch"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
