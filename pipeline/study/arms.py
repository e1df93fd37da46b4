"""The models of a study: every arm at every size, as wide as the standard model's parameters allow."""

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.config.model import ModelConfig
from pipeline.config.study import Arm, StudyConfig
from pipeline.config.sweep import Size, SweepConfig
from pipeline.errors import ConfigError
from pipeline.models import count
from pipeline.models.architectures import block_of
from pipeline.models.budget import Width, solve_width
from pipeline.models.placement import check_trainable, shape_faults
from pipeline.models.timed import ModelByName

TOLERANCE = 0.01  # of the budget
Models = dict[tuple[str, str], ModelConfig]  # by arm and size


class Cell(NamedTuple):
    """One arm at one size and the token counts that it is trained to, ascending."""

    arm: str
    size: str
    tokens: tuple[int, ...]


def models(study: StudyConfig, sweep: SweepConfig, lookup: ModelByName) -> Models:
    """Every arm's model at every size where it stands; raises ConfigError with all that cannot be."""
    found: Models = {}
    faults = [*_every_size_faults(study, sweep)]
    bases: list[ModelConfig] = []
    for size, shape in sweep.sizes.items():
        try:
            base = standard(size, shape, lookup)
        except ConfigError as error:
            faults.append(str(error))
            continue
        bases.append(base)
        for name, arm in study.arms.items():
            if arm.sizes == "central" and size != sweep.central_size:
                continue
            try:
                found[name, size] = _arm_model(name, arm, base, size, sweep.head_multiple)
            except ConfigError as error:
                faults.append(str(error))
    faults += _size_faults(bases, list(sweep.sizes)) if len(bases) == len(sweep.sizes) else []
    if len({model.name for model in found.values()}) < len(found):
        faults.append("study.arms and sweep.sizes: two of their names joined by a dot are one name; leave dots out")
    if len(faults) == 1:
        raise ConfigError(f"this study cannot be run: {faults[0]}")
    if faults:
        raise ConfigError("this study cannot be run:\n" + "\n".join(f"  - {fault}" for fault in faults))
    return found


def cells(study: StudyConfig, sweep: SweepConfig) -> Iterator[Cell]:
    """What is trained, from every seed; the largest models first, so that no core waits for them at the end."""
    for size in reversed(sweep.sizes):
        whole = size == sweep.central_size or not sweep.crossed
        for name, arm in study.arms.items():
            if arm.sizes == "all" or size == sweep.central_size:
                yield Cell(name, size, tuple(sweep.tokens) if whole else (sweep.central_tokens,))


def searched_sizes(sweep: SweepConfig) -> list[str]:
    """Where recipes are searched, the central size first."""
    others = [size for size in sweep.sizes if size != sweep.central_size]
    return [sweep.central_size, *(others if sweep.search_every_size else [])]


def standard(size: str, shape: Size, lookup: ModelByName) -> ModelConfig:
    """The standard model of a size; raises ConfigError where there is none."""
    changes = {key: value for key in ("n_layer", "n_head", "n_embd") if (value := getattr(shape, key)) is not None}
    base = lookup(shape.model).model_copy(update=changes)
    faults = shape_faults(base)
    if base.architecture != "standard":
        faults.append(f"{shape.model} is a {base.architecture} model; a size is set by a standard one")
    if faults:
        raise ConfigError(f"sweep.sizes.{size}: {'; '.join(faults)}")
    return base


def _size_faults(bases: list[ModelConfig], sizes: list[str]) -> Iterator[str]:
    """Sizes ascend, and read the same text in the same pieces: laws and trends are drawn over them."""
    counts = [count.parameters(base) for base in bases]
    if counts != sorted(set(counts)):
        told = ", ".join(f"{size} {number:,}" for size, number in zip(sizes, counts, strict=True))
        yield f"sweep.sizes: must ascend in parameters; there are {told}"
    for field in ("block_size", "vocab_size"):
        if len(found := {getattr(base, field) for base in bases}) > 1:
            yield f"sweep.sizes: must have one {field}; there are {', '.join(map(str, sorted(found)))}"


def _every_size_faults(study: StudyConfig, sweep: SweepConfig) -> Iterator[str]:
    if sweep.search_every_size and len(sweep.sizes) > 1:
        for name, arm in study.arms.items():
            if arm.rate_width_exponent:
                yield (
                    f"study.arms.{name}: rate_width_exponent={arm.rate_width_exponent:g}: says how a rate goes over to "
                    "other sizes, and sweep.search_every_size=true has one searched at each; false would do"
                )


def _arm_model(name: str, arm: Arm, base: ModelConfig, size: str, head_multiple: int) -> ModelConfig:
    """The model of an arm, of the width that brings it nearest to the budget."""
    try:
        return _fitted(name, arm, base, size, head_multiple)
    except ConfigError as error:
        raise ConfigError(f"study.arms.{name} at size {size}: {error}") from None


def _fitted(name: str, arm: Arm, base: ModelConfig, size: str, head_multiple: int) -> ModelConfig:
    template = _typed(base, arm.model)
    block = block_of(template.architecture)
    if template.n_ways > 1 and block.ways == "none":
        raise ConfigError(f"a {template.architecture} model has one way, not {template.n_ways}")
    check_trainable(template)
    found = template
    if arm.model:
        budget = _counted(base, arm)
        width, heads = _width(arm, template, base, head_multiple)
        found = template.model_copy(update={"n_embd": width.n_embd, "n_head": heads})
        off = _counted(found, arm) / budget - 1
        if abs(off) > TOLERANCE:
            which = "" if arm.budget == "all" else " of the layers"
            raise ConfigError(
                f"no width is within {TOLERANCE:.0%} of the standard model's {budget:,} parameters{which}; "
                f"the nearest, n_embd={width.n_embd} with {heads} heads, has {_counted(found, arm):,} ({off:+.1%}); "
                "a larger size has finer steps"
            )
    found = found.model_copy(update={"name": f"{size}.{name}"})
    if faults := shape_faults(found):
        raise ConfigError("; ".join(faults))
    return found


def _width(arm: Arm, template: ModelConfig, base: ModelConfig, head_multiple: int) -> tuple[Width, int]:
    """The best width and number of heads: heads about as wide as the standard model's where ways have their own."""
    budget, ways = _counted(base, arm), template.n_ways
    if block_of(template.architecture).ways != "own":
        if base.n_head % ways:
            raise ConfigError(f"n_ways={ways} must divide the standard model's {base.n_head} heads")
        return solve_width(template, budget, base.n_head // ways, 1, arm.budget), base.n_head
    alone = solve_width(template, budget, 1, head_multiple, arm.budget)
    ideal = max(1, round(alone.n_embd / (base.n_embd // base.n_head)))
    solved: dict[int, Width] = {}
    for heads in sorted(range(1, 2 * ideal + 1), key=lambda heads: (abs(heads - ideal), heads)):
        solved[heads] = solve_width(template, budget, heads, head_multiple, arm.budget)
        if abs(solved[heads].parameters / budget - 1) <= TOLERANCE:
            return solved[heads], heads * ways
    best = min(solved, key=lambda heads: abs(solved[heads].parameters / budget - 1))
    return solved[best], best * ways


def _counted(model: ModelConfig, arm: Arm) -> int:
    return count.parameters(model) if arm.budget == "all" else count.layer_parameters(model)


def _typed(base: ModelConfig, changes: dict[str, object]) -> ModelConfig:
    from pydantic import ValidationError

    try:
        return ModelConfig.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"model.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
