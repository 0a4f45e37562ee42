"""Fixtures come from molecule/shared/testlib."""

from __future__ import annotations

pytest_plugins = ["testlib.fixtures"]
