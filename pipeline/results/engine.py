"""What a built engine is: engine.json beside its files."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.results.file import Result
from pipeline.results.kinds import Kind


class EngineResult(Result):
    """engine.json: one model's engines, one a rank, or its exported checkpoint."""

    file_name: ClassVar[str] = "engines/<model>-tp<N>-<engine>/engine.json"
    command: ClassVar[str] = "python -m stages.build_engine model=NAME engine=NAME"
    schema_name: Literal["engine"] = "engine"
    schema_version: Literal[2] = 2
    kind: Kind = Field(description="where size and build time come from")
    model: str = Field(description="model config")
    architecture: str = Field(description="architecture")
    scale: str = Field(description="demo, small_gpu or paper: what it was made for")
    engine: str = Field(description="kind of engine or export")
    ranks: int = Field(description="ranks that it is split over")
    collectives: int = Field(description="collectives of one forward on one rank")
    module: str = Field(description="what built it")
    version: str = Field(description="version of the module")
    target: str | None = Field(description="GPU architecture that it was built for")
    mode: str = Field(description="whole or segmented")
    dtype: str = Field(description="arithmetic of the forward")
    head_dim: int = Field(description="width of one head as computed, padding included")
    weights: str = Field(description="trained or random")
    status: str = Field(description="what was verified where, in words")
    engine_format: int = Field(1, description="of the engine's own files; another than the code's is built again")
    key: str = Field(description="names everything that the bytes depend on")
    spec: dict[str, Any] = Field(description="spec.json: model shape and build settings")
    sizes: dict[str, int] = Field(description="bytes of every file, by its path in the folder")
    size_bytes: int = Field(description="all files together")
    build_s: float = Field(description="seconds to build, all ranks")
    layers: int | None = Field(None, description="layers of one rank's TensorRT networks")
    profile: dict[str, list[int]] | None = Field(None, description="least, usual and greatest size of each dimension")
    inputs: str | None = Field(None, description="what the engine takes, in words")
    outputs: str | None = Field(None, description="what it gives, in words")
    rank_details: list[dict[str, Any]] | None = Field(None, description="segments and program of every rank")
    class_name: str | None = Field(None, description="model class in TensorRT-LLM")
    command_line: list[str] | None = Field(None, description="what built a TensorRT-LLM engine")
    environment: str | None = Field(None, description="kind of environment that TensorRT-LLM ran in")
    environment_versions: dict[str, str | None] | None = Field(None, description="Python and TensorRT there")
    gpus: list[str] | None = Field(None, description="GPUs there")
    overlap_plugin: bool | None = Field(None, description="whether the overlap plugin was built in")
    trtllm_build_s: float | None = Field(None, description="seconds that trtllm-build took")
