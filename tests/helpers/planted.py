"""Secrets to plant in an inventory, and a search for them in everything that a run leaves or shows."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

USER = "planted-user"
SECRETS = {
    "hf_token": "hf_plantedToken00000000000000000000",
    "registry_password": "planted registry+word/7",
    "api_key": 'planted-"api"-key-$7',
    "aws": "plantedAws/Secret+Key0123456789abcdefgh",
    "proxy": "planted-proxy-word",
    "plain": "planted plain value",
    "download": "planted-download-word",
}
VARIABLES = {
    "dgx_vllm_hf_token": SECRETS["hf_token"],
    "dgx_vllm_registry_username": USER,
    "dgx_vllm_registry_password": SECRETS["registry_password"],
    "dgx_vllm_api_key": SECRETS["api_key"],
    "dgx_vllm_extra_env": {
        "AWS_SECRET_ACCESS_KEY": SECRETS["aws"],
        "HTTPS_PROXY": f"http://{USER}:{SECRETS['proxy']}@192.0.2.1:3128",
        "MY_CREDENTIAL": SECRETS["plain"],
    },
    "dgx_vllm_model_environment": {"HTTPS_PROXY": f"http://{USER}:{SECRETS['download']}@192.0.2.1:3128"},
}


def forms(name: str) -> list[str]:
    """How a secret may be written: as it is, in JSON, in an address, in base64, and as Docker keeps a login."""
    secret = SECRETS[name]
    login = f"{USER}:{secret}"
    encoded = [base64.b64encode(text.encode()).decode().rstrip("=") for text in (secret, login)]
    return [secret, json.dumps(secret)[1:-1], quote(secret, safe=""), *encoded]


def planted_in(text: str) -> set[str]:
    """The names of the secrets that are in a text, in whatever form."""
    return {name for name in SECRETS if any(form in text for form in forms(name))}


def planted_below(*places: Path) -> dict[str, set[str]]:
    """File -> the names of the secrets in it, for the files below the places that have one."""
    files = sorted(
        file for place in places for file in place.rglob("*") if file.is_file() and not file.is_symlink()
    )
    found = {str(file): planted_in(file.read_bytes().decode("utf-8", "replace")) for file in files}
    return {file: names for file, names in found.items() if names}
