"""The demo corpus: documentation inside installed packages, read with `ast`, never imported.

The same bytes wherever the same package versions are installed; nothing is downloaded.
"""

import ast
import hashlib
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module, metadata, util
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from pipeline.config.data import DataConfig
from pipeline.data.corpus import Document, HashedSplit
from pipeline.errors import DataError, RunError
from pipeline.provenance import fingerprint

WHOLE_BYTES = 50_000_000  # more than a whole environment has
MIN_BYTES = 200  # shorter files hold little but boilerplate


class DemoCorpus(HashedSplit):
    """One document per source file (its docstrings in order) and per topic of CPython's pydoc.

    `max_bytes` is shared evenly between the packages after the topics; a package is read no
    further than its share. Raises DataError for a package that is not installed.
    """

    def __init__(self, config: DataConfig, workers: int = 1) -> None:
        super().__init__(config)
        if not config.source:
            raise DataError("data.source=[]: the demo corpus needs names of installed packages, as [numpy, scipy]")
        self._roots = [package_root(name) for name in config.source]
        self._max_bytes = config.max_bytes
        self._workers = min(workers, len(self._roots))
        self._texts: list[str] = []

    @property
    def signature(self) -> str:
        names = [root.name for root in self._roots]
        return fingerprint("demo", [(name, package_version(name)) for name in names])

    @property
    def total_bytes(self) -> int:
        return sum(len(text.encode()) for text in self._read())

    @property
    def text_bytes(self) -> int:
        return self._max_bytes or WHOLE_BYTES

    def documents(self, start: int = 0) -> Iterator[Document]:
        for text in islice(self._read(), start, None):
            yield Document(text, len(text.encode()))

    def _read(self) -> list[str]:
        """All texts, read once; they fit in memory."""
        if not self._texts:
            self._texts = topics(self._max_bytes)
            left = self._max_bytes - sum(len(text.encode()) for text in self._texts)
            if self._max_bytes == 0 or left > 0:
                share = left // len(self._roots) if self._max_bytes else 0
                shares = [share] * len(self._roots)
                if self._workers > 1:
                    try:
                        with ProcessPoolExecutor(self._workers, get_context("spawn")) as pool:
                            parts = list(pool.map(package_texts, self._roots, shares))
                    except BrokenProcessPool as error:  # killed, most often for memory
                        raise RunError(f"a process that reads packages died ({error}); run again") from error
                else:
                    parts = list(map(package_texts, self._roots, shares))
                self._texts += [text for part in parts for text in part]
        return self._texts


def package_root(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    found = util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise DataError(f"data.source: no installed package {name!r}; name packages as they are imported, as sklearn")
    return Path(next(iter(found.submodule_search_locations)))


def package_version(name: str) -> str:
    distributions = metadata.packages_distributions().get(name, [])
    return metadata.version(distributions[0]) if distributions else "unknown"


def topics(max_bytes: int) -> list[str]:
    """CPython's help topics in order of their names, within `max_bytes` (0: all)."""
    table: dict[str, str] = import_module("pydoc_data.topics").topics
    texts, used = [], 0
    for name in sorted(table):
        used += len(table[name].encode())
        if max_bytes and used > max_bytes:
            break
        texts.append(table[name].strip())
    return texts


def package_texts(root: Path, max_bytes: int) -> list[str]:
    """Docstrings file by file within `max_bytes` (0: all); a docstring seen before is left out.

    Files come in the order of their paths' hashes, so that a part is spread over the package.
    """
    texts: list[str] = []
    seen: set[str] = set()
    used = 0
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.py")]
    for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if "tests" in Path(name).parts:
            continue
        fresh = [text for text in dict.fromkeys(docstrings(root / name)) if text not in seen]
        seen.update(fresh)
        text = "\n\n".join(fresh)
        size = len(text.encode())
        if size < MIN_BYTES:
            continue
        if max_bytes and used + size > max_bytes:
            break
        used += size
        texts.append(text)
    return texts


def docstrings(path: Path) -> list[str]:
    """Docstrings of a source file in the order of `ast.walk`; none where it does not parse."""
    try:
        source = path.read_bytes()
        if b'"""' not in source:  # spares parsing half of the files
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return [text.encode("utf-8", "replace").decode().strip() for text in found if text]
