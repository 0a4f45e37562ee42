"""Checks of the server's endpoints: it is alive, it lists the model, and it does its work once. Pure."""

from __future__ import annotations

from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.facts import Wanted
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.http import Reply
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.log import mask
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.read import Replies
from ansible_collections.dgx_vllm.spark.plugins.module_utils.health.routes import ROUTES

HEALTH, MODELS, COMPLETION = (Check("", name) for name in ("health", "models", "completion"))


def endpoint_checks(replies: Replies, wanted: Wanted) -> list[Finding]:
    """One finding per endpoint; what was not requested is skipped with the reason."""
    if not wanted.serves:
        return [check.skipped("checked on the replica's head") for check in (HEALTH, MODELS, COMPLETION)]
    if replies.health is None or replies.health.status != 200:
        skipped = "not checked: /health does not answer 200"
        return [health_check(replies.health, wanted), MODELS.skipped(skipped), COMPLETION.skipped(skipped)]
    models = models_check(replies, wanted)
    if models.status != "pass":
        refused = replies.models is not None and replies.models.status in (401, 403)
        reason = "not checked: the API key was refused" if refused else "not checked: no model"
        completion = COMPLETION.skipped(reason)
    else:
        completion = completion_check(replies, wanted)
    return [health_check(replies.health, wanted), models, completion]


def health_check(reply: Reply | None, wanted: Wanted) -> Finding:
    """Whether /health answers 200."""
    if reply is not None and reply.status == 200:
        return HEALTH.passed(f"200 in {reply.seconds * 1000:.0f} ms")
    answer = (reply.error or reply.status) if reply else "not requested"
    return HEALTH.failed(
        f"/health on port {wanted.port}: {answer}",
        remedy=f"Read journalctl -u {wanted.unit}; systemctl restart {wanted.unit} if it hangs.",
    )


def models_check(replies: Replies, wanted: Wanted) -> Finding:
    """Whether /v1/models lists the served name."""
    reply, names = replies.models or Reply(0, "", 0.0, "not requested"), replies.names
    if reply.status in (401, 403):
        remedy = "Give the key that the server was started with (dgx_vllm_api_key)."
        return MODELS.failed(f"/v1/models refused the API key ({reply.status})", remedy=remedy)
    model = replies.model(wanted.model)
    if model in names:
        return MODELS.passed(", ".join(names))
    listed = ", ".join(names) or reply.error or f"status {reply.status}, no models"
    return MODELS.failed(
        f"/v1/models lists {listed}" + (f", not {model}" if model and names else ""),
        remedy=f"Check that port {wanted.port} belongs to {wanted.unit} (ss -ltnp); see dgx_vllm_served_model_names.",
    )


def completion_check(replies: Replies, wanted: Wanted) -> Finding:
    """Whether the first route that the server has gives an answer: a token, an embedding, a rank, a transcription."""
    reply, route = replies.answer, replies.route
    if reply is None or route is None:
        known = ", ".join(route.path for route in ROUTES)
        return COMPLETION.warned(
            f"the server has none of the routes that this check knows ({known})",
            remedy="Ask it once as its clients do; that it serves is not proven here.",
        )
    remedy = (
        f"Read journalctl -u {wanted.unit}; if the server hangs, systemctl restart {wanted.unit};"
        " a first request that compiles kernels may need a larger dgx_vllm_completion_timeout."
    )
    where = "" if route is ROUTES[0] else f"{route.path}: "
    if reply.status != 200:
        found = reply.error or f"status {reply.status}: {mask(reply.body, [wanted.api_key])[:200]}"
        return COMPLETION.failed(where + found, remedy=remedy)
    data = reply.json()
    proof = route.proof(data) if isinstance(data, dict) else ""
    if not proof:
        what = "a token" if route is ROUTES[0] else "a result"
        return COMPLETION.failed(f"{where}200 without {what}: {reply.body[:200]}", remedy=remedy)
    return COMPLETION.passed(f"{where}{proof} in {reply.seconds * 1000:.0f} ms")
