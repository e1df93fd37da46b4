"""The hardware that projections are made for."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from pipeline.config.group import Group, Name


class HardwareConfig(Group):
    """Peak rates of one device and of the link between devices, each from a data sheet or measured here."""

    name: Name = Field(description="name of the config file")
    source: str = Field(description="where the numbers come from")
    cuda_name: str | None = Field(None, description="what torch calls it, in whole words, as A100; null: no GPU")
    matmul_flops: PositiveFloat = Field(description="dense matrix FLOP/s in float16")
    memory_bandwidth: PositiveFloat = Field(description="bytes/s to device memory")
    link_bandwidth: PositiveFloat = Field(description="bytes/s per direction between two devices")
    link_latency_s: PositiveFloat = Field(description="seconds until the first byte of a collective arrives")
    kernel_launch_s: PositiveFloat = Field(description="seconds a kernel costs at least")
    matmul_efficiency: float = Field(0.7, gt=0, le=1, description="share of matmul_flops large products reach")
    bandwidth_efficiency: float = Field(0.8, gt=0, le=1, description="share of memory_bandwidth reached")
    link_efficiency: float = Field(0.7, gt=0, le=1, description="share of link_bandwidth that collectives reach")
    link_latency_per_rank_s: NonNegativeFloat = Field(0.0, description="seconds that each rank adds to a collective")
    link_topology: Literal["switched", "ring"] = Field(
        "switched", description="switched: every pair at link_bandwidth at once (NVSwitch); ring: neighbours only"
    )
    training_mfu: float = Field(
        0.35, gt=0, le=1, description="share of matmul_flops assumed when training time is projected"
    )
