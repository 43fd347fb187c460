"""Which attention kernels really run on this machine, found by running them, and compilation; a helper, no plug-in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from tadp_da.errors import EnvironmentSetupError

_log = logging.getLogger(__name__)

Attention = Literal["auto", "sdpa", "xformers"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of trying a kernel.

    Attributes:
        state: ``"ok"`` runs and is right; ``"absent"`` is not installed; ``"elsewhere"`` is made for other devices;
            ``"broken"`` is here and does not work.
        says: one line.
        error: largest deviation from plain softmax attention, where it ran.
    """

    state: Literal["ok", "absent", "elsewhere", "broken"]
    says: str
    error: float | None = None


def deviation(attend: Callable[..., Any], device: torch.device, *, heads_last: bool = False) -> float:
    """Run attention forward and backward on a device, in fp16 on CUDA and in fp32 elsewhere: its largest error against
    plain softmax.

    Args:
        attend: takes queries, keys and values ``(b, heads, n, d)``.
        device: where to run.
        heads_last: it takes them as ``(b, n, heads, d)`` instead.

    Raises:
        ArithmeticError: when it computes something else, or its gradient is not finite.
    """
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 64, 64, generator=generator).to(device, dtype) for _ in range(3))
    for tensor in (q, k, v):
        tensor.requires_grad_()
    with torch.enable_grad():
        found = attend(*(t.transpose(1, 2).contiguous() if heads_last else t for t in (q, k, v)))
        if heads_last:
            found = found.transpose(1, 2)
        found.float().sum().backward()
    weights = (q.detach().float() @ k.detach().float().transpose(-1, -2) / 8).softmax(-1)
    error = float((found.detach().float() - weights @ v.detach().float()).abs().max())
    if not error < (1e-2 if dtype == torch.float16 else 1e-4):
        raise ArithmeticError(f"its values are off by {error:.2g}")
    if any(t.grad is None or not bool(t.grad.isfinite().all()) for t in (q, k, v)):
        raise ArithmeticError("its gradient is not finite")
    return error


def try_xformers(device: torch.device) -> Trial:
    """Run xformers' kernel on a device. Whether it is installed says little: PyPI's build lacks its CUDA runtime beside
    PyPI's torch, warns, and still counts as available elsewhere."""
    if importlib.util.find_spec("xformers") is None:
        return Trial(state="absent", says="not installed")
    version = _version("xformers")
    try:
        from xformers import _cpp_lib
        from xformers.ops import memory_efficient_attention

        fault = getattr(_cpp_lib, "_cpp_library_load_exception", None)
        if fault is not None:
            return Trial(state="broken", says=_mismatch(version, fault))
        error = deviation(memory_efficient_attention, device, heads_last=True)
    except NotImplementedError as refused:
        if device.type == "cuda":
            return Trial(
                state="broken", says=f"{version} has no kernel for this GPU ({_first_line(refused)})"
            )
        return Trial(state="elsewhere", says=f"{version} loads, but has kernels for CUDA only")
    except Exception as failed:  # whatever a broken build raises
        return Trial(state="broken", says=f"{version} fails here: {_first_line(failed)}")
    return Trial(state="ok", says=f"{version}, forward and backward on {device.type}", error=error)


def _mismatch(version: str, fault: BaseException) -> str:
    built = getattr(getattr(fault, "build_info", None), "torch_version", "")
    says = f"{version} is installed, but its extension does not load with torch {torch.__version__}"
    return (
        says
        + (f", it was built for {built}" if built else "")
        + f" ({_first_line(fault.__cause__ or fault)})"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


@cache
def _tried(device_type: str) -> Trial:
    """One trial, and one warning at most, per kind of device and process."""
    trial = try_xformers(torch.device(device_type))
    if trial.state == "broken":
        _log.warning("attention runs on torch's SDPA: xformers %s; see tadp-da doctor", trial.says)
    return trial


def attention_processor(wanted: Attention, device: torch.device) -> Any:
    """The diffusers processor for attention whose maps nobody reads.

    Args:
        wanted: ``"auto"`` takes xformers where its kernel runs on the device and torch's SDPA anywhere else.
        device: where it will run.

    Raises:
        EnvironmentSetupError: when ``"xformers"`` is asked for and does not run.
    """
    from diffusers.models.attention_processor import AttnProcessor2_0, XFormersAttnProcessor

    trial = _tried(device.type) if wanted == "auto" else None
    if wanted == "xformers":
        trial = try_xformers(device)
        if trial.state != "ok":
            raise EnvironmentSetupError(
                f"attention: xformers does not run on {device.type}: {trial.says}",
                where="backbone.attention",
                fix="choose attention: auto or sdpa; `tadp-da doctor` tells which kernels run here",
            )
    return XFormersAttnProcessor() if trial and trial.state == "ok" else AttnProcessor2_0()


_MOST_GRAPHS = 64


def lay_out(unet: Any, vae: Any, settings: Any) -> None:
    """Type, memory layout and compilation of the networks, as the settings of the backbone say."""
    if settings.vae_dtype == "bf16":
        torch.nn.Module.to(vae, torch.bfloat16)  # its own method warns of modules that it has not
    if settings.channels_last:
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    if settings.compile:
        _compile_blocks(unet)


def _compile_blocks(unet: Any) -> None:
    """Have a UNet's transformer blocks compiled when they first run; capture and state dict stay as they are."""
    import torch._dynamo

    # Every width, with maps and without, with gradients and without, is a graph of its own; torch's limit is 8.
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _MOST_GRAPHS)
    unet.compile_repeated_blocks()
