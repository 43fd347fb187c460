"""Parameters and optimizer state that are sharded over several devices (FSDP, DeepSpeed), and how they are gathered."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from tadp_da.distributed.deepspeed import WholeState

Groups = list[dict[str, Any]]


def prepare(
    accelerator: Accelerator,
    model: nn.Module,
    wrap: Callable[[nn.Module], nn.Module],
    groups: Groups,
    optimizer: Callable[[Groups], Any],
) -> tuple[nn.Module, Any, list[nn.Parameter]]:
    """Module, optimizer and trained parameters, prepared by the accelerator.

    Under FSDP and DeepSpeed a copy of the model is sharded and trained, and the model stays on the CPU, because
    sharding replaces parameters that its callers hold, or adds hooks to them. See :func:`give_back`.

    Args:
        accelerator: from :func:`tadp_da.distributed.accelerator.make_accelerator`.
        model: what is trained.
        wrap: creates the module whose forward pass is the loss, with the model in its attribute ``model``.
        groups: of the model's parameters.
        optimizer: creates one from groups.
    """
    trained = [p for group in groups for p in group["params"]]
    if accelerator.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        module, optim = accelerator.prepare(wrap(model), optimizer(groups))
        return module, optim, trained
    names = {id(p): name for name, p in model.named_parameters()}
    spread = copy.deepcopy(model.to("cpu"))
    own = dict(spread.named_parameters())
    mine = [group | {"params": [own[names[id(p)]] for p in group["params"]]} for group in groups]
    module, optim = accelerator.prepare(wrap(spread), optimizer(mine))
    own = dict(accelerator.unwrap_model(module).model.named_parameters())
    return module, optim, [own[names[id(p)]] for p in trained]


def whole_state(accelerator: Accelerator, optimizer: Any, trained: Sequence[nn.Parameter]) -> Any:
    """The optimizer, as checkpoints need it: with state by parameter."""
    deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
    return WholeState(optimizer, trained) if deepspeed else optimizer


def passing(accelerator: Accelerator, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Context of a micro-batch's forward pass; gradients are synchronized after the last one of a step only."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.sync_gradients = last  # and its backward pass takes the step itself
        return nullcontext()
    return nullcontext() if last else accelerator.no_sync(model)


@torch.no_grad()
def give_back(spread: Sequence[nn.Parameter], trained: Sequence[nn.Parameter]) -> None:
    """Copy the sharded parameters to the trained ones; every process must call this."""
    for piece, parameter in zip(spread, trained, strict=True):
        if piece is not parameter:
            parameter.copy_(whole(piece))


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor; if it is sharded, every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(value: Any, tensor: Tensor) -> Any:
    """A value, sharded like the tensor if it has the tensor's shape."""
    if isinstance(tensor, DTensor) and isinstance(value, Tensor) and value.shape == tensor.shape:
        return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    return value
