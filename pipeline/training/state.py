"""Everything a training run is, in one object: what a checkpoint holds and a resume restores."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from pipeline.models import Transformer
from pipeline.training.parallel import Layout, local

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's, and how torch calls them


@dataclass
class TrainingState:
    """Model, optimizer and position.

    The data position is the step itself, the sampler being a function of it. Nothing else in a run is
    random (there is no dropout, and text samples are seeded by their step), so no generator is kept.
    """

    model: Transformer
    optimizer: torch.optim.AdamW
    fingerprint: str
    layout: Layout = field(default_factory=Layout)
    step: int = 0  # optimizer steps, those left out among them
    skipped: int = 0  # steps left out, their gradients being no numbers
    tokens: int = 0  # tokens seen
    seconds: float = 0.0  # wall time of the steps that count, validation and checkpoints included
    validation: list[dict[str, float]] = field(default_factory=list)  # {"step", "loss_nats"} of every estimate

    def named_weights(self) -> dict[str, torch.Tensor]:
        """This rank's weights by name."""
        return {name: local(parameter.detach()) for name, parameter in self.model.named_parameters()}

    def named_moments(self) -> dict[str, torch.Tensor]:
        """AdamW's two moments on this rank by parameter name; empty before the first step."""
        return {
            f"{moment}.{name}": local(self.optimizer.state[parameter][moment])
            for name, parameter in self.model.named_parameters()
            if self.optimizer.state.get(parameter)
            for moment in MOMENTS
        }

    def restore_moments(self, moments: Mapping[str, torch.Tensor]) -> None:
        """Put this rank's saved moments back; every parameter's count of updates is the run's. KeyError where one
        lacks.
        """
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad or self.step == self.skipped:
                continue
            on_device = self.optimizer.param_groups[0].get("fused")
            count = torch.tensor(float(self.step - self.skipped), device=parameter.device if on_device else "cpu")
            kept = {moment: torch.zeros_like(parameter) for moment in MOMENTS}  # sharded as the parameter is
            for moment, tensor in kept.items():
                local(tensor).copy_(moments[f"{moment}.{name}"])
            self.optimizer.state[parameter] = {"step": count, **kept}
