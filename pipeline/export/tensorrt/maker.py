"""engine=tensorrt: what the build needs, and what engine.json says of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.export.spec import EngineSpec
from pipeline.export.tensorrt import module
from pipeline.export.tensorrt.build import build
from pipeline.export.tensorrt.description import dimension_ranges
from pipeline.export.weights import WeightSource


class TensorRTMaker:
    """Builds one engine a rank, or one a segment. Constructing it loads TensorRT and checks the target."""

    status = "built; not run: loading it needs GPUs, one a rank"

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.trt = module.load(spec.module)
        self.target: str | None = module.target_of(self.trt, spec.target)
        self.module, self.version = spec.module, str(self.trt.__version__)

    def write(self, source: WeightSource, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """The engines of all ranks; a description a rank. Raises RunError where TensorRT fails."""
        ranks = build(self.trt, self.spec, source, folder, say)
        return {
            "collectives": ranks[0]["collectives"],
            "layers": ranks[0]["layers"],
            "profile": {name: list(sizes) for name, sizes in dimension_ranges(self.spec).items()},
            "inputs": "tokens (B, T) int32, positions (T) int32, wanted (n) int32: positions whose logits are wanted",
            "outputs": "logits (B, n, V)",
            "rank_details": ranks,
        }
