"""Source images redrawn by the personalized model (SDEdit, Meng et al., ICLR 2022)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt.sources import Material, Source, sources
from tadp_da.distributed.processes import is_main
from tadp_da.errors import UsageError
from tadp_da.images import as_tensor, normalize, resize
from tadp_da.inference import pixels_of
from tadp_da.settings import as_json
from tadp_da.storage.files import replacing, write_json
from tadp_da.tasks import tasks
from tadp_da.training.data import mix

if TYPE_CHECKING:
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.types import Unlabeled

Share = Annotated[float, Field(ge=0, le=1)]
_INDEX, _SHEET, _SHOWN = "images.json", "contact_sheet.png", 12
_log = logging.getLogger(__name__)


@sources.add("img2img")
class Img2Img(Source):
    """The model with its concept redraws every source image once, as a target image of the same caption.

    The label stays. Where a model that was trained on the unchanged images contradicts it confidently, a mask is
    ignored, and boxes show the unchanged image; an image that is contradicted too much is shown unchanged. The redrawn
    images are an artifact beside the models, with a contact sheet: image, redrawn image, and what is contradicted in
    red.
    """

    @dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
    class Settings:
        """
        Attributes:
            strength: share of the noise schedule that images go through.
            steps: of the whole schedule.
            guidance: classifier-free guidance scale; 1 for none.
            statistics: start from latents with the mean and deviation per channel of the target's.
            confidence: probability from which a prediction contradicts a label.
            most: share of an image that may be contradicted.
        """

        strength: Annotated[float, Field(gt=0, le=1)] = 0.4
        steps: Annotated[int, Field(ge=1, le=1000)] = 25
        guidance: Annotated[float, Field(ge=1, le=30)] = 1.0
        statistics: bool = True
        confidence: Annotated[float, Field(gt=0.5, le=1)] = 0.9
        most: Share = 0.3

        @model_validator(mode="after")
        def _redraws(self) -> Any:
            if int(self.strength * self.steps) < 1:  # as diffusers counts
                raise ValueError(
                    f"strength {self.strength} of {self.steps} steps is none; raise one of them: steps to "
                    f"{math.ceil(1 / self.strength)} or more"
                )
            return self

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()
        self.reads_target = self.settings.statistics
        each = 2 if self.settings.guidance > 1 else 1
        self.passes = 1 + each * self.settings.strength * self.settings.steps  # 1 of the judge
        self.folder: Path | None = None
        self.doubted: dict[str, tuple[int, float]] = {}  # place and share of each image by key

    def prepare(self, material: Callable[[], Material]) -> None:
        """Make the images, unless they exist."""
        given = material()
        inputs = {**given.inputs, "style": as_json(self.settings), "seed": given.run.seed}
        self.folder = given.run.get_or_create("redrawn", inputs, partial(self._make, given), Path)
        shares = json.loads((self.folder / _INDEX).read_text(encoding="utf-8"))
        self.doubted = {key: (place, share) for place, (key, share) in enumerate(shares.items())}
        if left := sum(share > self.settings.most for share in shares.values()):
            _log.warning("%d of %d redrawn images are too unlike their labels", left, len(self.doubted))

    def __call__(
        self, key: str, image: np.ndarray, label: Any, target: Unlabeled | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        if self.folder is None:
            raise UsageError(
                "img2img has no redrawn images",
                fix="train with `tadp-da adapt` or tadp_da.adapt, which make them",
            )
        (place, share), size = self.doubted[key], label.size
        if share > self.settings.most:
            return image, label
        shown, area = (_read(path) for path in _files(self.folder, place))
        ignored = F.interpolate(area[None, :1].float(), size, mode="nearest-exact")[0, 0] > 0
        drawn, kept = resize(shown, size).permute(1, 2, 0).contiguous().numpy(), label.without(ignored)
        return (np.where(ignored[..., None], image, drawn) if kept is label else drawn), kept

    def _make(self, material: Material, folder: Path) -> None:
        judge = material.judge().to(material.run.torch_device)
        if not is_main():
            return  # one process draws, the others wait for the artifact
        model = material.model.to(material.run.torch_device)
        wanted = _statistics(model, material.target) if self.settings.statistics and material.target else None
        shares, tiles = dict[str, float](), list[Tensor]()
        with material.run.progress(len(material.data), "redrawing images") as advance:
            for index, (key, image, label) in enumerate(_examples(model, material)):
                paths = _files(folder, index)
                if not paths[1].exists():
                    drawn = self._redraw(
                        model, image, material.prompts[key], wanted, mix(material.run.seed, key)
                    )
                    _write(drawn, paths[0])
                    _write(self._contradicted(judge, drawn, label, material.prompts[key]), paths[1])
                drawn, area = map(_read, paths)
                shares[key] = float((area > 0).float().mean())
                if len(tiles) < _SHOWN:
                    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
                    marked = torch.where(area > 0, red, drawn)
                    tiles.append(torch.cat([image, drawn, marked], dim=2))
                advance("")
        write_json(folder / _INDEX, shares)
        _write(torch.cat([F.pad(t, (0, max(x.shape[2] for x in tiles) - t.shape[2])) for t in tiles], 1),
               folder / _SHEET)  # fmt: skip

    @torch.no_grad()
    def _redraw(
        self,
        model: PerceptionModel,
        image: Tensor,
        prompt: str,
        wanted: tuple[Tensor, Tensor] | None,
        seed: int,
    ) -> Tensor:
        backbone = model.backbone
        height, width = image.shape[-2:]
        latents = backbone.posterior(_padded(backbone, image).to(model.device))[0]
        if wanted is not None:
            std, mean = torch.std_mean(latents, dim=(2, 3), keepdim=True)
            latents = (latents - mean) / std.clamp(min=1e-5) * wanted[1] + wanted[0]
        chosen = self.settings
        (drawn,) = backbone.sample(
            [prompt],
            seed=seed,
            steps=chosen.steps,
            guidance=chosen.guidance,
            start=latents,
            strength=chosen.strength,
        )
        return as_tensor(drawn)[:, :height, :width]

    @torch.no_grad()
    def _contradicted(self, judge: PerceptionModel, drawn: Tensor, label: Any, prompt: str) -> Tensor:
        """Where the judge contradicts the label, 255 in ``uint8 (1, h, w)``."""
        text = judge.encode_text([prompt])
        raw = judge(normalize(drawn)[None].to(judge.device), text)
        (output,) = tasks[judge.head.task].outputs(judge.head, raw)
        return 255 * label.doubted(output, self.settings.confidence)[None].to(torch.uint8)


def _examples(model: PerceptionModel, material: Material) -> Iterator[tuple[str, Tensor, Any]]:
    """Key, image ``uint8 (3, h, w)`` and label at the working size."""
    for example in material.data:
        image = as_tensor(example.image)
        own = (image.shape[1], image.shape[2])
        label = tasks[model.head.task].label(example.target, own, model.head.labels, where=example.key)
        size = model.inference.size(*own)
        yield example.key, resize(image, size), label.resize(size)


@torch.no_grad()
def _statistics(model: PerceptionModel, target: Unlabeled) -> tuple[Tensor, Tensor]:
    """Mean and deviation ``(1, c, 1, 1)`` of the latents of up to 64 target images, averaged over images."""
    found = []
    for index in np.unique(np.linspace(0, len(target) - 1, 64).round().astype(int)).tolist():
        pixels = pixels_of(target[index], model.inference, model.device)
        grown = _grown(pixels, max(model.backbone.spec.channels))
        std, mean = torch.std_mean(model.backbone.posterior(grown)[0], dim=(2, 3), keepdim=True)
        found.append(torch.stack([mean, std]))
    mean, std = torch.stack(found).mean(0)
    return mean, std


def _padded(backbone: Any, image: Tensor) -> Tensor:
    return _grown(normalize(image)[None], max(backbone.spec.channels))


def _grown(pixels: Tensor, grid: int) -> Tensor:
    """Pixels ``(1, 3, h, w)`` grown to the latent grid by repeating the last row and column."""
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, -width % grid, 0, -height % grid), mode="replicate")


def _files(folder: Path, index: int) -> tuple[Path, Path]:
    return folder / f"{index:06d}.png", folder / f"{index:06d}-ignored.png"


def _read(path: Path) -> Tensor:
    with Image.open(path) as image:
        return as_tensor(image)


def _write(image: Tensor, path: Path) -> None:
    array = image.permute(1, 2, 0).numpy()
    with replacing(path) as fresh:
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(fresh, format="png")
