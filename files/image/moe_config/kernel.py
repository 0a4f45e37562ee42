"""Compile vLLM's own fused_moe_kernel with Triton for a GPU that need not be present; no torch, no vLLM import.

The kernel's text is extracted from vLLM's fused_moe.py and loaded as a separate module, so that what is checked is what
the server will run, and nothing else of vLLM needs to be importable.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import ConfigError
from .space import Config, Shape

KERNEL = "fused_moe_kernel"
_HELPERS = ("write_zeros_to_output",)
SOURCE = Path("model_executor/layers/fused_moe/fused_moe.py")
_HEADER = "import triton\nimport triton.language as tl\n\n"
_NATIVE_FP8 = re.compile(
    r"\b(?:mma\.sync|wgmma\.mma_async)\S*\.(?:e4m3|e5m2)\.(?:e4m3|e5m2)|\bmma\.\S*e4m3\S*e4m3"
)
_HALF_MMA = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async)\S*\.(?:f16|bf16)\.(?:f16|bf16)\b")


@dataclass(frozen=True)
class Compiled:
    """What the compiler reports for one entry; shared memory in bytes per block, spills in bytes per thread."""

    shared: int
    registers: int
    spills: int
    native_fp8: bool
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For a cache file."""
        return asdict(self)


def kernel_text(fused_moe: str, where: str = "fused_moe.py") -> str:
    """The kernel and its helper as Python source; ConfigError if this vLLM has no such kernel."""
    try:
        tree = ast.parse(fused_moe)
    except SyntaxError as error:
        raise ConfigError(f"{where} is not Python ({error}): install vLLM again.") from None
    parts = {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in (*_HELPERS, KERNEL)
    }
    if KERNEL not in parts:
        raise ConfigError(f"{where} has no {KERNEL}: this vLLM keeps its MoE kernel elsewhere, use another.")
    return _HEADER + "\n\n\n".join(ast.unparse(node) for node in parts.values()) + "\n"


def parameters(text: str) -> dict[str, bool]:
    """The kernel's parameters in order, and whether each is a compile-time constant."""
    (kernel,) = (n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == KERNEL)
    return {
        arg.arg: arg.annotation is not None and "constexpr" in ast.unparse(arg.annotation)
        for arg in kernel.args.args
    }


