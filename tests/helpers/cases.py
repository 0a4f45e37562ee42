"""The inventory of hosts whose releases the tests render."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent


def read_cases() -> dict[str, Any]:
    """The inventory cases.yml, and one more case: all numbers and booleans as `-e name=value` would give them."""
    inventory = yaml.safe_load((HERE / "cases.yml").read_text(encoding="utf-8"))
    hosts = inventory["all"]["hosts"]
    hosts["everything_as_strings"] = {
        name: str(value).lower() if isinstance(value, (bool, int, float)) else value
        for name, value in hosts["everything"].items()
    }
    assert isinstance(inventory, dict)
    return inventory
