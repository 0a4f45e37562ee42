"""Tuned Triton configurations for the MoE layers of a model: which file vLLM will probably look for, and where it is.

    python3 -m moe_config name --json --model DIR_OR_HF_ID --tp N [--ep N] [--device NVIDIA_GB10]

Standard library only; runs with Python 3.10 and newer. Each verb is a module with `add_arguments(parser)` and
`run(options) -> int`, listed in __main__.VERBS.
"""


class ConfigError(Exception):
    """One sentence: what is wrong, where, and how to fix it."""
