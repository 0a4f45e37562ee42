"""The limits of the fabric's checks, for every part of the project that needs one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Limits = Mapping[str, Any]

THRESHOLDS: dict[str, Any] = {
    "mtu": 9000,
    "speed_mbit": 100000,
    "pcie_width": 4,
    "rail_gbits": 85.0,
    "degraded_gbits": 20.0,
    "port_gbits": 170.0,
    "busbw_gbytes": 17.0,
    "tcp_busbw_gbytes": 4.0,
    "rdma": True,
}
"""Limits and where they come from. NVIDIA's playbooks measure 92.6 and 97.3 Gb/s on the two interfaces of a port; users
report about 13 Gb/s per rail on degraded hardware. Bus bandwidth grows with the size that is gathered: 21.9 GB/s are
NVIDIA's at 16 GiB, and two pairs whose owners published their tables reach 19.7 and 19.9 GB/s at 1 GiB, which is the
size of the role's all_gather.py. One interface alone gives up to 13.5 GB/s, MTU 1500 or TCP about 3."""

ONE_INTERFACE_GBYTES = 13.5
"""What one interface alone gives at large sizes, as reported by users."""


def limits_from(thresholds: Limits) -> dict[str, Any]:
    """The known limits, replaced where `thresholds` has a value; raises ValueError for an unknown name."""
    unknown = sorted(set(thresholds) - set(THRESHOLDS))
    if unknown:
        raise ValueError(
            f"dgx_vllm_fabric_thresholds has {', '.join(unknown)}; known are {', '.join(THRESHOLDS)}."
        )
    given: dict[str, Any] = {}
    for name, value in thresholds.items():
        known = THRESHOLDS[name]
        if isinstance(known, bool):
            given[name] = (
                value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "1", "on")
            )
        else:
            given[name] = type(known)(float(value))
    return {**THRESHOLDS, **given}
