"""What happens to a deployed node from outside, and what repairs it: the next run, or systemd."""

from __future__ import annotations

from testlib.node import CONTAINER, UNIT, Node, wait_until
from testlib.runs import Operator

FILE = f"/etc/systemd/system/{UNIT}"
ENVIRONMENT = "/etc/dgx-vllm/current/vllm.env"


def test_server_that_is_killed_comes_back(node: Node) -> None:
    before, restarts = node.property("InvocationID"), int(node.property("NRestarts"))
    node.sh("docker kill dgx-vllm")
    wait_until(lambda: int(node.property("NRestarts")) > restarts, "systemd restarts the server")
    node.wait_for("curl -sf http://127.0.0.1:8000/health")
    assert node.property("InvocationID") != before
    assert node.completes()


def test_server_whose_engine_dies_comes_back(operator: Operator, node: Node) -> None:
    """With an engine process of its own, as on a GPU: vLLM then ends as if nothing had happened."""
    operator.succeed(extra_env={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"})
    expected, before = completion(node), node.property("InvocationID")
    assert expected
    node.sh(f"docker top {CONTAINER} -eo pid,args | awk '/VLLM::EngineCore/ {{print $1}}' | xargs kill -9")
    wait_until(lambda: node.property("InvocationID") != before, "systemd restarts the server")
    node.wait_for("curl -sf http://127.0.0.1:8000/health")
    assert completion(node) == expected
    ended = node.sh(f"journalctl --no-pager -o cat -u {UNIT} INVOCATION_ID={before}")
    assert "Failed with result" not in ended, "the container ended with an error: another drill has that"
    operator.succeed()


def completion(node: Node) -> str:
    """The text of a completion at temperature 0; "" without one."""
    body = {"model": "testbed/tiny-moe-fp8", "prompt": "Say something.", "max_tokens": 4, "temperature": 0}
    status, answer = node.request("/v1/completions", body)
    return str(answer["choices"][0]["text"]) if status == 200 else ""


def test_files_changed_by_hand_are_restored(operator: Operator, node: Node) -> None:
    before = [node.host.file(path).sha256sum for path in (FILE, ENVIRONMENT)]
    node.sh(f"sed -i 's/^RestartSec=.*/RestartSec=1/' {FILE}")
    node.sh(f"echo MAX_NUM_SEQS=1 >> {ENVIRONMENT}; chmod 0644 {ENVIRONMENT}")
    run = operator.succeed()
    assert run.counts["changed"] > 0
    assert [node.host.file(path).sha256sum for path in (FILE, ENVIRONMENT)] == before
    file = node.file(ENVIRONMENT)
    assert (file.mode, file.user, file.group) == (0o600, "root", "root")
    assert node.property("NeedDaemonReload") == "no"
    assert node.completes()


def test_restarts_are_bounded(operator: Operator, node: Node) -> None:
    """Without a rollback (given as a string, as -e does) a model that cannot load ends in `failed`, not in a loop."""
    good = node.current
    run = operator.fail(
        given={"dgx_vllm_rollback_on_failure": "false"},
        model="testbed/unloadable",
        restart_delay=1,
        restart_limit=1,
    )
    assert "This vLLM does not know the model's architecture" in run.message
    assert "back in service" not in run.message
    wait_until(lambda: node.property("ActiveState") == "failed", "the unit has failed")
    assert int(node.property("NRestarts")) <= 2
    assert "Start request repeated too quickly" in node.sh(f"journalctl --no-pager -n 50 -u {UNIT}")
    assert node.current == good


def test_corrected_run_repairs_a_unit_that_gave_up(operator: Operator, node: Node) -> None:
    operator.succeed()
    assert node.property("ActiveState") == "active"
    assert node.completes()
