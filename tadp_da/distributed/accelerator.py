"""accelerate's ``Accelerator`` for one training, from the run's device and precision and accelerate's configuration."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, parse_flag_from_env

from tadp_da.distributed import deepspeed as _deepspeed
from tadp_da.distributed.processes import join
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.run import Run


def make_accelerator(run: Run, *, share: int, clip: float) -> Accelerator:
    """Create it.

    Args:
        run: device and precision.
        share: samples per forward pass of each process.
        clip: largest gradient norm, 0 for none.

    Raises:
        UsageError: for a precision or a configuration that is not supported.
        EnvironmentSetupError: when DeepSpeed is not installed, or for FSDP on CPUs, where accelerate does not shard.
    """
    device = run.torch_device
    on_cpu = device.type == "cpu"
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate uses the current one
    if device.type == "cuda" and run.precision != "no":
        # what autocast leaves in fp32 on TF32 units; who asks for precision "no" gets fp32
        torch.set_float32_matmul_precision("high")
    if on_cpu and run.precision == "fp16":
        raise UsageError("precision fp16 needs a GPU", fix="choose bf16 or no")
    # accelerate has one global state, which refuses another precision in the same process
    AcceleratorState._reset_state()
    if _deepspeed.wanted():
        join(device)
        accelerator = Accelerator()  # not cpu=True, which would leave DeepSpeed out
        plugin = accelerator.state.deepspeed_plugin
        _deepspeed.configure(plugin, share=share, clip=clip, precision=run.precision)
        return accelerator
    # some parameters are unused at some steps: no object in any image of a batch
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(mixed_precision=run.precision, cpu=on_cpu, kwargs_handlers=[unused])
    sharded = accelerator.distributed_type == DistributedType.FSDP
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and not sharded:
        raise EnvironmentSetupError(
            f"FSDP is asked for, and accelerate shards on GPUs only; here it is {accelerator.device.type}",
            fix="leave out --use_fsdp or the configuration file; --processes shares the work without sharding",
        )
    if sharded and not accelerator.is_fsdp2:
        raise UsageError(
            "the first version of FSDP is not supported",
            fix="set fsdp_version: 2 in the accelerate configuration",
        )
    return accelerator
