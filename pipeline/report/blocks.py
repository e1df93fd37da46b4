"""Blocks of README and docs that are made of committed results: `python -m benchmarks.docs_tables` writes them.

A block stands between `<!-- NAME -->` and `<!-- end of NAME -->`; a test fails where a page says something else.
"""

import re
from pathlib import Path

from pipeline.report import same_tokens_blocks, ttft_blocks

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
PAGES = ("README.md", "docs/same_tokens.md", "docs/ttft.md")
BLOCK = re.compile(r"<!-- ([^>]+?) -->\n.*?<!-- end of \1 -->", re.DOTALL)


def blocks() -> dict[str, str]:
    """Every block's text by its name; raises ResultError for a damaged file."""
    return {**same_tokens_blocks.blocks(REFERENCE), **ttft_blocks.blocks(REFERENCE)}


def written(page: str) -> str:
    """A page's text with its blocks filled anew; raises KeyError for a block that nothing makes."""
    made = blocks()

    def fill(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{made[found[1]]}\n<!-- end of {found[1]} -->"

    return BLOCK.sub(fill, (ROOT / page).read_text(encoding="utf-8"))
