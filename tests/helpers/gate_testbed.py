"""The fabric gate on this machine alone: its real tasks and modules, stand-ins for ping, ib_write_bw and docker.

The modules look for tools in fixed folders and read sysfs under /, whatever a caller's environment says, and neither is
an option. So the tests run a copy of the plugins with these two constants changed, and fail if there is no such line.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan

from helpers.ansible_run import BIN, ROOT, Run, inventory, play
from helpers.fleets import fleet
from helpers.machine import SPARK, Machine, mapped_gid

GBITS = "97.3"
STAND_INS = {
    "ping": """sleep 0.4
echo '3 packets transmitted, 3 received, 0% packet loss'
echo 'rtt min/avg/max/mdev = 0.2/0.3/0.4/0.1 ms'""",
    # A client's last argument is its server's address; a server has none, and its output is not used here.
    "ib_write_bw": """case "${@: -1}" in *.*) sleep 1 ;; *) exit 0 ;; esac
echo ' #bytes #iterations BW peak[Gb/sec] BW average[Gb/sec] MsgRate[Mpps]'
echo " 65536 5000 99.0 $(cat {place}/gbits) 0.18" """,
    # `docker run -i` reads its standard input to the end; Ansible gets an EPIPE if a command ends before that.
    "docker": """echo "$@" >>{place}/docker.log
[ "$1" != run ] || cat >/dev/null
[ "$1" != run ] || echo 'NET/IB : Using [0]rocep1s0f0:1/RoCE [1]roceP2p1s0f0:1/RoCE
# Avg bus bandwidth    : 22.1'""",
}


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old} in {file}"
    file.write_text(text.replace(old, new), encoding="utf-8")


class GateTestbed:
    """Replicas of the given sizes (r0, r1, …; nodes r0n0, …), whose nodes are all this machine."""

    def __init__(self, place: Path, sizes: list[int]) -> None:
        self.place, self.hosts = place, fleet(sizes)
        collection = place / "collections/ansible_collections/dgx_vllm/spark"
        shutil.copytree(ROOT / "plugins", collection / "plugins")
        for name in ("roles", "files", "meta", "galaxy.yml"):
            (collection / name).symlink_to(ROOT / name)
        (place / "bin").mkdir()
        for name, script in STAND_INS.items():
            file = place / "bin" / name
            file.write_text(f"#!/bin/bash\n{script.replace('{place}', str(place))}\n", encoding="utf-8")
            file.chmod(0o755)
        path = f"{place}/bin:/usr/bin:/bin"
        _replace(
            collection / "plugins/module_utils/command.py",
            'SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"',
            f'SEARCH_PATH = "{path}"',
        )
        _replace(collection / "plugins/modules/dgx_vllm_fabric_probe.py", 'Path("/")', f'Path("{place}/all")')
        self.measures(GBITS)
        planned = plan(self.hosts)
        assert planned["mistakes"] == []
        everybody = Machine(place / "all")
        everybody.port(0)
        for number, (host, values) in enumerate(self.hosts.items()):
            machine = Machine(place / host)
            machine.write("dev/infiniband/uverbs0", "")
            addresses = [rail["address"] for rail in planned["hosts"][host]["rails"]]
            for half, address in enumerate(addresses):
                name = machine.half(0, half, address=address)
                mac = f"02:00:00:00:{number:02x}:0{half}"
                (machine.root / "sys/class/net" / name / "address").write_text(mac)
                port = everybody.root / "sys/class/infiniband" / SPARK[0, half][2] / "ports/1"
                (port / f"gids/{number + 20}").write_text(mapped_gid(address))
                (port / f"gid_attrs/types/{number + 20}").write_text("RoCE v2")
            values["facts"] = {"fabric": machine.read(rails=len(addresses))}

    def measures(self, gbits: str) -> None:
        """What every ib_write_bw prints from now on."""
        (self.place / "gbits").write_text(gbits, encoding="utf-8")

    def run(self, **variables: Any) -> Run:
        """The gate, as if the facts of all nodes had just been read; results are kept in reports/."""
        node = {
            "state": {
                "service": {"active_state": "inactive"},
                "image": {"present": True, "id": "sha256:0"},
                "docker": {"version": "29.0"},
            }
        }
        facts = {"__dgx_vllm_fabric_read": "{{ facts }}", "__dgx_vllm_node": node}
        tasks: list[dict[str, Any]] = [{"name": "Facts", "ansible.builtin.set_fact": facts}]
        for name in ("common/validate", "fabric/gate/main"):
            role = {"name": "dgx_vllm.spark.dgx_vllm", "tasks_from": name}
            tasks.append({"name": "Stage", "ansible.builtin.include_role": role})
        playbook = self.place / "play.yml"
        playbook.write_text(
            json.dumps([{"hosts": "dgx_vllm", "gather_facts": False, "tasks": tasks}]), encoding="utf-8"
        )
        given = {
            "ansible_async_dir": str(self.place / "async"),
            "dgx_vllm_model": "org/name",
            "dgx_vllm_report_dir": str(self.place / "reports"),
            "dgx_vllm_fabric_json": str(self.place / "fabric.json"),
            "dgx_vllm_fabric_nccl": False,
            **variables,
        }
        return play(
            playbook,
            inventory(self.place / "inventory", self.hosts, **given),
            home=self.place / "home",
            HOME=str(self.place / "home"),
            ANSIBLE_COLLECTIONS_PATH=f"{self.place}/collections:{ROOT}/.collections",
            PATH=f"{self.place}/bin:{BIN}:{os.environ['PATH']}",
        )

    def findings(self, check: str) -> list[dict[str, str]]:
        """What the last run found in one check."""
        found = json.loads((self.place / "fabric.json").read_text(encoding="utf-8"))["findings"]
        return [one for one in found if one["check"] == check]
