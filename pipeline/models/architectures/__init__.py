"""Architectures, one file each: a block's forward and the few facts that nothing can derive.

A new one is a new file in this folder. Its name is the file's; its block is the one subclass of Block defined there.
docs/architectures.md walks through it.
"""

import difflib
import importlib
import pkgutil
from functools import cache
from typing import get_args

from pipeline.errors import ConfigError
from pipeline.models.block import Block, Ways


@cache
def names() -> tuple[str, ...]:
    """Every architecture, by the files of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def block_of(name: str) -> type[Block]:
    """An architecture's block; raises ConfigError for an unknown name, or a file without exactly one block."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"model.architecture={name}: no such architecture{hint} There are: {', '.join(names())}")
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except Exception as error:  # whatever a file may raise
        raise ConfigError(
            f"model.architecture={name}: its file cannot be loaded ({type(error).__name__}: {error})"
        ) from error
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Block) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ConfigError(f"{module.__file__} defines {len(found)} blocks; an architecture is exactly one")
    block = found[0]
    faults = [f"ways={block.ways!r} is none of {get_args(Ways)}"] if block.ways not in get_args(Ways) else []
    if block.weights_of is not None and block.weights_of not in names():
        faults.append(f"weights_of={block.weights_of!r} is no architecture")
    if faults:
        raise ConfigError(f"model.architecture={name}: {'; '.join(faults)}")
    return block
