"""The netplan file: its text, what YAML makes of it, and what netplan itself makes of it where it is installed.

After a change that is meant: pytest tests/unit --update-golden, then look at the difference.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.filter.fabric import FilterModule
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.addresses import plan_ring, plan_shared

from helpers.machine import SPARK

GOLDEN = Path(__file__).resolve().parent / "golden"
PREFIX = "198.51.100.0/24"
NAMES = [SPARK[key][1] for key in ((0, 0), (0, 1), (1, 0), (1, 1))]
CASES: dict[str, tuple[list[str], list[str]]] = {
    "pair": (NAMES[:2], plan_shared(PREFIX, 0)),
    "port_1": (NAMES[2:], plan_shared(PREFIX, 1)),
    "switch_two_cables": (NAMES, plan_shared(PREFIX, 7, ports=2)),
    "ring": (NAMES, plan_ring(PREFIX, 3, 4)),
}
GENERATORS = ("/usr/libexec/netplan/generate", "/usr/lib/netplan/generate", "/lib/netplan/generate")


def rendered(case: str) -> str:
    names, addresses = CASES[case]
    return netplan.render([{"interface": name} for name in names], addresses, ["enP7s7"])


@pytest.mark.parametrize("case", CASES)
def test_text_is_the_golden_one(case: str, request: pytest.FixtureRequest) -> None:
    file = GOLDEN / f"{case}.netplan"
    if request.config.getoption("--update-golden"):
        file.write_text(rendered(case), encoding="utf-8")
    assert file.read_text(encoding="utf-8") == rendered(case)


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_each_half_has_its_address_the_mtu_and_nothing_else_to_talk_about(case: str) -> None:
    network = yaml.safe_load(rendered(case))["network"]
    names, addresses = CASES[case]
    assert set(network) == {"version", "ethernets"}
    assert [(name, one["addresses"]) for name, one in network["ethernets"].items()] == [
        (name, [address]) for name, address in zip(names, addresses, strict=True)
    ]
    for one in network["ethernets"].values():
        assert (one["mtu"], one["link-local"], one["dhcp4"], one["dhcp6"]) == (9000, [], False, False)
        assert not {"gateway4", "routes", "nameservers"} & set(one)


def test_the_management_interface_is_refused() -> None:
    with pytest.raises(
        netplan.NetplanError, match="enP7s7 carries the management network and cannot be a rail"
    ):
        netplan.render([{"interface": "enP7s7"}], ["198.51.100.1/26"], ["enP7s7"])


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 interface of cabled ports .* and 2 planned"), (0, r"\(none\)")]
)
def test_missing_interfaces_are_refused(count: int, text: str) -> None:
    with pytest.raises(netplan.NetplanError, match=text):
        netplan.render([{"interface": name} for name in NAMES[:count]], plan_shared(PREFIX, 0))


def test_a_rail_named_twice_is_refused() -> None:
    with pytest.raises(netplan.NetplanError, match="named twice"):
        netplan.render([{"interface": "a"}, {"interface": "a"}], plan_shared(PREFIX, 0))


def test_the_filter_refuses_with_the_same_sentence() -> None:
    with pytest.raises(AnsibleFilterError, match="named twice"):
        FilterModule().filters()["fabric_netplan"]([{"interface": "a"}] * 2, plan_shared(PREFIX, 0))


def _generator() -> str:
    """netplan's generator; DGX_VLLM_NETPLAN_GENERATE names one that lies elsewhere."""
    places = (os.environ.get("DGX_VLLM_NETPLAN_GENERATE", ""), *GENERATORS)
    return next((place for place in places if place and shutil.which(place)), "")


@pytest.mark.parametrize("case", CASES)
def test_netplan_itself_reads_it(case: str, tmp_path: Path) -> None:
    generator = _generator()
    if not generator:
        pytest.skip("netplan.io is not installed")
    file = tmp_path / netplan.PATH.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text(rendered(case), encoding="utf-8")
    file.chmod(int(netplan.MODE, 8))
    done = subprocess.run(
        [generator, "--root-dir", str(tmp_path)], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    names, addresses = CASES[case]
    for name, address in zip(names, addresses, strict=True):
        (unit,) = (tmp_path / "run/systemd/network").glob(f"*-{name}.network")
        text = unit.read_text(encoding="utf-8")
        assert f"Address={address}" in text
        assert "LinkLocalAddressing=no" in text
        assert "MTUBytes=9000" in text
        assert "RequiredForOnline=no" in text
        assert "Gateway" not in text
