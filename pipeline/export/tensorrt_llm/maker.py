"""engine=tensorrt_llm: the exported checkpoint through trtllm-build, in the environment that has it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.engine import EngineConfig
from pipeline.errors import ConfigError, RunError
from pipeline.export.spec import EngineSpec, check_parts
from pipeline.export.tensorrt_llm import checkpoint
from pipeline.export.tensorrt_llm.environment import Environment, check_versions
from pipeline.export.weights import WeightSource

MODEL_FILE = Path(__file__).with_name("model.py")
PROBE_TIMEOUT_S = 300.0  # a container that is pulled first takes minutes


class TensorRTLLMMaker:
    """Builds one engine a rank with trtllm-build. Constructing it asks the environment for its versions."""

    module = "tensorrt_llm"
    target: str | None = None
    status = "built by trtllm-build; the model classes are written and unverified"

    def __init__(self, spec: EngineSpec, engine: EngineConfig) -> None:
        model = spec.model
        if model.architecture not in checkpoint.CLASSES:
            raise ConfigError(
                f"model={model.name}: engine=tensorrt_llm builds {', '.join(checkpoint.CLASSES)} models, not "
                f"{model.architecture}; engine=tensorrt builds them all"
            )
        if model.architecture == "kraken" and spec.tp_size != model.n_ways:
            raise ConfigError(
                f"engine.tp_size={spec.tp_size}: TensorRT-LLM's Kraken has one way a rank; {model.n_ways} would be"
            )
        check_parts(model, spec.engine)
        self.spec = spec
        self.environment = Environment.of(engine)
        self.version = check_versions(self.environment.run({"action": "probe"}, [], PROBE_TIMEOUT_S))

    def write(self, source: WeightSource, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """Export the checkpoint, build engines from it; raises RunError where trtllm-build fails."""
        weights = folder / "checkpoint"
        checkpoint.export(self.spec, source, weights, say)
        command = build_command(self.spec, self.version, weights.absolute(), folder.absolute())
        say(" ".join(command))
        plugin = os.environ.get("KRAKEN_OVERLAP_PLUGIN")
        found = self.environment.run(
            {
                "action": "build",
                "command": command,
                "output_dir": str(folder.absolute()),
                "environment": {"KRAKEN_OVERLAP_PLUGIN": plugin} if plugin else {},
            },
            [folder.absolute()],
        )
        if found.exit_code != 0:
            raise RunError(f"trtllm-build ended with {found.exit_code}: {found.tail}")
        expected = [f"rank{rank}.engine" for rank in range(self.spec.tp_size)]
        if found.engines != expected:
            raise RunError(f"trtllm-build ended well but wrote {found.engines}, not {expected}")
        return {
            "command_line": command,
            "environment": self.environment.kind,
            "environment_versions": {"python": found.python, "tensorrt": found.tensorrt},
            "gpus": found.gpus,
            "overlap_plugin": plugin is not None,
            "trtllm_build_s": found.seconds,
        }


def build_command(spec: EngineSpec, version: str, weights: Path, output: Path) -> list[str]:
    """The command line of trtllm-build for a spec."""
    command = [
        "trtllm-build",
        f"--checkpoint_dir={weights}",
        f"--output_dir={output}",
        f"--gpt_attention_plugin={spec.dtype}",
        f"--gemm_plugin={spec.dtype}",
        "--remove_input_padding=enable",
        "--context_fmha=enable",
        f"--max_batch_size={spec.max_batch_size}",
        f"--max_input_len={spec.max_input_len}",
        f"--max_seq_len={spec.max_input_len}",
        f"--max_num_tokens={spec.max_batch_size * spec.max_input_len}",
        _no_cache(version),
    ]
    if spec.model.architecture != "standard":  # the standard model is TensorRT-LLM's own GPT
        command += [f"--model_cls_file={MODEL_FILE}", f"--model_cls_name={checkpoint.class_name(spec.model)}"]
    return command


def _no_cache(version: str) -> str:
    """The flag that leaves the KV cache out: an engine for the first token alone."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    return "--paged_kv_cache=disable" if numbers < (0, 13) else "--kv_cache_type=disabled"
