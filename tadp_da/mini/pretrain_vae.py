"""The autoencoder of the mini Stable Diffusion: 128 x 128 pixels to 4 x 32 x 32 latents and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from tadp_da.mini.pretrain_data import TrainingImages
from tadp_da.mini.pretrain_loop import Budget, Draw, Schedule, atomic, rank, train

CROP = 64
NORM_GROUPS = 4  # few: groups of two channels would normalise brightness away
SCHEDULE = Schedule(lr=3e-3, warmup=100, weight_decay=0.0, ema=0.995)
LATENT_NOISE = 0.05  # in standard deviations of a channel: sampled latents are imperfect


def new_vae(widths: tuple[int, int, int] = (16, 32, 64), size: int = 128) -> AutoencoderKL:
    """An untrained autoencoder that shrinks by 4. No attention: it would be 1024 tokens wide."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=NORM_GROUPS,
        sample_size=size,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        # diffusers starts at a posterior std of 1, larger than any latent: unlearning it would take thousands of steps
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -6.0
    return vae.to(memory_format=torch.channels_last)


def recoloured(images: Tensor, draw: Draw, share: float = 0.35) -> Tensor:
    """Mix the colour channels of a share of the images (b 3 h w in -1..1) at random, as an unseen look might."""
    count = len(images)
    mix = torch.eye(3) + 0.35 * draw.normal(count, 3, 3)
    gain = draw.uniform(0.3, 1.1, count, 1, 1, 1)
    shift = draw.uniform(-0.4, 0.4, count, 3, 1, 1)
    mixed = (torch.einsum("bij,bjhw->bihw", mix, images) * gain + shift).clamp(-1, 1)
    chosen = draw.uniform(0, 1, count, 1, 1, 1) < share
    return torch.where(chosen, mixed, images)


def _crops(data: TrainingImages, draw: Draw, batch: int, size: int) -> Tensor:
    """Random crops, flipped at random, in -1..1."""
    chosen = draw.indices(len(data), batch)
    height, width = data.images.shape[1:3]
    rows = draw.numpy.integers(0, height - size + 1, batch)
    columns = draw.numpy.integers(0, width - size + 1, batch)
    cut = [
        torch.from_numpy(data.images[i, r : r + size, c : c + size])
        for i, r, c in zip(chosen, rows, columns, strict=True)
    ]
    images = torch.stack(cut).permute(0, 3, 1, 2).float() / 127.5 - 1
    flip = draw.uniform(0, 1, batch, 1, 1, 1) < 0.5
    return torch.where(flip, images.flip(-1), images).contiguous(memory_format=torch.channels_last)


def _edges(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., 1:, :] - images[..., :-1, :], images[..., :, 1:] - images[..., :, :-1]


def _hue(images: Tensor) -> Tensor:
    """Colour without brightness, one value per latent cell. Errors of brightness dominate those of hue; without this
    term, four channels encode one axis of colour, and a tree is decoded brown."""
    cells = F.avg_pool2d(images, 4)
    return cells - cells.mean(1, keepdim=True)


def _losses(vae: AutoencoderKL, images: Tensor, draw: Draw) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        latent = vae.encode(images).latent_dist
        spread = latent.mean.detach().float().std((0, 2, 3), keepdim=True)
        noise = draw.normal(*latent.mean.shape)
        spoiled = latent.mean + (latent.std + LATENT_NOISE * spread) * noise
        decoded = vae.decode(spoiled).sample
    decoded, mean, logvar = decoded.float(), latent.mean.float(), latent.logvar.float()
    edges = [F.l1_loss(a, b) for a, b in zip(_edges(decoded), _edges(images), strict=True)]
    return {
        "l1": F.l1_loss(decoded, images),
        "mse": F.mse_loss(decoded, images),
        "edges": 0.7 * torch.stack(edges).mean(),
        "hue": 2 * F.l1_loss(_hue(decoded), _hue(images)),
        "kl": 1e-5 * (0.5 * (mean.square() + logvar.exp() - 1 - logvar)).mean(),
    }


def fold(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Absorb (z - mean) / std per latent channel into the 1 x 1 convolutions around the latent.

    Afterwards latents have zero mean and unit variance per channel, as the forward process assumes, and images are
    decoded as before. `mean` and `std` have one entry per channel.
    """
    before, after = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    with torch.no_grad():
        before.weight[:channels] /= std[:, None, None, None]
        before.bias[:channels] = (before.bias[:channels] - mean) / std
        before.bias[channels:] -= 2 * std.log()
        after.bias += torch.einsum("oi,i->o", after.weight[:, :, 0, 0], mean)
        after.weight *= std[None, :, None, None]


def encode(vae: AutoencoderKL, data: TrainingImages, batch: int = 32) -> Tensor:
    """Posterior means of every image and of its mirror image, (n, 2, 4, h / 4, w / 4) in half precision."""
    encoded = []
    for start in range(0, len(data), batch):
        pixels = torch.from_numpy(data.images[start : start + batch]).permute(0, 3, 1, 2).float() / 127.5 - 1
        both = torch.cat([pixels, pixels.flip(-1)]).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            mean = vae.encode(both).latent_dist.mean
        encoded.append(torch.stack(mean.half().chunk(2), 1).contiguous())
    return torch.cat(encoded)


def _moments(vae: AutoencoderKL, data: TrainingImages, count: int = 1024) -> tuple[Tensor, Tensor]:
    latents = encode(vae, data.part(0, count)).float()
    return latents.mean((0, 1, 3, 4)), latents.std((0, 1, 3, 4))


def train_vae(
    data: TrainingImages, budget: Budget, work: Path, seed: int, schedule: Schedule = SCHEDULE, batch: int = 8
) -> AutoencoderKL:
    """Train on crops of all pretraining looks; the result, centred and scaled, is saved in `work/vae/model`."""
    torch.manual_seed(seed)
    vae = new_vae(size=data.size)
    crop = min(CROP, data.size)
    train(
        vae, lambda draw: _losses(vae, _crops_mixed(data, draw, batch, crop), draw), budget, schedule,
        work / "vae", seed,
    )  # fmt: skip
    fold(vae, *_moments(vae, data))
    if not rank()[0]:
        vae.save_pretrained(work / "vae" / "model")
    return vae


def _crops_mixed(data: TrainingImages, draw: Draw, batch: int, size: int) -> Tensor:
    return recoloured(_crops(data, draw, batch, size), draw)


def load_vae(work: Path) -> AutoencoderKL:
    """The trained autoencoder of a work folder."""
    vae = AutoencoderKL.from_pretrained(work / "vae" / "model").to(memory_format=torch.channels_last)
    return vae.eval().requires_grad_(False)


def cached_latents(vae: AutoencoderKL, data: Callable[[], TrainingImages], work: Path) -> Tensor:
    """`encode`, once: the latents are stored in `work/latents.pt`."""
    path = work / "latents.pt"
    if not path.exists():
        latents = encode(vae, data())
        atomic(path, lambda draft: torch.save(latents, draft))
    return torch.load(path, weights_only=True)
