"""Route FP8 linear and FP8 MoE layers of an installed vLLM as chosen for the GB10 (capability 12.1).

The package edits two functions of vLLM's source, found by their syntax tree, and adds one small module
to the vllm package that makes the decision when a layer is constructed. Standard library only; runs with
Python 3.10 and newer::

    python3 -m sm121_patch check|apply|status|revert --root DIR     # DIR holds vllm/
"""

PATCH_VERSION = "2"

#: vLLM releases whose layouts this package knows: from the first to any patch release of the last minor.
FIRST_SUPPORTED = (0, 14)
LAST_SUPPORTED = (0, 33)


class PatchError(Exception):
    """One sentence: what is wrong, where, and how to fix it."""
