"""The accelerator of one training: device, precision, and how several processes share it."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, parse_flag_from_env

from tadp_da.distributed import deepspeed as _deepspeed
from tadp_da.distributed.processes import join
from tadp_da.distributed.sharding import refuse_unfit
from tadp_da.errors import UsageError
from tadp_da.run import Run


def make_accelerator(run: Run, *, share: int, clip: float) -> Accelerator:
    """An accelerator as the run and accelerate's own configuration ask for.

    Args:
        run: device and precision.
        share: samples per forward pass of each process.
        clip: largest gradient norm, 0 for none.

    Raises:
        UsageError: for a precision or a configuration that is not supported.
        EnvironmentSetupError: when DeepSpeed is not installed, or FSDP would not shard.
    """
    device = run.torch_device
    on_cpu = device.type == "cpu"
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one, whatever was asked for
    if on_cpu and run.precision == "fp16":
        raise UsageError("precision fp16 needs a GPU", fix="choose bf16 or no")
    # accelerate keeps one global state and refuses another precision in the same process; each fit is on its own
    AcceleratorState._reset_state()
    # what is trained may be used at some steps and not at others: no object in any image of a batch
    lenient = DistributedDataParallelKwargs(find_unused_parameters=True)
    if _deepspeed.wanted():
        join(device)
        accelerator = Accelerator()  # not cpu=True, which would leave DeepSpeed out
        plugin = accelerator.state.deepspeed_plugin
        _deepspeed.configure(plugin, share=share, clip=clip, precision=run.precision)
        return accelerator
    accelerator = Accelerator(mixed_precision=run.precision, cpu=on_cpu, kwargs_handlers=[lenient])
    refuse_unfit(accelerator, asked=parse_flag_from_env("ACCELERATE_USE_FSDP"))
    return accelerator
