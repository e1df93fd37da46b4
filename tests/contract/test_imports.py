"""Imports run one way, and each outside tool stands in one file."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# what each room may import besides itself and the plain modules of pipeline/
ALLOWED = {
    "config": set(),
    "communication": set(),
    "results": {"config"},
    "models": {"config", "communication"},
    "data": {"config"},
    "training": {"models", "data", "communication", "config"},
    "evaluation": {"models", "data", "communication", "config"},
    "export": {"models", "communication", "config"},
    "engines": {"export", "models", "communication", "config"},
    "benchmark": {"engines", "export", "models", "communication", "config"},
    "projection": {"models", "communication", "config"},
    "report": {"config"},
    "study": {
        *("training", "models", "data", "benchmark", "projection", "communication"),
        *("config", "compose", "tracking", "experiment"),
    },
    "experiment": {"benchmark", "study", "config", "compose", "tracking"},
}
SHARED = {"errors", "files", "provenance", "results"}  # plain modules every room may use
OUTSIDE = {
    "ray": {f"pipeline/training/ray_{name}.py" for name in ("launcher", "group", "failure", "trials")},
    "mlflow": {"pipeline/tracking.py"},
    "lm_eval": {"pipeline/evaluation/harness/adapter.py"},
    "hydra": {"pipeline/compose.py"},
    "tensorrt_llm": {"pipeline/export/tensorrt_llm/model.py"},
    "dvc": set(),
    "argparse": {"pipeline/benchmark/ranks/rank.py"},
}


def files() -> list[Path]:
    return [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top in OUTSIDE:
            assert str(path.relative_to(ROOT)) in OUTSIDE[top], f"{path.name} imports {name}"
        if parts[0] == "pipeline":
            assert top != "stages", f"{path} imports {name}"
        if parts[0] == "pipeline" and len(parts) > 2 and top == "pipeline" and rest:
            room, target = parts[1], rest.split(".")[0]
            allowed = ALLOWED[room] | SHARED | {room}
            assert target in allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_every_room_is_listed():
    rooms = {path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(ALLOWED)


def test_no_two_modules_import_each_other():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files()
    }
    graph = {name: {one for one in imported(path) if one in modules} - {name} for name, path in modules.items()}
    for name, path in modules.items():  # `from package import module` is no need of the package itself
        if path.name == "__init__.py":
            for needed in graph.values():
                if any(one.startswith(f"{name}.") for one in needed):
                    needed.discard(name)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
