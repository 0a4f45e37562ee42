"""What the head asks its own server: does it answer, does it produce tokens, is /health right."""

from __future__ import annotations

from typing import Optional

from replica_watch.model import Api, Metrics, Settings


class ServerChecks:
    """Checks once per tick; only the probe in the background waits."""

    def __init__(self, settings: Settings, api: Api) -> None:
        self._settings = settings
        self._api = api
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """A new run: discard what was seen of the old one."""
        self._seen: Optional[Metrics] = None
        self._grew = self._busy_since = now
        self._asked = self._probed = now
        self._probing = False
        self._misses = 0

    def look(self, now: float, ready: bool, urgent: bool) -> tuple[bool, str]:
        """Whether the server answers, and what is wrong with it ('' for nothing).

        `urgent`: a peer does not answer. A token now shows that only its watch is gone, because a replica that
        lacks a node produces no tokens.
        """
        if not ready:
            self._grew = self._probed = now
            return self._api.healthy(), ""
        stalled = self._stalled(now)
        return True, stalled or self._probe(now, urgent)

    def _stalled(self, now: float) -> str:
        metrics = self._api.metrics()
        if metrics is None:
            return ""
        before, self._seen = self._seen, metrics
        if before is None or (before.tokens, before.cache) != (metrics.tokens, metrics.cache):
            self._grew = now
        if metrics.running == 0:
            self._busy_since = now
        silent = now - max(self._grew, self._busy_since)
        if metrics.running > 0 and silent > self._settings.stall:
            requests = "1 request runs" if metrics.running == 1 else f"{metrics.running:.0f} requests run"
            return f"{requests} and no token has come for {silent:.0f} s"
        return ""

    def _probe(self, now: float, urgent: bool) -> str:
        limits = self._settings
        if self._probing:
            result = self._api.probe_result()
            if result is None:
                return ""
            self._probing, self._probed = False, now
            if result or self._grew > self._asked:
                self._misses = 0
                return ""
            self._misses += 1
            if urgent or self._misses >= limits.probe_failures:
                says = "says 200" if self._api.healthy() else "does not answer"
                times = f"{self._misses} time{'s' * (self._misses > 1)}"
                return f"/health {says} and a completion did not come in time, {times}"
        pause = limits.urgent_deadline if urgent else limits.probe_interval
        last = self._probed if urgent else max(self._grew, self._probed)
        if self._misses or now - last >= pause:
            self._asked, self._probing = now, True
            self._api.begin_probe(limits.urgent_deadline if urgent else limits.probe_deadline)
        return ""
