"""Command line: python3 -m moe_config VERB …; exit 0 on success, 2 and one sentence on stderr when refused."""

from __future__ import annotations

import argparse
import sys

from . import ConfigError, doctor, name, tune

VERBS = {"doctor": doctor, "name": name, "tune": tune}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit status."""
    parser = argparse.ArgumentParser(
        prog="moe_config", description="Tuned Triton configurations of MoE models."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, module in VERBS.items():
        module.add_arguments(verbs.add_parser(verb, help=(module.__doc__ or "").splitlines()[0]))
    options = parser.parse_args(argv)
    try:
        status: int = VERBS[options.verb].run(options)
    except ConfigError as error:
        print(f"moe_config: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
