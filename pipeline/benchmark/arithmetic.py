"""Which types of number a CPU computes with by instructions of its own."""

from collections.abc import Mapping

import torch

INSTRUCTIONS = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}  # of x86


def slow_arithmetic(dtype: str, capabilities: Mapping[str, object] | None = None) -> str | None:
    """A line to print where this CPU has no instructions for `dtype`; None where it has, or where nothing is known.

    `capabilities` are torch.cpu.get_capabilities(), or another CPU's.
    """
    found = torch.cpu.get_capabilities() if capabilities is None else capabilities
    names = INSTRUCTIONS.get(dtype, ())
    if not names or found.get("architecture") != "x86_64" or any(found.get(name) for name in names):
        return None
    return (
        f"benchmark.dtype={dtype}: this CPU has neither {names[0]} nor {names[1]}, so products in it are slow; "
        "float32 would be faster here"
    )
