"""What lies in pieces on several devices (FSDP, DeepSpeed): how it is spread, and how it comes together again."""

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
from tadp_da.errors import EnvironmentSetupError, UsageError

Groups = list[dict[str, Any]]


def prepare(
    accelerator: Accelerator,
    model: nn.Module,
    wrap: Callable[[nn.Module], nn.Module],
    groups: Groups,
    optimizer: Callable[[Groups], Any],
) -> tuple[nn.Module, Any, list[nn.Parameter]]:
    """Module, optimizer and trained parameters as the accelerator wants them.

    Under FSDP and DeepSpeed a copy of the model is spread over the devices and trained, and the model waits on the CPU:
    sharding puts other parameters in the place of those that its callers hold, or hooks onto them. See
    :func:`give_back`.

    Args:
        accelerator: as the configuration made it.
        model: what is trained.
        wrap: makes the module whose forward pass is the loss, with the model in its attribute ``model``.
        groups: of the model's parameters.
        optimizer: makes one of groups.
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
    """What tells an optimizer's state by parameter, and takes it so."""
    deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
    return WholeState(optimizer, trained) if deepspeed else optimizer


def passing(accelerator: Accelerator, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Around the forward pass of a micro-batch: only after the last one of a step, gradients are shared."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.sync_gradients = last  # and its backward pass takes the step itself
        return nullcontext()
    return nullcontext() if last else accelerator.no_sync(model)


@torch.no_grad()
def give_back(spread: Sequence[nn.Parameter], trained: Sequence[nn.Parameter]) -> None:
    """Make the trained parameters those that were spread; every process must come here."""
    for piece, parameter in zip(spread, trained, strict=True):
        if piece is not parameter:
            parameter.copy_(whole(piece))


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from all processes, which must all come here if it is in pieces."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """The piece of a tensor that lies here."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(value: Any, tensor: Tensor) -> Any:
    """A value of the tensor's shape in the same pieces as it."""
    if isinstance(tensor, DTensor) and isinstance(value, Tensor) and value.shape == tensor.shape:
        return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    return value


def refuse_unfit(accelerator: Accelerator, *, asked: bool) -> None:
    """Refuse what accelerate's configuration asks for and this loop, or accelerate itself, would not do.

    Args:
        accelerator: as the configuration made it.
        asked: whether the configuration asks for FSDP.

    Raises:
        EnvironmentSetupError: for FSDP on CPUs, where accelerate would silently not shard.
        UsageError: for the first version of FSDP.
    """
    kind = accelerator.distributed_type
    if asked and kind != DistributedType.FSDP:
        raise EnvironmentSetupError(
            f"FSDP is asked for, and accelerate shards on GPUs only; here it is {accelerator.device.type}",
            fix="leave out --use_fsdp or the configuration file; --processes shares the work without sharding",
        )
    if kind == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise UsageError(
            "the first version of FSDP is not supported",
            fix="set fsdp_version: 2 in the accelerate configuration",
        )
