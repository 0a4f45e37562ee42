"""What each node of a replica runs with, as golden files for 1, 2, 4 and 8 nodes, mixed ports, a ring and Ray.

After a change that is meant: pytest tests/unit/plugins/plugin_utils --update-golden, then look at the difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server import docker, fabric, vllm, watch
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server import replica as topology
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.node import node_server
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.server.shapes import ServerError

from helpers.fleets import Variables, hosts, replica
from helpers.server_inputs import NODE, settings, variables

GOLDEN = Path(__file__).resolve().parent / "golden"


def interfaces(port: int) -> list[dict[str, Any]]:
    """Both interfaces of a port with the names that a DGX Spark gives them."""
    return [
        {"interface": f"{prefix}p1s0f{port}np{port}", "rdma": f"roce{rdma}p1s0f{port}", "rdma_port": 1}
        for prefix, rdma in (("en", ""), ("enP2", "P2"))
    ]


def management(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Addresses of a node whose management network is a VLAN; its parent sorts first and has another one."""
    number = row["host"].removeprefix("spark")
    return {
        "lo": ["127.0.0.1/8"],
        "enP7s7": [f"203.0.113.{number}/24"],
        "enP7s7.20": [f"192.0.2.{number}/24"],
    }


FIRST, SECOND, BOTH = interfaces(0), interfaces(1), interfaces(0) + interfaces(1)
MLX5 = [{"interface": f"eth{number}", "rdma": f"mlx5_{number}", "rdma_port": 1} for number in (0, 2)]
PLAIN = [{"interface": name, "rdma": ""} for name in ("enp1s0f0np0", "enP2p1s0f0np0")]

CASES: dict[str, tuple[Variables, dict[str, list[dict[str, Any]]]]] = {
    "one": (hosts(1), {}),
    "pair": (replica(2), {}),
    "mixed_ports": (replica(2), {"spark2": SECOND}),
    "mlx5_names": (replica(2), {"spark1": MLX5, "spark2": MLX5}),
    "two_cables": (replica(2, fabric_ports=2), {"spark1": BOTH, "spark2": BOTH}),
    "four": (replica(4), {}),
    "ring": (replica(4, fabric_kind="ring"), {f"spark{number}": BOTH for number in range(1, 5)}),
    "eight": (replica(8, tensor_parallel_size=4, pipeline_parallel_size=2), {}),
    "ray": (replica(2, executor="ray"), {}),
    "no_rdma": (replica(2), {"spark1": PLAIN, "spark2": PLAIN}),
}


def rendered(case: str) -> dict[str, Any]:
    fleet, special = CASES[case]
    planned = plan(fleet)
    assert planned["mistakes"] == []
    found = {}
    for host, row in planned["hosts"].items():
        rails = special.get(host, FIRST)
        found[host] = {
            "environment": fabric.environment(row, rails, management(row)),
            "serve": topology.serve_arguments(row) if topology.serves(row) else None,
            "container": fabric.container_arguments(row, rails),
            **({"ray": topology.ray_command(row)} if row["executor"] == "ray" else {}),
        }
    return found


@pytest.mark.parametrize("case", CASES)
def test_nodes_are_the_golden_ones(case: str, request: pytest.FixtureRequest) -> None:
    text = json.dumps(rendered(case), indent=1, sort_keys=True) + "\n"
    file = GOLDEN / f"{case}.json"
    if request.config.getoption("--update-golden"):
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("case", set(CASES) - {"one", "no_rdma"})
def test_both_interfaces_carry_nccl_and_nothing_known_to_be_wrong_is_set(case: str) -> None:
    for host, found in rendered(case).items():
        environment = found["environment"]
        assert len(environment["NCCL_IB_HCA"].split(",")) % 2 == 0, host
        assert not {"NCCL_IB_GID_INDEX", "NCCL_NET_GDR_LEVEL", "VLLM_PORT"} & set(environment)
        assert environment["GLOO_SOCKET_IFNAME"] == environment["NCCL_SOCKET_IFNAME"].removeprefix("=")
        assert "--privileged" not in found["container"]


@pytest.mark.parametrize("case", ["pair", "four", "eight", "ring"])
def test_only_the_head_has_an_api(case: str) -> None:
    headless = ["--headless" in found["serve"] for found in rendered(case).values()]
    assert headless == [False] + [True] * (len(headless) - 1)


def test_with_ray_only_the_head_serves_and_the_dashboard_is_on_the_fabric() -> None:
    found = rendered("ray")
    assert found["spark2"]["serve"] is None
    assert "--dashboard-host=198.51.100.1" in found["spark1"]["ray"]
    assert "--address=198.51.100.1:6379" in found["spark2"]["ray"]


def test_a_node_with_too_few_cabled_interfaces_is_refused() -> None:
    row = plan(replica(2))["hosts"]["spark1"]
    with pytest.raises(ServerError, match="1 cabled interface and 2 planned rails"):
        fabric.environment(row, FIRST[:1], {})


