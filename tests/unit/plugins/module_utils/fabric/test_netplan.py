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
from ansible_collections.dgx_vllm.spark.plugins.filter.netplan import netplan_rails
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.netplan import NetplanError
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.addresses import plan_ring, plan_shared

from helpers.machine import SPARK, Machine
from helpers.netplan_text import netplan_text

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
    return netplan_text(names, addresses, ["enP7s7"])


@pytest.mark.parametrize("case", CASES)
def test_text_is_the_golden_one(case: str, request: pytest.FixtureRequest) -> None:
    file = GOLDEN / f"{case}.netplan"
    if request.config.getoption("--update-golden"):
        file.write_text(rendered(case), encoding="utf-8")
    assert file.read_text(encoding="utf-8") == rendered(case)


@pytest.mark.parametrize("case", CASES)
def test_the_role_knows_its_own_file_again(case: str) -> None:
    assert netplan.ours(rendered(case))
    assert rendered(case).splitlines()[0] == netplan.HEADER
    assert netplan.given(rendered(case)) == list(zip(*CASES[case], strict=True))


def test_the_mtu_is_that_of_the_limits() -> None:
    network = yaml.safe_load(netplan_text(NAMES[:2], plan_shared(PREFIX, 0), mtu=4000))["network"]
    assert {one["mtu"] for one in network["ethernets"].values()} == {4000}


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_each_rail_has_its_address_the_mtu_and_nothing_else_to_talk_about(case: str) -> None:
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
    with pytest.raises(NetplanError, match="enP7s7 carries the management network and cannot be a rail"):
        netplan_text(["enP7s7"], ["198.51.100.1/26"], ["enP7s7"])


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 interface of cabled ports .* and 2 planned"), (0, r"\(none\)")]
)
def test_missing_interfaces_are_refused(count: int, text: str) -> None:
    with pytest.raises(NetplanError, match=text):
        netplan_text(NAMES[:count], plan_shared(PREFIX, 0))


def test_a_rail_named_twice_is_refused() -> None:
    with pytest.raises(NetplanError, match="named twice"):
        netplan_text(["a", "a"], plan_shared(PREFIX, 0))


def test_the_filter_refuses_with_the_same_sentence() -> None:
    with pytest.raises(AnsibleFilterError, match="named twice"):
        facts = {"rails": [{"interface": "a"}] * 2, "management": []}
        netplan_rails(facts, {"rails": [{"address": address} for address in plan_shared(PREFIX, 0)]})


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


