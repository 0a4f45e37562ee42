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
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.node import Document, Node

HTTP_TIMEOUT = 10.0
MANIFEST = "/opt/dgx-vllm/manifest.json"


class Replies(NamedTuple):
    """The server's replies, None for a request that was not sent."""

    health: Reply | None = None
    models: Reply | None = None
    completion: Reply | None = None

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
        return [str(item.get("id")) for item in entries or [] if isinstance(item, dict)]

    def model(self, wanted: str) -> str:
        """The model to complete with: the wanted one, else the first that is listed, else ""."""
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
    """Docker's copy of the log, read if the journal has lost the start of the run."""
    manifest: Document = Document()
    moe_config: Document = Document()
    driver: Mapping[str, str | None] = MappingProxyType({})
    """Versions of the loaded and of the installed driver."""

    def failed(self, restarts_before: int) -> bool:
        """Whether the service has failed; a unit of a replica may be down until its watch starts all of them."""
        if not self.unit.exists:
            return True
        if self.watch is None:
            return self.unit.failed(restarts_before)
        return self.watch.gave_up or (restarts_before >= 0 and self.watch.restarts > restarts_before)

    def up(self, wanted: Wanted) -> bool:
        """Whether all but the server's own answer says that it serves; a worker's watch asks the head's server."""
        if self.failed(wanted.restarts_before) or not self.unit.active:
            return False
        if self.watch and not self.watch.ready:
            return False
        return (
            not wanted.serves
            or self.journal.facts.phase == "serving"
            or not self.journal.facts.start_retained
        )


def read_probe(wanted: Wanted, node: Node, http: Http) -> Reading:
    """What tells how far the service is: cheap enough to be read every few seconds."""
    reading = _read_service(wanted, node)
    if not wanted.serves or not reading.up(wanted):
        return reading
    return reading._replace(replies=Replies(_get(http, "/health")))


def read_full(wanted: Wanted, node: Node, http: Http) -> Reading:
    """Everything. The requests come first, so that the log has what they bring into it."""
    replies = _request(wanted, http) if wanted.serves else Replies()
    reading = _read_service(wanted, node)._replace(replies=replies)
    if reading.failed(wanted.restarts_before):
        return reading
    container = node.container()
    reading = reading._replace(container=container, driver=node.driver())
    if not container.running:
        return reading
    if not reading.journal.facts.start_retained:
        reading = reading._replace(docker_log=_log(node.container_log()))
    if container.runs_ray:
        return reading
    manifest = node.document(["cat", MANIFEST], 20.0)
    return reading._replace(manifest=manifest, moe_config=_read_moe_config(wanted, node, container))


def _read_service(wanted: Wanted, node: Node) -> Reading:
    unit = node.unit()
    watch = node.watch(wanted.watch_unit, wanted.watch) if wanted.watch else None
    reading = Reading(unit, watch, _log(node.run_log(unit.invocation_id) if unit.exists else ""))
    if unit.exists and reading.failed(wanted.restarts_before):
        reading = reading._replace(failed_run=node.failed_log(unit))
    return reading


def _read_moe_config(wanted: Wanted, node: Node, container: Container) -> Document:
    """What the image's own program says of this model: its markers, its MoE config file, where it found it."""
    model = wanted.model_path or container.environment.get("MODEL", "")
    if not model:
        return Document({}, "the container has no MODEL, and no model_path was given")
    size = str(wanted.tensor_parallel_size)
    argv = ["python3", "-m", "moe_config", "name", "--json", "--model", model, "--tp", size]
    if container.option("--enable-expert-parallel") is not None:
        argv += ["--ep", size]
    revision = container.option("--revision")
    if revision:
        argv += ["--revision", revision]
    return node.document(argv, 60.0)


def _request(wanted: Wanted, http: Http) -> Replies:
    """Each request only if the previous one was answered as it must be."""
    replies = Replies(_get(http, "/health"))
    if not replies.healthy:
        return replies
    replies = replies._replace(models=_get(http, "/v1/models"))
    model = replies.model(wanted.model)
    if model not in replies.names:
        return replies
    body = {"model": model, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    return replies._replace(completion=http("POST", "/v1/completions", wanted.completion_timeout, body))


def _get(http: Http, path: str) -> Reply:
    return http("GET", path, HTTP_TIMEOUT, None)


def _log(text: str) -> Log:
    return Log(text, read_log(text))
