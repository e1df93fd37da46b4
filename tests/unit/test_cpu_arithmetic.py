"""A CPU without instructions for a type of number is told of, never refused."""

import pytest

from pipeline.benchmark.arithmetic import slow_arithmetic


def cpu(*flags: str, architecture: str = "x86_64") -> dict[str, object]:
    return {"architecture": architecture, "avx512_f": True, "avx512_bf16": False} | dict.fromkeys(flags, True)


@pytest.mark.parametrize(
    ("dtype", "found", "slow"),
    [
        ("float32", cpu(), False),
        ("bfloat16", cpu(), True),
        ("bfloat16", cpu("avx512_bf16"), False),
        ("bfloat16", cpu("amx_bf16"), False),
        ("float16", cpu("amx_bf16"), True),
        ("float16", cpu("avx512_fp16"), False),
        ("bfloat16", cpu(architecture="aarch64"), False),
    ],
)
def test_what_is_slow_is_said(dtype, found, slow):
    line = slow_arithmetic(dtype, found)
    assert (line is not None) == slow
    assert line is None or line.startswith(f"benchmark.dtype={dtype}: this CPU has neither")


def test_this_cpu_is_asked():
    assert slow_arithmetic("float32") is None
    assert slow_arithmetic("bfloat16") in (None, slow_arithmetic("bfloat16", cpu()))
