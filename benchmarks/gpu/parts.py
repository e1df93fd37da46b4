"""The parts, in order of worth: what to know first where a GPU is borrowed for half an hour."""

from benchmarks.gpu import marked, overlap, resume, training, ttft
from benchmarks.gpu.part import Part

PARTS: tuple[Part, ...] = (
    training.part("standard_124m", "standard 124M", 6, mfu=0.45),
    training.part("kraken_124m_4way", "kraken 124M, 4 ways", 6, mfu=0.40),
    overlap.part(),
    marked.part(),
    ttft.part(4),
    resume.part(),
    ttft.part(8),
    training.part("parallel_124m", "parallel 124M", 6, mfu=None),
)
