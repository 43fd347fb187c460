"""Fine-tuning over source and target: what each objective sees, and what it never can."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from adapt import Augmentation, FineTuning
from adapt.batches import raw_outputs
from adapt.objectives import Objective, objectives
from adapt.sources import Source
from adapt.training_data import CaptionedImages, PromptEmbeddings, TargetDataset
from tadp_da.errors import UsageError
from tadp_da.inference import InferenceSettings
from tadp_da.run import Run
from tadp_da.training.objective import Generators
from tadp_da.types import Labeled, Unlabeled

QUICK = FineTuning(steps=2, batch=2, backbone="frozen", head_lr=1e-3, warmup=0, augment=Augmentation())


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NoSettings:
    """Nothing to set."""


class Confident(Objective):
    """Raw outputs on target images shall be small; notes what it is given."""

    Settings = NoSettings
    streams = frozenset({"target"})

    def __init__(self, pixels: bool = False) -> None:
        self.settings, self.pixels = NoSettings(), pixels
        self.batches: list[Mapping[str, Any]] = []

    def __call__(
        self, model: Any, batches: Mapping[str, Any], step: int, generators: Generators
    ) -> Mapping[str, Tensor]:
        self.batches.append(batches["target"])
        outputs = raw_outputs(model, batches["target"], generators["target"])
        return {"confident": 0.1 * outputs.float().square().mean()}


class Negative(Source):
    """Shows the negative of an image."""

    Settings = NoSettings

    def __init__(self) -> None:
        self.settings = NoSettings()

    def __call__(
        self, key: str, image: np.ndarray, label: Any, target: Unlabeled | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        assert target is None or len(target) == 2
        rng.random(100)  # must not move the flips
        return 255 - image, label


def recorded(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("pixels", [False, True])
def test_an_objective_on_the_target_reads_images_and_prompts_and_no_label(
    fresh_model: Any, labeled: Labeled, unlabeled: CaptionedImages, quiet: Run, pixels: bool
) -> None:
    seen, model = Confident(pixels), fresh_model()
    tuning = dataclasses.replace(QUICK, target_batch=1)
    tuning(model, labeled, str, quiet, unlabeled=unlabeled, objectives=[objectives["supervised"](), seen])
    assert [set(line["losses"]) for line in recorded(quiet)] == [{"supervised", "confident"}] * 2
    assert len(seen.batches) == 2
    for batch in seen.batches:
        assert set(batch) == {"text", "size", "valid", "pixels" if pixels else "latents"}
        assert batch["text"].shape[0] == 1
        assert batch["valid"].dtype == torch.bool
        assert bool(batch["valid"].all())
        with torch.no_grad():
            expected = model.backbone.encode_text(["a dark street"])
        torch.testing.assert_close(batch["text"], expected)


def test_there_is_no_label_in_what_the_target_stream_is_made_of() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(CaptionedImages)}
    assert fields == {"images": "Unlabeled", "captions": "Mapping[str, str]"}
    assert {field.name for field in dataclasses.fields(Unlabeled)} == {"domain", "root", "paths", "digests"}


def test_padding_of_a_target_image_is_marked(fresh_model: Any, tmp_path: Path, quiet: Run) -> None:
    paths = tuple(tmp_path / f"{i}.png" for i in range(2))
    for path, (height, width) in zip(paths, [(64, 32), (32, 64)], strict=True):
        Image.new("RGB", (width, height), (9, 9, 9)).save(path)
    data = CaptionedImages(Unlabeled("t", tmp_path, paths), {path.name: "a car" for path in paths})
    text = PromptEmbeddings(fresh_model(), data, str, quiet)
    dataset = TargetDataset(
        data.images, text, InferenceSettings().size, Augmentation(flip=1.0, photometric=True)
    )
    batch = dataset.collate([dataset.fetch(i, np.random.default_rng(0)) for i in range(2)])
    assert batch["valid"].sum(dim=(1, 2)).tolist() == [64 * 32] * 2
    assert bool(batch["valid"][0, :, 32:].all()), "mirrored with its image"
    dark = batch["pixels"].mean(1) < -0.9
    assert torch.equal(dark, batch["valid"]), "and colours are as they were"


def test_another_style_turns_cached_latents_off_and_leaves_flips_as_they_are(
    fresh_model: Any, labeled: Labeled, quiet: Run
) -> None:
    seen: dict[str, list[Mapping[str, Any]]] = {}

    class Spy(objectives["supervised"]):  # type: ignore[misc]
        def __call__(self, model: Any, batches: Any, step: int, generators: Any) -> Any:
            seen.setdefault(self.name, []).append(batches["source"])
            return super().__call__(model, batches, step, generators)

    for name, source in (("original", None), ("negative", Negative())):
        spy = Spy()
        spy.name = name
        tuning = dataclasses.replace(QUICK, cache_latents=name == "negative")
        run = quiet.inside(quiet.folder / name)
        tuning(fresh_model(), labeled, str, run, objectives=[spy], source=source)
    for plain, negative in zip(seen["original"], seen["negative"], strict=True):
        torch.testing.assert_close(plain["pixels"], -negative["pixels"])
        assert torch.equal(plain["target"], negative["target"])


def test_target_images_that_are_needed_and_not_given_are_refused(
    fresh_model: Any, labeled: Labeled, quiet: Run
) -> None:
    with pytest.raises(UsageError, match="Confident reads target images"):
        QUICK(fresh_model(), labeled, str, quiet, objectives=[Confident()])
    needy = Negative()
    needy.reads_target = True
    with pytest.raises(UsageError, match="Negative reads target images") as caught:
        QUICK(fresh_model(), labeled, str, quiet, source=needy)
    assert "give unlabelled target images" in caught.value.fix
    with pytest.raises(UsageError, match="no objective"):
        QUICK(fresh_model(), labeled, str, quiet, objectives=[])
