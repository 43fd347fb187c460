"""Probes of native code: a small real call of everything that training or captioning depends on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tadp_da.doctor.finding import Finding, Probe, ok
from tadp_da.errors import EnvironmentSetupError

if TYPE_CHECKING:
    import torch

_AGAIN = "install the package again in a fresh virtual environment: pip install tadp-da"
_TORCH = (
    "install torch and torchvision of one release for your driver: https://pytorch.org/get-started/locally"
)
_GIB = 2**30


def _best_device() -> torch.device:
    from tadp_da.run import Run

    return Run(folder=Path()).torch_device


def _torch() -> Finding:
    import torch

    devices: list[dict[str, Any]] = [
        {"name": "cpu", "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    ]
    for index in range(torch.cuda.device_count()):
        free, total = (round(size / _GIB, 1) for size in torch.cuda.mem_get_info(index))
        gpu = {
            "name": f"cuda:{index} {torch.cuda.get_device_name(index)}",
            "free GiB": free,
            "total GiB": total,
        }
        capability = ".".join(map(str, torch.cuda.get_device_capability(index)))
        devices.append(gpu | {"capability": capability, "bf16": torch.cuda.is_bf16_supported()})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps"})
    names = []
    for device in devices:
        name = str(device["name"])
        _multiply(name.split()[0])
        memory = f" ({device['free GiB']} of {device['total GiB']} GiB free)" if "free GiB" in device else ""
        names.append(name + memory)
    facts = {"version": torch.__version__, "cuda": torch.version.cuda, "devices": devices}
    says = f"{torch.__version__} computes on {'; '.join(names)}; auto selects {_best_device()}"
    driver = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    if driver and not torch.cuda.is_available():
        fix = f"torch finds no GPU although a driver is installed; compare `nvidia-smi` with the build: {_TORCH}"
        return Finding(state="warn", says=says, fix=fix, facts=facts)
    return ok(says, facts)


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise ArithmeticError(otherwise)


def _multiply(device: str) -> None:
    import torch

    ones = torch.ones(64, 64, device=device, requires_grad=True)
    (ones @ ones).sum().backward()
    right = ones.grad is not None and bool((ones.grad == 128).all())
    _expect(right, f"a matrix product on {device} is wrong")


def _torchvision() -> Finding:
    import torch
    import torchvision
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], device=_best_device())
    kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=boxes.device), 0.5).tolist()
    _expect(kept == [0, 2], f"non-maximum suppression keeps boxes {kept}, expected [0, 2]")
    return ok(f"{torchvision.__version__}, its kernels work")


def _training() -> Finding:
    """One LoRA step on a tiny UNet, with diffusers, peft, transformers, accelerate and the default attention."""
    import torch
    from accelerate import Accelerator  # noqa: F401
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig
    from transformers import CLIPTextModel  # noqa: F401

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    unet.add_adapter(LoraConfig(r=2, init_lora_weights="gaussian", target_modules=["to_q", "to_v"]))
    device = _best_device()
    unet.to(device)
    trained = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1)
    noise, text = torch.randn(1, 4, 8, 8, device=device), torch.randn(1, 3, 8, device=device)
    unet(noise, 1, text).sample.square().mean().backward()
    optimizer.step()
    changed = any(bool((p != before[name]).any()) for name, p in trained.items())
    finite = all(bool(p.isfinite().all()) for p in trained.values())
    _expect(changed, "a LoRA training step changed no parameter")
    _expect(finite, "a LoRA training step gave values that are not finite")
    return ok(f"a LoRA step on a tiny UNet works on {device}")


def _sdpa(backend: str) -> Finding:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    from tadp_da.backbones.sd.kernels import deviation

    device = _best_device()
    if backend == "auto":
        error = deviation(scaled_dot_product_attention, device)
    else:
        try:
            with sdpa_kernel(getattr(SDPBackend, backend)):
                error = deviation(scaled_dot_product_attention, device)
        except RuntimeError as refused:
            if not str(refused).startswith(("No available kernel", "No viable backend")):
                raise
            return Finding(state="off", says=f"torch has none for {device.type}")
    return ok(f"forward and backward on {device.type}", {"error": error})


_XFORMERS = (
    "not needed, attention uses torch's SDPA: pip uninstall xformers. To keep it, install the wheel built for the "
    "CUDA of your torch: pip install xformers --index-url https://download.pytorch.org/whl/cuXXX"
)


def _xformers() -> Finding:
    import torch

    from tadp_da.backbones.sd.kernels import try_xformers

    trial = try_xformers(_best_device())
    facts = {"version": _version("xformers"), "torch": torch.__version__}
    if trial.state == "ok":
        return ok(trial.says, facts | {"error": trial.error})
    if trial.state == "broken":
        fix = _XFORMERS.replace("cuXXX", f"cu{(torch.version.cuda or 'XXX').replace('.', '')}")
        return Finding(state="red", says=trial.says, fix=fix, facts=facts)
    return Finding(state="off", says=f"{trial.says}; not needed, attention uses torch's SDPA")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


_BITSANDBYTES = (
    "pip install -U 'bitsandbytes>=0.50'; until then keep `optimizer: adamw` and unquantized captioners"
)


def _bitsandbytes(call: Callable[[], str]) -> Finding:
    if importlib.util.find_spec("bitsandbytes") is None:
        fix = "only for 8-bit optimizer states or quantized captioners: pip install 'tadp-da[gpu]'"
        return Finding(state="off", says="bitsandbytes is not installed", fix=fix)
    says = f"bitsandbytes {_version('bitsandbytes')}: {call()} on {_best_device().type}"
    return ok(says)


def _adamw8bit() -> str:
    import torch
    from bitsandbytes.optim import AdamW8bit

    # tensors with fewer than 4096 elements keep 32-bit states
    weight = torch.nn.Parameter(torch.ones(64, 128, device=_best_device()))
    optimizer = AdamW8bit([weight], lr=0.1, weight_decay=0.0)
    weight.square().sum().backward()
    optimizer.step()
    state = optimizer.state[weight]["state1"]
    _expect(state.dtype == torch.uint8, f"the optimizer's states are {state.dtype}, expected torch.uint8")
    error = float((weight.detach() - 0.9).abs().max())  # Adam's first step is the learning rate
    _expect(error < 0.01, f"a step of AdamW8bit is off by {error:.2g}")
    return "a step of AdamW8bit works"


def _linear(kind: str, most: float) -> str:
    import bitsandbytes
    import torch

    torch.manual_seed(0)
    settings: Any = {"Linear8bitLt": {"has_fp16_weights": False}, "Linear4bit": {"quant_type": "nf4"}}[kind]
    layer = getattr(bitsandbytes.nn, kind)(64, 64, **settings)
    plain, device = torch.nn.Linear(64, 64), _best_device()
    layer.load_state_dict(plain.state_dict())
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    x = torch.randn(8, 64)
    with torch.no_grad():
        found, exact = layer.to(device)(x.to(device, dtype)).float().cpu(), plain(x)
    error = float((found - exact).abs().mean() / exact.abs().mean())
    _expect(error < most, f"{kind} is off by {error:.0%}, expected at most {most:.0%}")
    return f"{kind} works, {error:.1%} off"


def _mini(part: str) -> Finding:
    from tadp_da.backbones import backbones, load_backbone
    from tadp_da.mini import WEIGHTS

    files = [path for path in (WEIGHTS / part).rglob("*") if path.is_file()]
    if not files:
        raise EnvironmentSetupError(f"{WEIGHTS / part} is missing from this installation")
    if part in backbones:
        load_backbone(part, "mini")
    else:
        from tadp_da.captions.captioner import Captioner

        Captioner.from_pretrained("mini")
    size = sum(path.stat().st_size for path in files)
    return ok(f"loads, {size / 1e6:.0f} MB", {"bytes": size})


_SDPA_FIX = f"torch's own kernel fails on this device: {_TORCH}"
_MINI_FIX = (
    "install the package again, or train the weights: python -m tadp_da.mini.pretrain. Until then `demo` cannot "
    "run; give --model and --captioner folders of your own"
)
_LINEAR = {"8-bit linear": ("Linear8bitLt", 0.05), "4-bit linear": ("Linear4bit", 0.25)}

KERNELS = (
    Probe(name="torch", run=_torch, core=True, fix=_TORCH),
    Probe(name="torchvision", run=_torchvision, core=True, fix=_TORCH),
    Probe(name="attention: sdpa auto", run=partial(_sdpa, "auto"), core=True, fix=_SDPA_FIX),
    *(
        Probe(name=f"attention: sdpa {name.split('_')[0].lower()}", run=partial(_sdpa, name), fix=_SDPA_FIX)
        for name in ("MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
    ),
    Probe(name="attention: xformers", run=_xformers, fix=_XFORMERS),
    Probe(name="training", run=_training, core=True, fix=_AGAIN),
    Probe(name="8-bit AdamW", run=partial(_bitsandbytes, _adamw8bit), fix=_BITSANDBYTES),
    *(
        Probe(name=name, run=partial(_bitsandbytes, partial(_linear, *kind)), fix=_BITSANDBYTES)
        for name, kind in _LINEAR.items()
    ),
    *(
        Probe(name=f"embedded {part}", run=partial(_mini, part), fix=_MINI_FIX)
        for part in ("stable-diffusion", "blip2")
    ),
)
"""In this order. They run outside of the caller's process."""
