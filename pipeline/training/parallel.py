"""Which rank holds what while training: data-parallel copies of a model, each over tensor-parallel ranks."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.communication import LOCAL, Communicator
from pipeline.communication.differentiable import DifferentiableCommunicator
from pipeline.config.execution import ClusterConfig
from pipeline.config.model import ModelConfig
from pipeline.models import Transformer, build_model
from pipeline.models.placement import WHOLE, Placement, has_ways
from pipeline.models.shard import rule_of, shard_state
from pipeline.training.job import Worker

if TYPE_CHECKING:  # these take a second to import, and only ranks with others need them
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import Shard


@dataclass(frozen=True)
class Layout:
    """This rank's place: rank = dp_rank · tp_size + tp_rank, so that a copy's ranks are neighbours."""

    dp_rank: int = 0
    dp_size: int = 1
    placement: Placement = WHOLE
    fsdp: bool = False
    mesh: "DeviceMesh | None" = None  # (dp, tp); None where one process trains alone

    @classmethod
    def of(cls, worker: Worker, cluster: ClusterConfig) -> "Layout":
        """The layout of `worker`; makes the process groups, so all ranks must call it."""
        if worker.world_size == 1:
            return cls()
        from torch.distributed.device_mesh import init_device_mesh

        tp_size = cluster.tp_size
        dp_size = worker.world_size // tp_size
        mesh = init_device_mesh(worker.device.type, (dp_size, tp_size), mesh_dim_names=("dp", "tp"))
        placement = Placement(worker.rank % tp_size, tp_size)
        return cls(worker.rank // tp_size, dp_size, placement, cluster.fsdp and dp_size > 1, mesh)

    @property
    def tp_size(self) -> int:
        return self.placement.tp_size

    @property
    def shards(self) -> int:
        """Pieces that a tensor-parallel part is cut into."""
        return self.dp_size if self.fsdp else 1

    def communicator(self) -> Communicator:
        return DifferentiableCommunicator(self._group("tp")) if self.tp_size > 1 else LOCAL

    def sum_over_tp(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors up in place over the ranks of one copy."""
        if self.tp_size > 1:
            _sum_in_place(list(tensors), self._group("tp"))

    def sum_over_dp(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors up in place over the copies."""
        if self.dp_size > 1:
            _sum_in_place(list(tensors), self._group("dp"))

    def _group(self, axis: str) -> dist.ProcessGroup:
        assert self.mesh is not None
        return self.mesh.get_group(axis)


def build_part(config: ModelConfig, layout: Layout, seed: int) -> Transformer:
    """This rank's part of the model that one process would start with."""
    placement = layout.placement
    if placement.tp_size == 1 or has_ways(config):
        return build_model(config, placement, seed=seed)
    model = build_model(config, placement, seed=None)  # Megatron's shards are cut from the whole
    model.load_state_dict(shard_state(build_model(config, seed=seed).state_dict(), config, placement))
    for name, parameter in model.named_parameters():
        if rule_of(name, config) == "first rank" and placement.rank > 0:
            parameter.requires_grad_(False)  # the sum over ranks must hold it once
    return model


def wrap(module: nn.Module, model: Transformer, layout: Layout) -> nn.Module:
    """`module`, whose gradients are averaged over the copies: by DDP, or by FSDP2 with all state sharded."""
    if layout.dp_size == 1:
        return module
    assert layout.mesh is not None
    if not layout.fsdp:
        group = layout.mesh.get_group("dp")
        return DistributedDataParallel(module, process_group=group, gradient_as_bucket_view=True)
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    from torch.distributed.tensor import Shard

    mesh = layout.mesh["dp"]
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # no forward writes into a stream

    def placed(parameter: nn.Parameter) -> "Shard":
        return Shard(shard_dim(tuple(parameter.shape), layout.dp_size))

    for block in model.blocks:
        fully_shard(block, mesh=mesh, shard_placement_fn=placed)
    # by default the root would stay whole behind a validation, and its parameters be others than the optimizer's
    sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True, shard_placement_fn=placed)
    register_fsdp_forward_method(module, "generate")
    return cast(nn.Module, sharded)


def shard_dim(shape: tuple[int, ...], shards: int) -> int:
    """The dimension that FSDP cuts: the first that `shards` divides, since only the first may be cut unevenly."""
    return next((dim for dim, size in enumerate(shape) if size % shards == 0), 0)


@contextlib.contextmanager
def syncing(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Whether the backward in here averages gradients over the copies."""
    if hasattr(module, "set_requires_gradient_sync"):  # FSDP's
        module.set_requires_gradient_sync(wanted)  # type: ignore[operator]
    elif isinstance(module, DistributedDataParallel) and not wanted:
        with module.no_sync():
            yield
        return
    yield


def local(tensor: Tensor) -> Tensor:
    """What of a tensor lies on this rank."""
    return cast(Tensor, tensor.to_local()) if hasattr(tensor, "to_local") else tensor


class Gradients:
    """The gradients of one rank's parameters: made whole over the ranks of a copy, and measured."""

    def __init__(self, model: Transformer, layout: Layout) -> None:
        self.layout = layout
        trained = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
        shared = [layout.tp_size > 1 and rule_of(name, model.config) == "whole" for name, _ in trained]
        self.parameters = [parameter for _, parameter in trained]
        self.shared = [one for one, same in zip(self.parameters, shared, strict=True) if same]  # on every rank
        self.own = [one for one, same in zip(self.parameters, shared, strict=True) if not same]

    def gather(self) -> None:
        """After the backward: what ranks share has felt each rank's part of the loss alone."""
        self.layout.sum_over_tp(_of(self.shared))

    def norm(self) -> Tensor:
        """Norm over the whole model, the same on all ranks."""
        own = nn.utils.get_total_norm(_of(self.own))
        if self.layout.tp_size == 1 and not self.layout.fsdp:
            return own
        squares = torch.stack([own, nn.utils.get_total_norm(_of(self.shared)).to(own)]).square()
        if self.layout.fsdp:
            self.layout.sum_over_dp([squares])
        self.layout.sum_over_tp([squares[:1]])
        return squares.sum().sqrt()


def _of(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [local(one.grad) for one in parameters if one.grad is not None]


def _sum_in_place(tensors: list[Tensor], group: dist.ProcessGroup) -> None:
    """One collective a type for all of them."""
    for dtype in dict.fromkeys(one.dtype for one in tensors):
        some = [one for one in tensors if one.dtype == dtype]
        flat = torch.cat([one.reshape(-1) for one in some])
        dist.all_reduce(flat, group=group)
        for one, summed in zip(some, torch.split(flat, [one.numel() for one in some]), strict=True):
            one.copy_(summed.view_as(one))