def test_in_a_ring_the_dashboard_is_on_loopback() -> None:
    row = plan(replica(4, fabric_kind="ring", executor="ray"))["hosts"]["spark1"]
    assert "--dashboard-host=127.0.0.1" in topology.ray_arguments(row)
    assert "--node-ip-address=192.0.2.1" in topology.ray_arguments(row)


def test_a_ring_node_without_its_control_address_is_refused() -> None:
    row = plan(replica(4, fabric_kind="ring"))["hosts"]["spark1"]
    with pytest.raises(ServerError, match=r"no interface with its control address 192\.0\.2\.1; write"):
        fabric.environment(row, BOTH, {"enP7s7": ["192.0.2.10/24", "203.0.113.1/24"]})


class Recorded(dict[str, Any]):
    """A dictionary that notes what is read of it."""

    read: set[str]

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.read = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)


def test_the_role_hands_over_just_what_is_read() -> None:
    row = plan(replica(2))["hosts"]["spark1"]
    given, node = Recorded(settings()), Recorded({**NODE, "commit": ""})
    node_server(given, row, FIRST, management(row), node)
    docker.tuner_command(given, node, plan=False)
    assert sorted(given.read) == variables()["__dgx_vllm_server_variables"]
    assert sorted(node.read) == sorted(variables()["__dgx_vllm_server_node"]) == sorted(NODE)


def test_a_node_of_its_own_has_no_watch() -> None:
    row = plan(hosts(1))["hosts"]["spark1"]
    assert node_server(settings(), row, [], {}, NODE)["watch"] == {}


@pytest.mark.parametrize("kind", [str, int])
def test_numbers_may_be_strings(kind: type) -> None:
    """`-e dgx_vllm_max_num_seqs=1` gives a string."""
    row = plan(hosts(1))["hosts"]["spark1"]
    numbers = {
        "port": 8001, "max_model_len": 0, "max_num_seqs": 16, "kv_cache_memory_bytes": 25769803776,
        "container_memlock": -1,
    }  # fmt: skip
    given = settings(**{name: kind(value) for name, value in numbers.items()})
    found = node_server(given, row, [], {}, NODE)
    environment = dict(found["env"])
    assert environment["PORT"] == "8001" and environment["MAX_NUM_SEQS"] == "16"
    assert "MAX_MODEL_LEN" not in environment
    assert found["serve"][-2:] == ["--kv-cache-memory-bytes", "25769803776"]
    assert "--ulimit=memlock=-1:-1" in found["docker"]


def test_the_tuner_is_told_to_plan_without_gpu_and_without_a_folder_to_write_to() -> None:
    planned, measured = (
        docker.tuner_command(settings(), NODE, plan=plan_only) for plan_only in (True, False)
    )
    assert planned[-1] == "--plan" and "--plan" not in measured
    assert set(measured) - set(planned) == {
        "--gpus=all", f"--volume={NODE['cache']}:/cache", f"--volume={NODE['tune_results']}:/results",
    }  # fmt: skip
    assert set(planned) - set(measured) == {"--plan"}


def test_the_operator_may_replace_what_is_only_a_good_default() -> None:
    row = plan(replica(1))["hosts"]["spark1"]
    given = {"MAX_JOBS": "12", "VLLM_NO_USAGE_STATS": "0"}
    found = node_server(settings(extra_env=given), row, [], {}, NODE)["env"]
    assert {name: value for name, value in found if name in given} == given
    assert len({name for name, _ in found}) == len(found)
    assert set(vllm.OVERRIDABLE) <= {name for name, _ in found}


@pytest.mark.parametrize("bad", ["a/b\nPYTHONPATH=/models/x", "a\rb", "a\0b", "a\x1b[31m", "a\u2028b"])
@pytest.mark.parametrize("name", ["commit", "cache"])
def test_what_another_machine_told_cannot_become_a_line_of_its_own(name: str, bad: str) -> None:
    row = plan(hosts(1))["hosts"]["spark1"]
    with pytest.raises(ServerError, match="control character or a line break"):
        node_server(settings(model_revision="main"), row, [], {}, {**NODE, name: bad})


def test_m4_the_watch_talks_to_its_replica_and_its_readers_alone() -> None:
    row = plan(replica(2))["hosts"]["spark1"]
    own, (peer,) = row["address"], row["peer_addresses"].values()
    assert watch.addresses(row, "0.0.0.0", ["192.0.2.0/28"]).splitlines() == [
        "IPAddressDeny=any",
        f"IPAddressAllow=localhost {own} {peer} 127.0.0.1 192.0.2.0/28",
    ]
    assert watch.addresses(row, "[::]", []).endswith(f" {own} {peer} ::1")
    assert watch.addresses(row, own, []).endswith(f"localhost {own} {peer}")


def test_a_name_could_stand_for_any_address() -> None:
    row = plan(replica(2))["hosts"]["spark1"]
    assert watch.addresses(row, "spark1.example.com", []).startswith("# Any address: ")
