"""Source images redrawn by the model: what is kept, what is ignored, and that work goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapt.sources import sources
from adapt.training_data import CaptionedImages
from tadp_da.errors import UsageError
from tadp_da.images import normalize
from tadp_da.run import Run
from tadp_da.settings import build
from tadp_da.tasks import tasks
from tadp_da.tasks.labels.label import Label
from tadp_da.types import Labeled
from tests.adapt.sources.test_sources import material

IMG2IMG = sources["img2img"]


def prepared(materials: Any, **settings: Any) -> Any:
    style = IMG2IMG(build(IMG2IMG.Settings, {"steps": 4, **settings}, "img2img"))
    style.prepare(lambda: materials)
    return style


class Sure(torch.nn.Module):
    """A judge that is sure of one class on the left half of every image, and of nothing on the right."""

    def __init__(self, model: Any, id: int) -> None:
        super().__init__()
        self.backbone, self.head, self.device, self.id = model.backbone, model.head, model.device, id
        self.encode_text = model.encode_text

    def forward(self, pixels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        raw = torch.zeros(1, 2, *pixels.shape[-2:])
        raw[:, self.id, :, : pixels.shape[-1] // 2] = 9
        return raw


@pytest.fixture
def example(labeled: Labeled, fresh_model: Any) -> tuple[str, np.ndarray, Any]:
    one = labeled[0]
    label = tasks["segmentation"].label(one.target, (64, 64), labeled.labels, where=one.key)
    return one.key, np.array(one.image), label


def test_what_a_sure_judge_contradicts_is_ignored_and_the_rest_of_the_label_stays(
    fresh_model: Any, labeled: Labeled, unlabeled: CaptionedImages, quiet: Run, example: Any
) -> None:
    key, image, label = example
    ids = label.tensors()
    assert (ids[:, :32] == 0).all()
    rng = np.random.default_rng(0)
    shown = {}
    for wrong in (0, 1):
        model = fresh_model()
        inputs = {"judge": wrong}
        given = material(
            model, labeled, unlabeled.images, quiet, judge=lambda m=model, w=wrong: Sure(m, w), inputs=inputs
        )
        style = prepared(given, most=0.6)
        drawn, kept = style(key, image, label, unlabeled.images, rng)
        shown[wrong] = drawn
        expected = torch.where(torch.arange(64) < 32, 255, ids) if wrong else ids
        assert torch.equal(kept.tensors(), expected)
        assert not np.array_equal(drawn, image)
        strict, _ = prepared(given, most=0.4)(key, image, label, unlabeled.images, rng)
        assert np.array_equal(strict, image) is bool(wrong)  # half of it is contradicted
    assert np.array_equal(shown[0], shown[1])  # a judge draws nothing


def test_an_interrupted_style_draws_what_is_missing_and_draws_it_alike(
    fresh_model: Any,
    labeled: Labeled,
    unlabeled: CaptionedImages,
    quiet: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = fresh_model()
    whole = prepared(material(model, labeled, unlabeled.images, quiet)).folder
    assert {path.name for path in whole.glob("*.png")} >= {
        "000000.png",
        "000002-ignored.png",
        "contact_sheet.png",
    }
    other = Run(folder=quiet.folder / "again", quiet=True, device="cpu")
    given, drawn = material(model, labeled, unlabeled.images, other), []
    draw = type(model.backbone).sample

    def sample(self: Any, prompts: Any, **how: Any) -> Any:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(prompts)
        return draw(self, prompts, **how)

    monkeypatch.setattr(type(model.backbone), "sample", sample)
    with pytest.raises(KeyboardInterrupt):
        prepared(given)
    drawn.clear()
    again = prepared(given).folder
    assert len(drawn) == 1
    for path in whole.glob("*.png"):
        assert path.read_bytes() == (again / path.name).read_bytes()
    drawn.extend([[], []])  # another would raise
    assert prepared(given).folder == again


def test_strength_and_statistics_lead_away_from_what_the_autoencoder_makes_of_the_image(
    fresh_model: Any, labeled: Labeled, unlabeled: CaptionedImages, quiet: Run, example: Any
) -> None:
    key, image, label = example
    model, rng = fresh_model(), np.random.default_rng(0)
    pixels = normalize(torch.from_numpy(image).permute(2, 0, 1))[None]
    decoded = model.backbone.decode_image(model.backbone.posterior(pixels)[0])[0].permute(1, 2, 0)
    nothing = (127.5 * (decoded.clamp(-1, 1) + 1)).detach().numpy()

    def far(**settings: Any) -> float:
        style = prepared(
            material(model, labeled, unlabeled.images, quiet, inputs=settings), most=1, **settings
        )
        assert style.reads_target is settings["statistics"]
        return float(np.abs(style(key, image, label, None, rng)[0] - nothing).mean())

    mild, strong = (far(strength=s, statistics=False, steps=10) for s in (0.1, 0.9))
    assert mild < strong
    assert far(strength=0.1, statistics=True, steps=10) > mild


def test_without_the_stage_it_says_who_makes_the_images(example: Any) -> None:
    with pytest.raises(UsageError, match="no redrawn images"):
        IMG2IMG()(*example, None, np.random.default_rng(0))


def test_objects_that_are_not_found_contradict_their_boxes() -> None:
    from tadp_da.tasks.labels.boxes import BoxLabel
    from tadp_da.types import Boxes, Detections, LabelSpace

    labels = LabelSpace("detection", ("car", "person"))
    truth = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 60, 60]], np.float32)
    boxes = Boxes(truth, np.array([0, 0, 1]), np.zeros(3, bool))
    label = BoxLabel.checked(boxes, (64, 64), labels, "x")

    corners = torch.tensor([[0.0, 0, 10, 9], [20, 20, 30, 30], [40, 40, 60, 60]])
    found = Detections.sorted(corners, torch.tensor([0, 1, 1]), torch.tensor([0.9, 0.8, 0.05]))
    area = label.doubted(found, 0.9)
    assert int(area.sum()) == 100 + 400
    assert label.doubted(found, 0.96).sum() == 100


def test_what_a_label_cannot_ignore_is_shown_unchanged(
    fresh_model: Any, labeled: Labeled, unlabeled: CaptionedImages, quiet: Run, example: Any
) -> None:
    key, image, mask = example
    given = material(fresh_model(), labeled, unlabeled.images, quiet, judge=lambda: Sure(fresh_model(), 1))
    shown, kept = prepared(given, most=0.6)(key, image, boxes := Label(mask.value), None, None)
    assert kept is boxes
    assert np.array_equal(shown[:, :32], image[:, :32])
    assert not np.array_equal(shown[:, 32:], image[:, 32:])


def test_labels_that_cannot_be_contradicted_stay(example: Any) -> None:
    _, _, mask = example
    label, everywhere = Label(mask.value), torch.ones(64, 64, dtype=torch.bool)
    assert not label.doubted(torch.zeros(3), 0.9).any()
    assert label.without(everywhere) is label


def test_the_sheet_shows_image_redrawn_image_and_what_is_ignored(
    fresh_model: Any, labeled: Labeled, unlabeled: CaptionedImages, quiet: Run
) -> None:
    from PIL import Image

    folder: Path = prepared(material(fresh_model(), labeled, unlabeled.images, quiet)).folder
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.size == (3 * 64, 3 * 64)
        assert np.array_equal(np.array(sheet)[:64, :64], np.array(labeled[0].image))


def test_a_strength_that_redraws_nothing_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(
        UsageError, match=r"strength 0\.4 of 2 steps is none; raise one of them: steps to 3 or more"
    ):
        build(IMG2IMG.Settings, {"steps": 2}, "img2img")
