"""A device and its links as rates: the data sheet's peaks times the share of them that is reached."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.hardware import HardwareConfig

FITTED = (
    "matmul_efficiency",
    "bandwidth_efficiency",
    "kernel_launch_s",
    "link_efficiency",
    "link_latency_s",
    "link_latency_per_rank_s",
)
LINK = ("link_bandwidth", "link_topology", *(name for name in FITTED if name.startswith("link_")))


@dataclass(frozen=True)
class Hardware:
    """Peaks in FLOP/s and bytes/s, overheads in seconds, efficiencies as shares of a peak.

    The last two are 1 and 0 on accelerators: there attention is one fused kernel, and copy engines move what is sent.
    Ranks on a CPU share their core with the network's kernel work.
    """

    name: str
    matmul_flops: float
    memory_bandwidth: float
    link_bandwidth: float
    link_topology: str
    matmul_efficiency: float
    bandwidth_efficiency: float
    kernel_launch_s: float
    link_efficiency: float
    link_latency_s: float
    link_latency_per_rank_s: float
    attention_efficiency: float = 1.0  # rate of softmax attention over that of products
    link_cpu_s_per_byte: float = 0.0  # of the computing core, for every byte that enters a sum

    @classmethod
    def from_config(cls, config: HardwareConfig) -> "Hardware":
        shared = set(cls.__dataclass_fields__) & set(type(config).model_fields)
        return cls(**{name: getattr(config, name) for name in shared})

    def with_values(self, values: dict[str, float]) -> "Hardware":
        """The same device with other efficiencies and overheads; raises KeyError on other names."""
        unknown = set(values) - set(FITTED)
        if unknown:
            raise KeyError(f"not efficiencies or overheads: {sorted(unknown)}")
        return replace(self, **values)  # type: ignore[arg-type]  # every fitted field is a float

    def link_model(self, source: str, fitted: Mapping[str, float]) -> dict[str, Any]:
        """The values behind `all_reduce_seconds`, and which of them are `fitted` ones; the others are of `source`."""
        values = {name: getattr(self, name) for name in LINK}
        return {
            "hardware": self.name,
            "source": source,
            **values,
            "fitted_to_published_times": [name for name in LINK if fitted.get(name) == values[name]],
        }

    def fitted_values(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in FITTED}

    def kernel_seconds(self, flops: float, moved_bytes: float, is_attention: bool = False) -> float:
        """One kernel by the roofline: the slower of arithmetic and memory, after the launch."""
        reached = self.matmul_efficiency * (self.attention_efficiency if is_attention else 1.0)
        arithmetic = flops / (self.matmul_flops * reached)
        memory = moved_bytes / (self.memory_bandwidth * self.bandwidth_efficiency)
        return self.kernel_launch_s + max(arithmetic, memory)

    def all_reduce_seconds(self, message_bytes: float, tp_size: int) -> float:
        """One all-reduce of `message_bytes` per rank; 0 for a single rank.

        Switched links: the better of one shot (every rank reads all others) and two shots
        (reduce-scatter, then all-gather). Ring: 2(N−1) hops of a N-th of the message.
        """
        if tp_size == 1:
            return 0.0
        rate = self.link_bandwidth * self.link_efficiency
        others = tp_size - 1
        spread = 2 * others / tp_size * message_bytes / rate
        if self.link_topology == "ring":
            return 2 * others * self.link_latency_s + spread
        step = self.link_latency_s + self.link_latency_per_rank_s * tp_size
        return min(step + others * message_bytes / rate, 2 * step + spread)

    def all_gather_seconds(self, message_bytes: float, tp_size: int) -> float:
        """Every rank sends `message_bytes` to all others; 0 for a single rank."""
        if tp_size == 1:
            return 0.0
        others = tp_size - 1
        traffic = others * message_bytes / (self.link_bandwidth * self.link_efficiency)
        if self.link_topology == "ring":
            return others * self.link_latency_s + traffic
        return self.link_latency_s + self.link_latency_per_rank_s * tp_size + traffic
