"""What the health check is asked (Wanted) and what a node answers (Unit, Watch, Container), as plain values."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve import arguments as serve_arguments
from ansible_collections.dgx_vllm.spark.plugins.module_utils.serve.options import OPTIONS

GRAMMAR = serve_arguments.Grammar(OPTIONS)
"""That of the locked vLLM. An option of another one that it lacks is read by its looks."""


class Wanted(NamedTuple):
    """What the caller expects of the service; the parameters of the module. Times in seconds."""

    unit: str = "dgx-vllm.service"
    container: str = "dgx-vllm"
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str = ""
    model: str = ""
    image_id: str = ""
    moe_config_required: bool = False
    completion_timeout: float = 60.0
    restarts_before: int = -1
    serves: bool = True
    watch: str = ""
    watch_unit: str = "dgx-vllm-watch.service"
    evidence: dict[str, Any] | None = None
    firewall: bool = False
    secrets: Sequence[str] = ()
    """What the log must not show besides the key."""


class Unit(NamedTuple):
    """A systemd unit as `systemctl show` describes it; `elapsed_s` is seconds since its process was started."""

    load_state: str = ""
    active_state: str = ""
    sub_state: str = ""
    result: str = ""
    n_restarts: int = 0
    invocation_id: str = ""
    exit_status: int = 0
    elapsed_s: int = 0
    job: bool = False
    error: str = ""

    @property
    def exists(self) -> bool:
        """Whether systemd knows the unit."""
        return self.load_state not in ("", "not-found")

    @property
    def active(self) -> bool:
        """Whether its process runs."""
        return self.active_state in ("active", "reloading")

    @property
    def restarting(self) -> bool:
        """Whether its process has just ended and systemd waits to start it again."""
        return self.sub_state.startswith("auto-restart")

    def failed(self, restarts_before: int) -> bool:
        """Whether it has failed: given up, not started, waiting for a restart, or restarted since."""
        if self.restarting or self.active_state == "failed":
            return True
        if self.active_state == "inactive" and not self.job:
            return True
        return restarts_before >= 0 and self.n_restarts > restarts_before

    def describe(self) -> str:
        """Its state in words."""
        if self.error:
            return self.error
        if not self.exists:
            return "there is no such unit"
        text = f"{self.active_state} ({self.sub_state})"
        if self.active_state in ("failed", "inactive") or self.restarting:
            text += f", result {self.result}, exit status {self.exit_status}"
        return text + _restarts(self.n_restarts)


class Watch(NamedTuple):
    """The last report of a replica's watch; `phase` is "" before its first one."""

    active: bool
    phase: str
    desired: str
    reason: str
    restarts: int

    @property
    def gave_up(self) -> bool:
        """Whether the replica is meant to be down: the watch gave up, or somebody stopped it."""
        return self.phase == "stopped"

    @property
    def restarting(self) -> bool:
        """Whether the nodes wait for each other to start again."""
        return self.phase in ("ending", "held")

    @property
    def ready(self) -> bool:
        """Whether all nodes run and the head serves."""
        return self.active and self.phase == "ready"

    def describe(self) -> str:
        """Its state in words."""
        text = f"the replica is {self.phase or 'not checked yet'}{_restarts(self.restarts)}"
        return f"{text}: {self.reason}" if self.reason and self.phase != "ready" else text


class Container(NamedTuple):
    """The serving container: its image, release, environment and the arguments it was started with."""

    running: bool = False
    image_id: str = ""
    environment: Mapping[str, str] = MappingProxyType({})
    arguments: tuple[str, ...] = ()
    error: str = ""
    release: str = ""

    @property
    def runs_ray(self) -> bool:
        """Whether it is a Ray worker, which runs no vLLM command of its own."""
        return self.arguments[:1] == ("ray",)

    def option(self, name: str) -> str | None:
        """The value of an option the server was started with; "" for a bare flag, None if it is absent."""
        return serve_arguments.value(self.options, name)

    @property
    def options(self) -> list[serve_arguments.Option]:
        """The options of its server in the order in which vLLM gets them."""
        try:
            extra = serve_arguments.split_words(self.environment.get("VLLM_EXTRA_ARGS", ""))
        except ValueError:
            extra = []
        return GRAMMAR.read([*extra, *self.arguments])

    @property
    def forwards(self) -> bool:
        """Whether its processes' lines may be in another container's log: Ray brings them to the head."""
        return self.runs_ray or self.option("--distributed-executor-backend") == "ray"


def _restarts(count: int) -> str:
    return f", {count} restart{'s' if count > 1 else ''}" if count else ""
