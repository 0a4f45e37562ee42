"""Shapes that the modules of this package share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Settings = Mapping[str, Any]
"""The role's public variables by their full names; numbers may be strings (`-e dgx_vllm_port=8001`)."""

Row = Mapping[str, Any]
"""The node's row of the plan (filter topology)."""

Node = Mapping[str, Any]
"""What the role knows of the node: __dgx_vllm_server_node in roles/dgx_vllm/vars/main/server.yml."""

Interfaces = Sequence[Mapping[str, Any]]
"""One entry per rail, in the order of the rails: `interface`, `rdma` ('' without an RDMA device), `rdma_port`."""

Addresses = Mapping[str, Sequence[str]]
"""Interface -> its IPv4 addresses with their lengths."""


class ServerError(ValueError):
    """A node that cannot take its place in its replica; the text is a sentence for the operator."""
