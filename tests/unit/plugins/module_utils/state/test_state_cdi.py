"""S6: which CDI specification counts, and whether it and the libraries fit the driver that is loaded."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state import cdi

from helpers.start import DRIVER, LIBRARY, NVRM, specification


def test_only_a_specification_of_the_gpu_counts(tmp_path, write):
    assert cdi.specifications(tmp_path) == []
    write("/etc/cdi/other.yaml", specification(kind="example.com/nic"))
    write("/etc/cdi/notes.txt", specification())
    write("/etc/cdi/empty.json", "")
    assert cdi.specifications(tmp_path) == []
    write("/var/run/cdi/nvidia.json", '{"kind": "nvidia.com/gpu", "devices": []}')
    assert cdi.specifications(tmp_path) == [{"path": "/var/run/cdi/nvidia.json", "drivers": [], "gone": []}]


def test_a_specification_of_a_driver_that_is_gone(tmp_path, write):
    write("/etc/cdi/nvidia.yaml", specification())
    library = LIBRARY.format(DRIVER)
    (found,) = cdi.specifications(tmp_path)
    assert found == {"path": "/etc/cdi/nvidia.yaml", "drivers": [DRIVER], "gone": [library]}
    write(library, "")
    assert cdi.specifications(tmp_path)[0]["gone"] == []


def test_a_toolkit_that_refreshes_by_itself(tmp_path, write):
    assert not cdi.refreshes(tmp_path)
    write("/usr/lib/systemd/system/nvidia-cdi-refresh.service", "")
    assert cdi.refreshes(tmp_path)


@pytest.mark.parametrize(("installed", "pending"), [(DRIVER, False), ("580.126.09", True)])
def test_an_update_of_the_driver_asks_for_a_reboot(installed, pending, tmp_path, write):
    write("/proc/driver/nvidia/version", NVRM.format(DRIVER))
    link = write(LIBRARY.format(installed), "").with_name("libcuda.so.1")
    link.symlink_to(f"libcuda.so.{installed}")
    assert cdi.driver(tmp_path) == {"loaded": DRIVER, "installed": installed}
    assert cdi.reboot_pending(cdi.driver(tmp_path)) is pending


def test_an_unknown_driver_asks_for_nothing(tmp_path):
    assert cdi.driver(tmp_path) == {"loaded": None, "installed": None}
    assert not cdi.reboot_pending(cdi.driver(tmp_path))
