"""Everything a training run is, in one object: what a checkpoint holds and a resume restores."""

from dataclasses import dataclass, field

import torch

from pipeline.models import Transformer


@dataclass
class TrainingState:
    """Model, optimizer and position.

    The data position is the step itself, the sampler being a function of it. Nothing else in a run is
    random (there is no dropout, and text samples are seeded by their step), so no generator is kept.
    """

    model: Transformer
    optimizer: torch.optim.AdamW
    fingerprint: str
    step: int = 0  # optimizer steps taken
    tokens: int = 0  # tokens seen
    seconds: float = 0.0  # wall time of the steps that count, validation and checkpoints included
    validation: list[dict[str, float]] = field(default_factory=list)  # {"step", "loss_nats"} of every estimate

    def named_moments(self) -> dict[str, torch.Tensor]:
        """AdamW's two moments by parameter name; empty before the first step."""
        moments = {}
        for name, parameter in self.model.named_parameters():
            kept = self.optimizer.state.get(parameter)
            if kept:
                moments[f"exp_avg.{name}"] = kept["exp_avg"]
                moments[f"exp_avg_sq.{name}"] = kept["exp_avg_sq"]
        return moments

    def restore_moments(self, moments: dict[str, torch.Tensor]) -> None:
        """Put saved moments back; the step count of every parameter is the run's. KeyError where one lacks."""
        if not self.step:
            return
        for name, parameter in self.model.named_parameters():
            step_device = parameter.device if self.optimizer.param_groups[0].get("fused") else "cpu"
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step), device=step_device),
                "exp_avg": moments[f"exp_avg.{name}"].to(parameter.device),
                "exp_avg_sq": moments[f"exp_avg_sq.{name}"].to(parameter.device),
            }
