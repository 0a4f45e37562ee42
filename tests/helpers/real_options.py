"""Runs in an image with a real vLLM: the options of its own parser, and the table that was read from its sources."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

if __name__ == "__main__":
    import vllm.platforms
    from vllm.platforms.cpu import CpuPlatform

    vllm.platforms._current_platform = CpuPlatform()
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    modules = ("common", "launchers", "openai")
    place = next(name for name in modules if importlib.util.find_spec(f"vllm.entrypoints.{name}.cli_args"))
    module = importlib.import_module(f"vllm.entrypoints.{place}.cli_args")
    parser = module.make_arg_parser(FlexibleArgumentParser())
    options = []
    for action in parser._actions:
        names = [name for name, other in parser._option_string_actions.items() if other is action]
        if names:
            pair = isinstance(action, argparse.BooleanOptionalAction)
            off = getattr(
                action, "negative_option_strings", {name for name in names if name.startswith("--no-")}
            )
            shown = [f"!{name}" if pair and name in off else name for name in names]
            shown = [name.replace("_", "-") if "--" in name else name for name in shown]
            options.append(
                {"names": sorted(shown), "words": str(1 if action.nargs is None else action.nargs)}
            )
    table = Path("/tmp/table.json").read_text(encoding="utf-8")
    print("RESULT " + json.dumps({"options": options, "table": table}))
