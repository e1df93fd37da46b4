"""The two-rank exchange over real sockets, with buffers that hold everything and with buffers far too small."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("buffer_bytes", [16 << 20, 32 << 10])
def test_sums_are_exact_in_any_order_and_beyond_the_kernels_buffers(tmp_path, buffer_bytes):
    command = [sys.executable, "-m", "tests.integration.socket_peer"]
    peers = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), str(buffer_bytes)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for peer in peers:
        out, _ = peer.communicate(timeout=120)
        assert peer.returncode == 0 and "equal" in out, out
        granted = int(out.split("equal")[1])
        assert granted >= 300_000 * 4 or buffer_bytes < 300_000 * 4  # the small case is carried by the helper
