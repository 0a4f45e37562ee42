"""What ping and ib_write_bw print, as numbers; a text without any becomes an `error`, never an exception.

Formats: iputils ping (Debian 12, Ubuntu 24.04), perftest 4.5 to 24.x.
"""

from __future__ import annotations

import re
from typing import Any

JUMBO_PAYLOAD = 8972
"""ICMP payload that fills a packet of 9000 bytes: 20 bytes of IPv4 header and 8 of ICMP."""

_WHOLE = r"[0-9]{1,12}"
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"

_SENT = re.compile(rf"({_WHOLE}) packets transmitted, ({_WHOLE}) (?:packets )?received")
_RTT = re.compile(rf"^rtt min/avg/max/mdev = {_NUMBER}/({_NUMBER})/", re.MULTILINE)
_LOCAL = re.compile(rf"message too long(?:, mtu[=:]\s*({_WHOLE})(?![0-9]))?", re.IGNORECASE)
_PATH = re.compile(rf"Frag needed and DF set \(mtu = ({_WHOLE})\)")

_HEADER = re.compile(r"#bytes\s+#iterations\s+BW peak\[(\S+)\]\s+BW average\[(\S+)\]", re.IGNORECASE)
_FIGURES = re.compile(rf"^\s*({_WHOLE})\s+({_WHOLE})\s+({_NUMBER})\s+({_NUMBER})(?!\S)", re.MULTILINE)
_TO_GBITS = {"gb/sec": 1.0, "mb/sec": 8 * 2**20 / 1e9, "mib/sec": 8 * 2**20 / 1e9}
"""perftest's MB is 2**20 bytes."""

ERRORS = (
    (r"Completion with error|Failed status 12|transport retry", "sent packets were never acknowledged"),
    (r"Failed status|syndrom", "the adapter reported an error while sending"),
    (r"Couldn't connect|refused|Unable to (?:init|open) the socket", "the other end took no connection"),
    (r"allocate MR|register MR|ENOMEM|allocate memory", "memory could not be registered (memlock or CMA)"),
    (r"No IB devices|IB device .*not found", "there is no such RDMA device"),
    (r"find GID|modify QP|invalid GID", "the connection could not be set up with its GID"),
    (r"timed? ?out|timeout", "it gave no answer in time"),
)  # fmt: skip
"""Pattern in the output of ib_write_bw -> what it means."""


def parse_ping(text: str) -> dict[str, Any]:
    """Counts of a ping, average round trip in ms, and why large packets do not pass.

    `mtu` is the limit that stopped a packet, `limited_by` says whether this node's interface (`local`) or
    something on the way (`path`) set it.
    """
    counts, rtt = _SENT.search(text), _RTT.search(text)
    sent, received = (int(counts.group(1)), int(counts.group(2))) if counts else (0, 0)
    local, path = _LOCAL.search(text), _PATH.search(text)
    limit = (local.group(1) if local else None) or (path.group(1) if path else None)
    return {
        "sent": sent,
        "received": received,
        "ok": sent > 0 and received == sent,
        "loss_percent": round(100 * (1 - received / sent), 1) if sent else 100.0,
        "rtt_ms": float(rtt.group(1)) if rtt else None,
        "mtu": int(limit) if limit else None,
        "limited_by": "local" if local else "path" if path else "",
        "unreachable": "Destination Host Unreachable" in text or "Network is unreachable" in text,
    }


def parse_write_bw(text: str) -> dict[str, Any]:
    """Peak and average of the largest message in Gb/s (10**9 bits), or `error`."""
    header = _HEADER.search(text)
    figures = _FIGURES.findall(text[header.end() :]) if header else []
    if header and figures:
        size, iterations, peak, average = figures[-1]
        factor = _TO_GBITS.get(header.group(2).lower())
        if factor is not None and float(average) > 0:
            return {
                "gbits": round(float(average) * factor, 2),
                "peak_gbits": round(float(peak) * factor, 2),
                "bytes": int(size),
                "iterations": int(iterations),
                "error": "",
            }
    return {"gbits": None, "peak_gbits": None, "bytes": 0, "iterations": 0, "error": _reason(text)}


def _reason(text: str) -> str:
    for pattern, meaning in ERRORS:
        if re.search(pattern, text, re.IGNORECASE):
            return meaning
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    return f"output of ib_write_bw: {lines[-1]}" if lines else "ib_write_bw printed nothing"
