"""Everything the health check knows of a node, read once and in order, before anything is evaluated.

A read that costs time is left out if an earlier one shows that nothing needs it; its field is then empty or None.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Mapping, NamedTuple, Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import (
    Container,
    Unit,
    Wanted,
    Watch,
)
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import Http, Reply
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import LogFacts, read_log
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Inside, Node
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.record import KINDS
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.routes import ROUTES, Route, is_absent

HTTP_TIMEOUT = 10.0


class Replies(NamedTuple):
    """The server's replies, None for a request that was not sent."""

    health: Reply | None = None
    models: Reply | None = None
    answer: Reply | None = None
    """Of the first route that the server has."""
    route: Route | None = None

    @property
    def healthy(self) -> bool:
        """Whether /health answered 200."""
        return self.health is not None and self.health.status == 200

    @property
    def names(self) -> list[str]:
        """The models that the server lists."""
        if self.models is None or self.models.status != 200:
            return []
        data = self.models.json()
        entries = data.get("data") if isinstance(data, dict) else None
        return [
            str(item.get("id"))
            for item in (entries if isinstance(entries, list) else [])
            if isinstance(item, dict)
        ]

    def model(self, wanted: str) -> str:
        """The model to ask: the wanted one, else the first that is listed, else ""."""
        return wanted or (self.names[0] if self.names else "")


class Log(NamedTuple):
    """The log of the current run as one place keeps it."""

    text: str
    facts: LogFacts


class Reading(NamedTuple):
    """What was read of one node."""

    unit: Unit
    watch: Watch | None
    journal: Log
    replies: Replies = Replies()
    failed_run: Sequence[str] = ()
    """The log of the run that failed, if the service has failed."""
    container: Container | None = None
    docker_log: Log | None = None
    """Docker's copy of the log, read if the journal has lost the start of the run or a marker."""
    inside: Inside = Inside()
    driver: Mapping[str, str | None] = MappingProxyType({})
    """Versions of the loaded and of the installed driver."""
    firewall: bool | None = None
    """Whether the rules are loaded; None if nobody wants them."""

    def failed(self, restarts_before: int) -> bool:
        """Whether the service has failed; a unit of a replica may be down until its watch starts all of them."""
        if not self.unit.exists:
            return True
        if self.watch is None:
            return self.unit.failed(restarts_before)
        return self.watch.gave_up or (restarts_before >= 0 and self.watch.restarts > restarts_before)

    def up(self, wanted: Wanted) -> bool:
        """Whether the service runs, so that its API can be asked; a worker's watch asks the head's."""
        if self.failed(wanted.restarts_before) or not self.unit.active:
            return False
        return self.watch is None or self.watch.ready

    def ready(self, wanted: Wanted) -> bool:
        """Whether the API answers, whatever the log says."""
        return self.up(wanted) and (not wanted.serves or self.replies.healthy)

    def lacks_a_marker(self) -> bool:
        """Whether the journal does not show what the records say: it may have lost lines."""
        seen = self.journal.facts.markers
        return any(self.inside.records.routed(kind) and kind not in seen for kind in KINDS)


def read_probe(wanted: Wanted, node: Node, http: Http) -> Reading:
    """What tells how far the service is: cheap enough to be read every few seconds."""
    reading = _read_service(wanted, node)
    if not wanted.serves or not reading.up(wanted):
        return reading
    return reading._replace(replies=Replies(_get(http, "/health")))


def read_full(wanted: Wanted, node: Node, http: Http) -> Reading:
    """Everything. The requests come first, so that the log has what they bring into it."""
    replies = request_all(wanted, http) if wanted.serves else Replies()
    reading = _read_service(wanted, node)._replace(replies=replies)
    if reading.failed(wanted.restarts_before):
        return reading
    container = node.container()
    reading = reading._replace(container=container, driver=node.driver())
    if wanted.firewall:
        reading = reading._replace(firewall=node.firewall())
    if not container.running:
        return reading
    reading = reading._replace(inside=node.inside())
    if not reading.journal.facts.start_retained or reading.lacks_a_marker():
        reading = reading._replace(docker_log=_log(node.container_log()))
    return reading


def _read_service(wanted: Wanted, node: Node) -> Reading:
    unit = node.unit()
    watch = node.watch(wanted.watch_unit, wanted.watch) if wanted.watch else None
    reading = Reading(unit, watch, _log(node.run_log(unit.invocation_id) if unit.exists else ""))
    if unit.exists and reading.failed(wanted.restarts_before):
        reading = reading._replace(failed_run=node.failed_log(unit))
    return reading


def request_all(wanted: Wanted, http: Http) -> Replies:
    """Each request only if the previous one was answered as it must be."""
    replies = Replies(_get(http, "/health"))
    if not replies.healthy:
        return replies
    replies = replies._replace(models=_get(http, "/v1/models"))
    model = replies.model(wanted.model)
    if model not in replies.names:
        return replies
    for route in ROUTES:
        reply = http("POST", route.path, wanted.completion_timeout, route.body(model))
        if not is_absent(reply):
            return replies._replace(answer=reply, route=route)
    return replies


def _get(http: Http, path: str) -> Reply:
    return http("GET", path, HTTP_TIMEOUT, None)


def _log(text: str) -> Log:
    return Log(text, read_log(text))
