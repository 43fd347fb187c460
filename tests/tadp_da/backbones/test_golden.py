"""The pyramid agrees with the reference implementation that the paper's authors used.

The fixture holds inputs and every n-th value of the features and maps of the original latent-diffusion UNet; its
weights are a formula of their names.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tadp_da.backbones.stable_diffusion import StableDiffusion

FIXTURE = Path(__file__).parents[2] / "fixtures" / "reference_unet.safetensors"


def _formula(name: str, like: Tensor, salt: str) -> Tensor:
    noise = torch.randn(
        like.shape, generator=torch.Generator().manual_seed(zlib.crc32((salt + name).encode()))
    )
    if noise.ndim > 1:
        return noise * (0.25 if "attn2.to_q" in name or "attn2.to_k" in name else 0.05)
    return 1 + 0.05 * noise if name.endswith("weight") else 0.02 * noise


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(FIXTURE, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize(
    ("device", "dtype", "allowed"),
    [
        ("cpu", None, 1e-4),
        ("cpu", torch.bfloat16, 0.1),
        pytest.param("cuda", None, 1e-4, marks=pytest.mark.gpu),
        pytest.param("cuda", torch.bfloat16, 0.1, marks=pytest.mark.gpu),
        pytest.param("cuda", torch.float16, 0.02, marks=pytest.mark.gpu),
    ],
)
def test_pyramid_is_that_of_the_reference(
    backbone: Any, reference: Any, device: str, dtype: torch.dtype | None, allowed: float
) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    tensors, facts = reference
    unet = UNet2DConditionModel(
        sample_size=32, cross_attention_dim=48, block_out_channels=(32, 64, 128, 128), attention_head_dim=8
    )
    unet.load_state_dict(
        {name: _formula(name, value, facts["salt"]) for name, value in unet.state_dict().items()}
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
    )
    model = StableDiffusion(unet, vae, backbone.text_encoder, backbone.tokenizer, backbone.scheduler)
    assert dict(model.spec.channels) == {8: 32, 16: 64, 32: 128, 64: 128}
    assert dict(model.spec.attention) == {16: 77, 32: 77}
    assert model.settings.timestep == int(facts["timestep"])
    model.to(device)
    with torch.no_grad(), torch.autocast(device, dtype, enabled=dtype is not None):
        # The reference starts from scaled latents of 256x256 pixels.
        inputs = (tensors["latents"].to(device), tensors["context"].to(device))
        levels = model.pyramid_of(*inputs, (256, 256)).levels()
    for entry in facts["every"].split():
        name, every = entry.split("=")
        found = levels[int(name.removeprefix("stride"))].float().cpu().flatten()[:: int(every)]
        expected = tensors[name]
        assert (found - expected).abs().max() <= allowed * expected.abs().max(), name