@pytest.mark.parametrize("case", CASES)
def test_networkmanager_is_told_in_its_own_words(case: str) -> None:
    """S9: its backend ignores the keys for link-local addresses, and takes ipv6.method by passthrough."""
    names, addresses = CASES[case]
    text = netplan_text(names, addresses, ["enP7s7"], renderer="NetworkManager")
    for one in yaml.safe_load(text)["network"]["ethernets"].values():
        assert one["renderer"] == "NetworkManager"
        assert one["networkmanager"] == {"passthrough": {"ipv6.method": "disabled"}}
        assert not {"link-local", "accept-ra", "optional"} & set(one)
        assert (one["mtu"], one["dhcp4"]) == (9000, False)
    assert netplan.given(text) == list(zip(names, addresses, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_netplan_itself_turns_that_into_a_connection_without_ipv6(case: str, tmp_path: Path) -> None:
    generator = _generator()
    if not generator:
        pytest.skip("netplan.io is not installed")
    names, addresses = CASES[case]
    file = tmp_path / netplan.PATH.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text(netplan_text(names, addresses, renderer="NetworkManager"), encoding="utf-8")
    file.chmod(int(netplan.MODE, 8))
    subprocess.run([generator, "--root-dir", str(tmp_path)], check=True, timeout=30)
    for name, address in zip(names, addresses, strict=True):
        folder = tmp_path / "run/NetworkManager/system-connections"
        text = (folder / f"netplan-{name}.nmconnection").read_text(encoding="utf-8")
        assert f"address1={address}" in text
        assert "method=disabled" in text.partition("[ipv6]")[2]


DESKTOP = "# Let NetworkManager manage all\nnetwork:\n  version: 2\n  renderer: NetworkManager\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "networkd"),
        ({"etc/netplan/01-all.yaml": DESKTOP}, "NetworkManager"),
        ({"lib/netplan/01-all.yaml": DESKTOP}, "NetworkManager"),
        ({"lib/netplan/01-all.yaml": DESKTOP, "etc/netplan/01-all.yaml": "network: {version: 2}\n"}, "networkd"),
        ({"etc/netplan/01-all.yaml": "network: {version: 2, renderer: NetworkManager}\n"}, "NetworkManager"),
        ({"etc/netplan/01-all.yaml": DESKTOP, "etc/netplan/50.yaml": "network:\n renderer: networkd\n"}, "networkd"),
        ({"etc/netplan/90-NM-1.yaml": "network:\n  ethernets:\n    a:\n      renderer: NetworkManager\n"}, "networkd"),
    ],
)  # fmt: skip
def test_the_renderer_is_what_the_last_file_says_for_all(
    files: dict[str, str], expected: str, spark: Machine
) -> None:
    for path, text in files.items():
        spark.write(path, text)
    assert spark.read()["renderer"] == expected


def by_networkmanager(match: str) -> str:
    """As NetworkManager writes a connection that somebody made in the settings of a desktop."""
    return (
        "network:\n  version: 2\n  ethernets:\n    NM-0f7a33ac:\n      renderer: NetworkManager\n"
        f"      match:{match}\n      addresses:\n      - \"192.168.100.10/24\"\n"
        "      nameservers:\n        addresses:\n        - 192.0.2.53\n"
        "      routes:\n      - to: \"100.78.1.7/32\"\n        via: \"192.168.100.1\"\n"
        "      networkmanager:\n        uuid: \"0f7a33ac\"\n        name: \"Wired connection 2\"\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ('\n        name: "enp1s0f0np0"', ["enp1s0f0np0"]),
        ('\n        name: "enp1s0f0np0"\n        macaddress: "02:00:00:00:09:09"', []),
        ('\n        macaddress: "02:00:00:00:00:01"', ["enP2p1s0f0np0"]),
        (' {name: "en*f0np0"}', ["enP2p1s0f0np0", "enp1s0f0np0"]),
        ('\n        name: "enP7s7"', []),
        (" {}", []),
    ],
)
def test_files_that_match_a_rail_by_name_pattern_or_mac_are_found(
    match: str, found: list[str], spark: Machine
) -> None:
    """S8: a connection of a desktop has an id of its own and a match."""
    spark.port(0)
    spark.write("etc/netplan/90-NM-0f7a33ac.yaml", by_networkmanager(match))
    file = {
        "file": "/etc/netplan/90-NM-0f7a33ac.yaml",
        "interfaces": found,
        "addresses": ["192.168.100.10/24"],
    }
    assert spark.read()["netplan_elsewhere"] == ([file] if found else [])


@pytest.mark.parametrize(
    ("body", "addresses"),
    [
        ("mtu: 9000", []),
        ("dhcp4: true", ["dhcp4"]),
        ("dhcp4: no", []),
        ("addresses: [10.0.0.1/24, 'fd00::1/64']", ["10.0.0.1/24"]),
        ("link-local: [ ipv4 ]", []),
    ],
)
def test_what_a_file_of_others_adds(body: str, addresses: list[str], spark: Machine) -> None:
    spark.port(0)
    spark.write("etc/netplan/50-x.yaml", f"network:\n  ethernets:\n    enp1s0f0np0:\n      {body}\n")
    (found,) = spark.read()["netplan_elsewhere"]
    assert found["addresses"] == addresses
