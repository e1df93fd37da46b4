"""What the parts run, as whole typed settings in settings.json: conf/ needs Hydra, a GPU machine may not have it.

python -m benchmarks.gpu.settings        # compose settings.json again after a change in conf/ (needs Hydra)
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline import files
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.execution import ClusterConfig
from pipeline.config.group import Group
from pipeline.config.hardware import HardwareConfig
from pipeline.config.model import ModelConfig
from pipeline.config.training import TrainingConfig
from pipeline.errors import ConfigError
from pipeline.training.throughput import sheet_of

FILE = Path(__file__).with_name("settings.json")
TRAINED = ("standard_124m", "kraken_124m_4way", "parallel_124m")
OVERRIDES = [
    *("scale=small_gpu", "model=standard_124m", "cluster.compile=true"),
    *("training.steps=200", "training.warmup_steps=20", "training.sample_tokens=0"),
    *("training.eval_interval=200", "training.eval_windows=80"),
    *("cluster.checkpoint_interval=100", "cluster.keep_checkpoints=1", "cluster.log_interval=10"),
    *("benchmark.time_limit_s=12", "benchmark.breakdown=false", "benchmark.trace=false"),
]


class Settings(Group):
    """The groups of conf/ that the parts read."""

    models: dict[str, ModelConfig] = Field(description="every model that a part names")
    training: TrainingConfig = Field(description="of the parts that train")
    cluster: ClusterConfig = Field(description="one GPU; the micro-batch is found by trying")
    benchmark: BenchmarkConfig = Field(description="Table 4's shapes, one rank's share")
    hardware: dict[str, HardwareConfig] = Field(description="peak rates and links of known GPUs")

    def model(self, name: str) -> ModelConfig:
        """Raises ConfigError for a model that is not among them."""
        if name not in self.models:
            raise ConfigError(f"{FILE}: no model {name}; python -m benchmarks.gpu.settings composes it again")
        return self.models[name]

    @property
    def device_flops(self) -> dict[str, float]:
        """Dense bfloat16 FLOP/s by what torch calls the device."""
        return {one.cuda_name: one.matmul_flops for one in self.hardware.values() if one.cuda_name is not None}

    def hardware_of(self, device_name: str) -> HardwareConfig:
        """The data sheet of this device, or the A100's for one that has none here."""
        by_name = {one.cuda_name: one for one in self.hardware.values() if one.cuda_name is not None}
        name = sheet_of(device_name, by_name)
        return self.hardware["a100_40gb_nvswitch"] if name is None else by_name[name]


def read() -> Settings:
    """The settings of settings.json."""
    return Settings.model_validate(files.read_json(FILE))


def compose() -> Settings:
    """The same from conf/."""
    from pipeline.compose import compose as composed
    from pipeline.compose import group_options, model_config, shipped

    config = composed(OVERRIDES)
    shapes = config.benchmark.shapes
    timed = {name for shape in shapes for name in _names(shape.models.values(), config.benchmark.tp_sizes)}
    sheets = {name: shipped("hardware", name) for name in group_options("hardware")}
    return Settings(
        models={name: model_config(name) for name in [*TRAINED, *sorted(timed)]},
        training=config.training,
        cluster=config.cluster,
        benchmark=config.benchmark,
        hardware={name: one for name, one in sheets.items() if isinstance(one, HardwareConfig) and one.cuda_name},
    )


def tiny(settings: Settings) -> Settings:
    """The same parts in seconds on a CPU: a rehearsal."""
    small: dict[str, Any] = {"n_layer": 4, "n_head": 8, "n_embd": 32, "vocab_size": 512}
    models = {
        name: model.model_copy(update={**small, "block_size": 32 if name in TRAINED else 128})
        for name, model in settings.models.items()
    }
    shapes = [shape.model_copy(update={"n_layer": None}) for shape in settings.benchmark.shapes[:2]]
    grid: dict[str, Any] = {"shapes": shapes, "contexts": [16, 128], "dtype": "float32", "time_limit_s": 0.3}
    rules: dict[str, Any] = {"warmup_min": 1, "warmup_max": 2, "repeats_min": 3, "repeats_max": 6}
    steps: dict[str, Any] = {"steps": 20, "warmup_steps": 4, "eval_interval": 20, "eval_windows": 4}
    cluster = {"device": "cpu", "compile": False, "threads_per_rank": 1, "checkpoint_interval": 5, "log_interval": 5}
    return settings.model_copy(
        update={
            "models": models,
            "training": settings.training.model_copy(update={**steps, "global_batch_size": 4}),
            "cluster": settings.cluster.model_copy(update=cluster),
            "benchmark": settings.benchmark.model_copy(update=grid | rules),
        }
    )


def _names(templates: Any, tp_sizes: list[int]) -> set[str]:
    return {template.replace("{tp_size}", str(size)) for template in templates for size in tp_sizes}


if __name__ == "__main__":
    files.write_json(FILE, compose().model_dump(mode="json"))
    print(f"wrote {FILE}")
