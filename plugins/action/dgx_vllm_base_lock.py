"""Action plugin dgx_vllm_base_lock: the digest of a tag, asked and kept on the operator's machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.client import Registry, RegistryError
from ansible_collections.dgx_vllm.spark.plugins.module_utils.registry.reference import parse
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils import image_lock

TIMEOUT_S = 10
CERTIFICATES = Path("/etc/docker/certs.d")


class ActionModule(ActionBase):  # type: ignore[misc]
    """What Ansible loads."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look into the file, else ask the registry."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            return {**result, **lock(self._task.args, bool(self._task.check_mode))}
        except (image_lock.LockError, OSError, ValueError) as error:
            return {**result, "failed": True, "msg": str(error)}


def lock(given: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """The result of the task. Raises LockError, OSError and ValueError (an image that is none)."""
    image, path = str(given["image"]), Path(given["path"])
    known = image_lock.digest(path, image)
    if known and not boolean(given.get("update", False)):
        return {"changed": False, "digest": known, "msg": f"{image} is locked to {known} in {path}."}
    user, password = str(given.get("username") or ""), str(given.get("password") or "")
    try:
        found = Registry(parse(image), user, password, CERTIFICATES, TIMEOUT_S).digest()
    except RegistryError as error:
        so = (
            f"the locked digest {known} is used"
            if known
            else "the nodes build from what that tag means to each"
        )
        warning = f"The digest of {image} is not known, so {so}: {error}"
        return {"changed": False, "digest": known, "msg": warning, "warnings": [warning]}
    result = {"changed": found != known, "digest": found, "msg": f"{image} is locked to {found} in {path}."}
    if found == known or check_mode:
        return result
    try:
        image_lock.write(path, image, found)
    except OSError as error:
        warning = f"{path} cannot be written ({error.strerror}), so {found} is used in this run only."
        return {**result, "changed": False, "msg": warning, "warnings": [warning]}
    return result