def find_source(root: Path | None) -> Path:
    """fused_moe.py of the vLLM under `root` (the directory that holds vllm/), or of the installed one."""
    places = [root / "vllm"] if root else [Path("/app/vllm/vllm")]
    if root is None:
        spec = importlib.util.find_spec("vllm")
        places += [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    for place in places:
        if (place / SOURCE).is_file():
            return place / SOURCE
    raise ConfigError(
        f"No vLLM under {', '.join(map(str, places))}: run this in the image, or give --root DIR that holds vllm/."
    )


def cache_key(text: str, shape: Shape, config: Config, capability: int, triton_version: str) -> str:
    """Digest of everything that the compiler's report depends on."""
    what = "\0".join((text, repr(shape), repr(config), str(capability), triton_version))
    return hashlib.sha256(what.encode()).hexdigest()[:32]


def triton_version() -> str:
    """The installed Triton; ConfigError if there is none."""
    try:
        import triton
    except ImportError as error:
        raise ConfigError(f"Triton cannot be imported ({error}): pip install 'triton>=3.8'.") from None
    return str(triton.__version__)


def _arguments(
    text: str, shape: Shape, config: Config, capability: int
) -> tuple[dict[str, str], dict[str, Any], set[str]]:
    """(signature, constants, names divisible by 16), as vLLM launches the kernel for the first of the two GEMMs."""
    import triton.language as tl

    fp8 = shape.dtype != "bf16"
    channel, block = shape.dtype == "fp8-channel", shape.block
    element = "*fp8e4nv" if fp8 else "*bf16"
    pointers = {
        "a_ptr": element,
        "b_ptr": element,
        "c_ptr": "*bf16",
        "a_scale_ptr": "*fp32" if fp8 else None,
        "b_scale_ptr": "*fp32" if fp8 else None,
        "b_bias_ptr": None,
        "topk_weights_ptr": "*fp32",
        "sorted_token_ids_ptr": "*i32",
        "expert_ids_ptr": "*i32",
        "num_tokens_post_padded_ptr": "*i32",
    }
    constants: dict[str, Any] = {
        **config.as_kernel(),
        "SPLIT_K": 1,
        "MUL_ROUTED_WEIGHT": False,
        "top_k": shape.topk,
        "compute_type": tl.bfloat16,
        "use_fp8_w8a8": fp8,
        "use_int8_w8a8": False,
        "use_int8_w8a16": False,
        "use_int4_w4a16": False,
        "per_channel_quant": channel,
        "HAS_BIAS": False,
        "SWAP_AB": fp8 and capability == 90 and config.block_m < 64 and config.block_n >= 64,
        "USE_TD": False,
        "naive_block_assignment": False,
        "group_n": block[0] if block else 0,
        "group_k": block[1] if block else 0,
        "stride_ak": 1,
        "stride_bk": 1,
        "stride_cn": 1,
    }
    if block:
        constants["BLOCK_SIZE_K"] = min(config.block_k, *block)
    # vLLM passes 0 if a scale has no such dimension and 1 for the innermost one; Triton makes 1 a constant.
    constants.update({"stride_asm": 1, "stride_bsn": 1} if not block else {"stride_ask": 1, "stride_bsk": 1})
    loose = {"num_valid_tokens", "stride_ask", "stride_bse", "stride_bsn", "stride_asm", "stride_bsk"}
    signature: dict[str, str] = {}
    known: dict[str, Any] = {}
    divisible: set[str] = set()
    for name, is_constant in parameters(text).items():
        if name in constants:
            signature[name], known[name] = "constexpr", constants[name]
        elif is_constant:
            raise ConfigError(
                f"{KERNEL} has a constant {name} that this doctor does not know: update moe_config."
            )
        elif name in pointers:
            kind = pointers[name]
            signature[name] = kind or "constexpr"
            if kind is None:
                known[name] = None
            else:
                divisible.add(name)
        else:
            signature[name] = "i32"
            if name not in loose:
                divisible.add(name)
    return signature, known, divisible


def _registers(assembler: str, ptx: str, capability: int) -> tuple[int, int]:
    """(registers per thread, spilled bytes per thread) as ptxas reports them."""
    suffix = "a" if capability >= 90 else ""
    with tempfile.TemporaryDirectory(prefix="moe-doctor-") as work:
        source = Path(work) / "kernel.ptx"
        source.write_text(ptx, encoding="utf-8")
        done = subprocess.run(
            [
                assembler,
                "-v",
                f"--gpu-name=sm_{capability}{suffix}",
                str(source),
                "-o",
                str(Path(work) / "o"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise ConfigError(f"ptxas refuses the kernel for sm_{capability}: {done.stderr.strip()[:200]}")
    used = re.search(r"Used (\d+) registers", done.stderr)
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", done.stderr)]
    return int(used.group(1)) if used else 0, sum(spilled)


def compile_entry(text: str, shape: Shape, config: Config, capability: int = 121) -> Compiled:
    """Compile one entry of a configuration; `error` is set if the compiler refuses it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    with tempfile.TemporaryDirectory(prefix="moe-doctor-") as work:
        module = _load(text, Path(work))
        signature, known, divisible = _arguments(text, shape, config, capability)
        names = list(signature)
        source = ASTSource(
            fn=getattr(module, KERNEL),
            signature=signature,
            constexprs={(names.index(name),): value for name, value in known.items()},
            attrs={(names.index(name),): [["tt.divisibility", 16]] for name in divisible},
        )
        try:
            made = triton.compile(
                source,
                target=GPUTarget("cuda", capability, 32),
                options={"num_warps": config.num_warps, "num_stages": config.num_stages},
            )
        except Exception as error:
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            return Compiled(0, 0, 0, False, last[:200])
        ptx = made.asm["ptx"]
        from triton.backends.nvidia import compiler as nvidia

        registers, spills = _registers(_assembler(nvidia, capability), ptx, capability)
        return Compiled(int(made.metadata.shared), registers, spills, is_native_fp8(ptx))


def is_native_fp8(ptx: str) -> bool:
    """Whether the products are FP8 matrix instructions; without them FP8 is widened to 16 bits first."""
    return bool(_NATIVE_FP8.search(ptx)) and not _HALF_MMA.search(ptx)


def _assembler(backend: Any, capability: int) -> str:
    found = backend.get_ptxas(capability) if backend.get_ptxas.__code__.co_argcount else backend.get_ptxas()
    path = getattr(found, "path", found)
    return str(path[0] if isinstance(path, tuple) else path)


def _load(text: str, work: Path) -> Any:
    """Import the kernel from a file: Triton reads a function's source from where it was defined."""
    path = work / "moe_kernel.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("moe_kernel", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
