"""DeepSpeed's ZeRO, stages 1 and 2: its configuration, and its optimizer's state as whole tensors.

Every process has all parameters and a part of the optimizer's state, one flat tensor per group. DeepSpeed's own
checkpoints are pickles of these parts for one number of processes; here the state is that of AdamW, by parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import DeepSpeedPlugin, is_deepspeed_available, parse_flag_from_env
from torch import Tensor, nn

from tadp_da.distributed.processes import count
from tadp_da.errors import EnvironmentSetupError, UsageError

_MOMENTS = ("exp_avg", "exp_avg_sq")


def wanted() -> bool:
    """Whether accelerate's configuration asks for DeepSpeed.

    Raises:
        EnvironmentSetupError: when it is not installed.
        UsageError: when there is only one process.
    """
    if not parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        return False
    if count() == 1:
        raise UsageError(
            "DeepSpeed shares the optimizer's state among processes, and there is one",
            fix="leave DeepSpeed out, or start several processes",
        )
    if not is_deepspeed_available():
        raise EnvironmentSetupError(
            "accelerate's configuration asks for DeepSpeed, which is not installed",
            fix="pip install deepspeed, or shard with FSDP: docs/examples/accelerate/fsdp.yaml",
        )
    return True


def configure(plugin: DeepSpeedPlugin, *, share: int, clip: float, precision: str) -> None:
    """Set batch size, clipping, accumulation and precision of DeepSpeed; see
    :func:`tadp_da.distributed.accelerator.make_accelerator`.

    Raises:
        UsageError: for a configuration that is not supported.
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
    # the loop divides the loss, and says which micro-batch is the last
    config["gradient_accumulation_steps"] = 1
    if precision == "bf16":
        # not "bf16", which converts the weights
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}


class WholeState:
    """A ZeRO optimizer with the state of ``torch.optim.AdamW``, whole tensors by parameter.

    Args:
        zero: DeepSpeed's optimizer.
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
        """This process's part of each group."""
        return [group["params"][0] for group in self.zero.param_groups]

    def _link(self) -> None:
        """Link parameters to their state. DeepSpeed does so after the first group's step, when the others have none."""
        self.zero._hp_optimizer_states_linked = False
        self.zero._lazy_init_hp_params_optimizer_state()

    def state_dict(self) -> dict[str, Any]:
        """As of ``torch.optim.AdamW``; every process must call this."""
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

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the state and, in DeepSpeed's own copy, the parameters as they are now."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        states = state["state"]
        step = max((float(each["step"]) for each in states.values()), default=0.0)
        for flat in self._flat():
            moments = {key: torch.zeros_like(flat) for key in _MOMENTS}
            self.zero.optimizer.state[flat] = {"step": torch.tensor(step), **moments}
        self._link()
        for index, parameter in enumerate(self.trained):
            safe_set_full_fp32_param(parameter, parameter.detach())
            for key in _MOMENTS if index in states else ():
                safe_set_full_optimizer_state(parameter, states[index][key].to(parameter.device), key)
