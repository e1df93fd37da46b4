"""The code a stage runs, found by reading it: which files, and a digest of what they say.

Imports are followed wherever they stand, and so are strings that name a module of the pipeline, since rank processes
are started by name. What only type checkers read is not followed.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("pipeline", "stages")
IGNORED = {"__pycache__"}
AHEAD = ("check", "notes", "plan", "finish", "outdated")  # functions of a stage script that stand around its work


def closure(starts: Iterable[Path], root: Path = ROOT, loaded: bool = False) -> frozenset[Path]:
    """Every file that the code in `starts` uses, data files beside it included.

    A name imported from a package that only hands it on counts as imported from where it is defined, and a package
    that finds its modules by itself (architectures) counts as used without them: name the wanted ones in `starts`.
    `loaded=True` finds all that Python loads instead, whole packages and all their modules.
    """
    found: set[Path] = set()
    todo = [Path(start) for start in starts]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for name in _used(path, root, loaded):
            todo += _files_of(name, root, loaded)
    folders = {path.parent for path in found}
    return frozenset(found | {path for owner, path in _data_files(root) if owner in folders})


def digests(paths: Iterable[Path], root: Path = ROOT) -> dict[str, str]:
    """8 hex digits a room ("pipeline/models", or a file that stands in none), for what its files say.

    Comments, docstrings, layout and descriptions of settings say nothing.
    """
    rooms: dict[str, list[str]] = {}
    for path in sorted(paths):
        parts = path.relative_to(root).parts
        room = "/".join(parts[:2])
        rooms.setdefault(room, []).append(f"{'/'.join(parts)} {_digest(path)}")
    return {room: hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8] for room, lines in rooms.items()}


def module_file(name: str, root: Path = ROOT) -> Path | None:
    """The file of a dotted module of the project; None for any other name."""
    parts = name.split(".")
    if parts[0] not in ROOMS or not all(part.isidentifier() for part in parts):
        return None
    base = root.joinpath(*parts)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _files_of(name: str, root: Path, loaded: bool) -> Iterator[Path]:
    """The file of a used module, and with `loaded` what Python runs before it."""
    path = module_file(name, root)
    if path is None:
        return
    yield path
    if loaded:
        parts = name.split(".")
        for end in range(1, len(parts)):
            package = module_file(".".join(parts[:end]), root)
            if package is not None:
                yield package


def _used(path: Path, root: Path, loaded: bool) -> set[str]:
    """Dotted modules of the project that a file names."""
    if path.suffix != ".py":
        return set()
    found: set[str] = set()
    for node in ast.walk(_read(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and module_file(node.module, root):
            found |= {_origin(node.module, alias.name, root, loaded) for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            found.add(node.value)
        elif loaded and isinstance(node, ast.Name) and node.id == "__path__":
            package = ".".join(path.parent.relative_to(root).parts)
            found |= {f"{package}.{other.stem}" for other in path.parent.glob("*.py")}
    return found


def _origin(module: str, name: str, root: Path, loaded: bool) -> str:
    """The module behind `from module import name`."""
    if module_file(f"{module}.{name}", root):
        return f"{module}.{name}"
    path = module_file(module, root)
    if loaded or path is None or path.name != "__init__.py":
        return module
    for node in _read(path).body:
        if isinstance(node, ast.ImportFrom) and node.module and module_file(node.module, root):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _origin(node.module, alias.name, root, loaded)
    return module


@cache
def _data_files(root: Path) -> tuple[tuple[Path, Path], ...]:
    """(package folder, file) of every file of the pipeline that is no Python, by the package it lies in."""
    found = []
    for path in (root / "pipeline").rglob("*"):
        if path.is_file() and path.suffix != ".py" and not IGNORED & set(path.parts):
            owner = next(folder for folder in path.parents if (folder / "__init__.py").exists())
            found.append((owner, path))
    return tuple(found)


def _read(path: Path) -> ast.Module:
    return _parsed(path, path.stat().st_mtime_ns)


@lru_cache(1000)
def _parsed(path: Path, modified_ns: int) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = _Bare(is_script=path.parent.name == "stages").visit(tree)
    assert isinstance(bare, ast.Module)
    return bare


def _digest(path: Path) -> str:
    return _digested(path, path.stat().st_mtime_ns)


@lru_cache(1000)
def _digested(path: Path, modified_ns: int) -> str:
    content = "".join(_words(_read(path))).encode() if path.suffix == ".py" else path.read_bytes()
    return hashlib.sha256(content).hexdigest()


class _Bare(ast.NodeTransformer):
    """Leaves out what determines no result: docstrings, blocks for type checkers, descriptions of settings.

    Of a stage script, `if __name__ == "__main__"` only launches it, and its checks and plans look ahead.
    """

    def __init__(self, is_script: bool) -> None:
        self.is_script = is_script

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        test = ast.unparse(node.test)
        if test.endswith("TYPE_CHECKING") or (self.is_script and test.startswith("__name__ ==")):
            return [statement for kept in node.orelse for statement in self._visited(kept)]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        return None if self.is_script and node.name in AHEAD else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        return self.generic_visit(node)

    def _visited(self, statement: ast.stmt) -> list[ast.stmt]:
        found = self.visit(statement)
        return found if isinstance(found, list) else [found] if found is not None else []


def _words(value: object) -> Iterator[str]:
    """A syntax tree as text, the same in every Python version: fields that are empty are left out."""
    if isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name, item in ast.iter_fields(value):
            if item is not None and item != []:
                yield f" {name}="
                yield from _words(item)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for item in value:
            yield from _words(item)
            yield ","
        yield "]"
    else:
        yield repr(value)
