"""DeepSpeed's ZeRO, stages 1 and 2: what its configuration must hold, and its optimizer's state as whole tensors.

Every process keeps all parameters, and a piece of the optimizer's state: the parameters of a group lie behind each
other in one flat tensor, of which each process has a part. DeepSpeed's own checkpoints are pickles of these parts for
one number of processes; here the state is told parameter by parameter, as AdamW has it without DeepSpeed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import DeepSpeedPlugin, is_deepspeed_available
from torch import Tensor, nn

from tadp_da.distributed.processes import count
from tadp_da.errors import EnvironmentSetupError, UsageError

_MOMENTS = ("exp_avg", "exp_avg_sq")


def wanted() -> bool:
    """Whether accelerate's configuration asks for DeepSpeed.

    Raises:
        EnvironmentSetupError: when it does, and DeepSpeed is not installed.
        UsageError: when it does, and there is one process.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return False
    if count() == 1:
        raise UsageError(
            "DeepSpeed shares the optimizer's state among processes, and there is one",
            fix="leave DeepSpeed out, or start several processes",
        )
    if not is_deepspeed_available():
        raise EnvironmentSetupError(
            "accelerate's configuration asks for DeepSpeed, which is not installed",
            fix="pip install deepspeed, or shard with FSDP: examples/accelerate/fsdp.yaml",
        )
    return True


def configure(plugin: DeepSpeedPlugin, *, share: int, clip: float, precision: str) -> None:
    """Give DeepSpeed the settings that are ours to make.

    Args:
        plugin: accelerate's configuration of it.
        share: samples per forward pass of each process.
        clip: largest gradient norm, 0 for none.
        precision: of the run.

    Raises:
        UsageError: for what this loop cannot do with it.
    """
    config = plugin.deepspeed_config
    devices = {plugin.offload_optimizer_device, plugin.offload_param_device} - {None, "none"}
    for refused, what, fix in (
        (plugin.zero_stage not in (1, 2), f"zero_stage: {plugin.zero_stage}", "set zero_stage to 1 or 2"),
        (bool(devices), "offloading", "set offload_optimizer_device and offload_param_device to none"),
        ("optimizer" in config or "scheduler" in config, "an optimizer or scheduler of its own",
         "leave them out of the DeepSpeed configuration; the command's settings make them"),
        (precision == "fp16", "precision fp16", "choose bf16 or no"),
    ):  # fmt: skip
        if refused:
            raise UsageError(f"DeepSpeed with {what} is not supported", fix=fix)
    config["train_micro_batch_size_per_gpu"] = share
    config["gradient_clipping"] = clip
    # the loop itself divides the loss, and says which micro-batch is the last one
    config["gradient_accumulation_steps"] = 1
    if precision == "bf16":
        # not its "bf16", which would turn the weights themselves
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}


class WholeState:
    """Stands for a ZeRO optimizer before the checkpoints: every tensor is whole, and belongs to one parameter.

    Args:
        zero: the optimizer that DeepSpeed made.
        trained: the parameters in the order of the groups.

    Raises:
        UsageError: when the state is not AdamW's.
    """

    def __init__(self, zero: Any, trained: Sequence[nn.Parameter]) -> None:
        if not isinstance(zero.optimizer, torch.optim.AdamW):
            raise UsageError(
                f"DeepSpeed with {type(zero.optimizer).__name__} is not supported",
                fix="choose optimizer adamw; DeepSpeed shares its state among the processes",
            )
        self.zero, self.trained = zero, trained
        self.param_groups: list[dict[str, Any]] = [{"params": list(trained)}]

    def _flat(self) -> list[Tensor]:
        """This process's piece of each group."""
        return [group["params"][0] for group in self.zero.param_groups]

    def _link(self) -> None:
        """Let parameters find their state. DeepSpeed does so after the step of the first group, when the others have
        none yet."""
        self.zero._hp_optimizer_states_linked = False
        self.zero._lazy_init_hp_params_optimizer_state()

    def state_dict(self) -> dict[str, Any]:
        """As ``torch.optim.AdamW`` gives it; every process must come here."""
        from deepspeed.utils import safe_get_full_optimizer_state

        known = self.zero.optimizer.state.get(self._flat()[0])
        if not known:  # before the first step
            return {"state": {}}
        self._link()
        return {
            "state": {
                index: {"step": known["step"].detach().cpu()}
                | {key: safe_get_full_optimizer_state(parameter, key) for key in _MOMENTS}
                for index, parameter in enumerate(self.trained)
            }
        }

    def load_state_dict(self, told: dict[str, Any]) -> None:
        """Take state and, into DeepSpeed's own copy, the parameters as they are now."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        states = told["state"]
        step = max((float(state["step"]) for state in states.values()), default=0.0)
        for flat in self._flat():
            moments = {key: torch.zeros_like(flat) for key in _MOMENTS}
            self.zero.optimizer.state[flat] = {"step": torch.tensor(step), **moments}
        self._link()
        for index, parameter in enumerate(self.trained):
            safe_set_full_fp32_param(parameter, parameter.detach())
            for key in _MOMENTS if index in states else ():
                safe_set_full_optimizer_state(parameter, states[index][key].to(parameter.device), key)
