"""The tables and figures of README and docs, made of the committed results in results/reference/.

python -m benchmarks.docs_tables             # write them
python -m benchmarks.docs_tables --check     # exit code 1 where a page says something else
"""

import argparse
import sys

from pipeline import files
from pipeline.errors import ResultError
from pipeline.report import figures_of_docs
from pipeline.report.blocks import BLOCK, PAGES, ROOT, blocks, written


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; name what differs")
    check = parser.parse_args(arguments).check
    try:
        pages, made = {page: written(page) for page in PAGES}, set(blocks())
    except ResultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not check:
        for page, text in pages.items():
            files.write_text(ROOT / page, text)
        for path in figures_of_docs.draw():
            print(f"drew {path.relative_to(ROOT)}")
        return 0
    odd = [fault for page, text in pages.items() for fault in differences(page, text)] + figures_of_docs.stale()
    shown = {name for text in pages.values() for name in BLOCK.findall(text)}
    odd += [f"no page shows the block {name!r}" for name in sorted(made - shown)]
    for fault in odd:
        print(f"{fault}; python -m benchmarks.docs_tables writes it anew", file=sys.stderr)
    if not odd:
        print(f"{len(shown)} tables of {len(PAGES)} pages equal the committed results")
    return 1 if odd else 0


def differences(page: str, wanted: str) -> list[str]:
    """The blocks of a page that are not as `wanted`, a line each."""
    stands = (ROOT / page).read_text(encoding="utf-8")
    pairs = zip(BLOCK.finditer(stands), BLOCK.finditer(wanted), strict=True)
    return [f"{page}: the block {old[1]!r} differs from the results" for old, new in pairs if old[0] != new[0]]


if __name__ == "__main__":
    raise SystemExit(main())
