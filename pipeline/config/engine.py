"""What a model is turned into for inference."""

from typing import Literal

from pydantic import Field, PositiveInt

from pipeline.config.group import Group

EngineName = Literal["torch", "checkpoint", "huggingface", "tensorrt", "tensorrt_llm"]


class EngineConfig(Group):
    """One engine per rank, built from a checkpoint or from random weights."""

    name: EngineName = Field(description="which engine is built")
    module: Literal["tensorrt", "tensorrt_rtx"] = Field(
        "tensorrt_rtx", description="TensorRT's Python module: tensorrt on GPU hosts, tensorrt_rtx builds without a GPU"
    )
    tp_size: PositiveInt = Field(4, description="ranks, one engine each")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float16", description="type of weights and activations")
    weights: Literal["trained", "random"] = Field("trained", description="the trained checkpoint, or random numbers")
    mode: Literal["whole", "segmented"] = Field(
        "whole", description="one engine a rank, or an A and a B part a layer with the collective between them"
    )
    head_padding: bool = Field(True, description="zero-pad heads to the next size that fused kernels support")
    max_batch_size: PositiveInt = Field(4, description="largest batch of the optimisation profile")
    max_input_len: PositiveInt = Field(2048, description="longest prompt of the optimisation profile")
    target: str = Field(
        "sm80", description="GPU that tensorrt_rtx builds for, as sm80; tensorrt builds for the one it sees"
    )
    environment: Literal["local", "venv", "docker"] = Field("local", description="where tensorrt_llm runs")
    environment_path: str | None = Field(None, description="the venv's folder, or the container image")
