"""Inference: sizes, windows, mirror images, batches and precision, for every task."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tadp_da.heads import heads
from tadp_da.inference import InferenceSettings, pixels_of, predict, predict_images, read_ahead
from tadp_da.perception_model import PerceptionModel
from tadp_da.tasks import View, tasks
from tadp_da.types import Detections, LabelSpace
from tests.contract.kinds import KINDS

LABELS = LabelSpace("segmentation", ("sky", "road", "car"))
BOXES = LabelSpace("detection", ("car", "person", "tree"))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def assemble(backbone: Any, name: str = "semantic-fpn", **settings: Any) -> PerceptionModel:
    labels = KINDS[heads[name].task].labels
    return PerceptionModel.assemble(backbone, name, labels, inference=InferenceSettings(**settings), width=16)


class Finds:
    """A head that finds the box of all bright pixels of a view; its raw outputs are the pixels."""

    task, labels, nms, most = "detection", BOXES, 0.5, 100

    def predict(self, raw: torch.Tensor) -> list[Detections]:
        return [self.find(pixels) for pixels in raw]

    def find(self, pixels: torch.Tensor) -> Detections:
        y, x = (pixels[0] > 0).nonzero().unbind(dim=1)
        if len(y) == 0:
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
        box = [float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)]
        return Detections(np.array([box], np.float32), np.zeros(1, np.int64), np.float32([len(x) / 1000]))


class Looks:
    """A model whose raw outputs are the pixels; it notes the sizes of its batches."""

    device = torch.device("cpu")

    def __init__(self, head: Any, **settings: Any) -> None:
        self.head, self.inference, self.batches = head, InferenceSettings(**settings), list[int]()
        self.backbone = self

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        return torch.zeros(len(prompts), 1, 1)

    def __call__(self, pixels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        assert len(text) == len(pixels)
        self.batches.append(len(pixels))
        return pixels


class Brightest:
    """A head whose logits are its raw outputs."""

    task, labels = "segmentation", LABELS

    def predict(self, raw: torch.Tensor) -> list[np.ndarray]:
        return list(raw.argmax(dim=1).to(torch.uint8).numpy())


@pytest.mark.parametrize("size", [(100, 130), (64, 64), (30, 200), (65, 64)], ids=str)
def test_windows_cover_every_pixel_and_never_leave_the_image(size: tuple[int, int]) -> None:
    inference = InferenceSettings(window=(64, 48), stride=(40, 30))
    seen = np.zeros(size, int)
    boxes = inference.windows(*size)
    for rows, columns in boxes:
        assert 0 <= rows.start < rows.stop <= size[0]
        assert 0 <= columns.start < columns.stop <= size[1]
        seen[rows, columns] += 1
    assert seen.min() >= 1
    assert len({(r.stop - r.start, c.stop - c.start) for r, c in boxes}) == 1
    assert len(boxes) == len(set(map(str, boxes)))


@pytest.mark.parametrize(
    "settings", [{}, {"flip": True}, {"window": (32, 32), "stride": (10, 10), "flip": True}], ids=str
)
def test_windows_and_mirror_images_of_pixels_give_the_pixels(settings: dict[str, Any]) -> None:
    image = picture(50, 70)
    expected = np.asarray(image).argmax(axis=2)
    np.testing.assert_array_equal(predict(Looks(Brightest(), **settings), [image], [""])[0], expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"flip": True},
        {"window": (32, 48), "stride": (16, 24)},
        {"window": (40, 40), "flip": True},
        {"flip": True, "scales": (1, 2)},
    ],
    ids=["whole", "mirror", "windows", "both", "scales"],
)
def test_boxes_come_back_in_the_pixels_of_the_image(settings: dict[str, Any]) -> None:
    pixels = np.zeros((128, 288, 3), np.uint8)
    pixels[84:100, 180:252] = 255
    model = Looks(Finds(), squash=(64, 96), **settings)
    (found,) = predict(model, [Image.fromarray(pixels)], [""])
    best = found.xyxy[np.argmax((found.xyxy[:, 2:] - found.xyxy[:, :2]).prod(axis=1))]
    np.testing.assert_allclose(best, [180, 84, 252, 100])
    assert (found.xyxy == best).all(axis=1).sum() == 1, "windows and mirror images that agree give one box"


def test_logits_of_scales_are_averaged_at_the_size_of_the_image() -> None:
    image = picture(48, 64)
    model = Looks(Brightest(), window=(32, 32), scales=(1.0, 1.5))
    pixels = [pixels_of(image, model.inference, scale=scale) for scale in (1.0, 1.5)]
    assert [x.shape[-2:] for x in pixels] == [(48, 64), (72, 96)]
    larger = torch.nn.functional.interpolate(pixels[1], (48, 64), mode="bilinear", align_corners=False)
    expected = ((pixels[0] + larger) / 2)[0].argmax(dim=0).numpy()
    (found,) = predict(model, [image], [""])
    np.testing.assert_array_equal(found, expected)
    assert (found != pixels[0][0].argmax(dim=0).numpy()).any()
    assert sum(model.batches) == len(model.inference.windows(48, 64)) + len(model.inference.windows(72, 96))


def test_views_keep_the_best_of_each_class() -> None:
    def one(label: int, score: float) -> Detections:
        return Detections(np.float32([[0, 0, 10, 10]]), np.array([label]), np.float32([score]))

    views = [View(slice(top, top + 16), slice(0, 16), (32, 16)) for top in (0, 8, 16)]
    head = Finds()
    head.nms, head.most = 0.0, 2
    outputs = [one(0, 0.5), one(0, 0.8), one(1, 0.6)]
    found = tasks["detection"].merge(head, outputs, views, (32, 16))
    assert found.scores.tolist() == pytest.approx([0.8, 0.6])
    assert found.labels.tolist() == [0, 1]
    assert found.xyxy[0].tolist() == [0, 8, 10, 18], "the second window begins at row 8"


def test_detections_are_sorted_and_equal_scores_keep_their_order() -> None:
    scores = torch.tensor([0.2, 0.9, 0.2, 0.9])
    found = Detections.sorted(torch.arange(16.0).reshape(4, 4), torch.tensor([0, 1, 2, 3]), scores)
    assert found.labels.tolist() == [1, 3, 0, 2]


def test_windows_share_forward_passes_up_to_the_largest_batch() -> None:
    for batch, expected in ((8, [8, 1]), (4, [4, 4, 1]), (100, [9])):
        model = Looks(Brightest(), window=(32, 32), stride=(32, 32), batch=batch)
        predict(model, [picture(96, 96)], [""])
        assert model.batches == expected


def test_neighbours_of_one_size_share_a_forward_pass_in_their_order() -> None:
    images = [picture(8, 8, 0), picture(8, 8, 1), picture(8, 8, 2), picture(8, 16, 3), picture(8, 8, 4)]
    model, taken = Looks(Brightest()), list[int]()

    def items() -> Any:
        for number, image in enumerate(images):
            taken.append(number)
            yield image, ""

    found = predict_images(model, items(), batch=2)
    first = next(found)
    assert taken == [0, 1, 2], "no more images are opened than needed"
    for prediction, image in zip([first, *found], images, strict=True):
        np.testing.assert_array_equal(prediction, np.asarray(image).argmax(axis=2))
    assert model.batches == [2, 1, 1, 1]


@pytest.mark.parametrize("name", list(heads))
def test_a_single_view_is_the_networks_own_forward_pass_bit_for_bit(backbone: Any, name: str) -> None:
    model, image = assemble(backbone, name), picture(61, 83)
    with torch.no_grad():
        raw = model(pixels_of(image, model.inference), backbone.encode_text(["a street"]))
    expected, found = model.head.predict(raw)[0], model.predict(image, "a street")
    assert type(found) is type(expected)
    for a, b in zip(
        *([x] if isinstance(x, np.ndarray) else vars(x).values() for x in (expected, found)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_window_that_covers_the_image_is_the_whole_image(backbone: Any) -> None:
    image = picture(64, 96)
    whole = assemble(backbone).predict(image, "a street")
    for settings in ({"window": (64, 96)}, {"window": (128, 128), "stride": (8, 8)}):
        np.testing.assert_array_equal(assemble(backbone, **settings).predict(image, "a street"), whole)


def test_mirrored_images_get_mirrored_predictions_when_merged_with_their_mirror_image(backbone: Any) -> None:
    model, image = assemble(backbone, flip=True), picture(64, 64)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    same = model.predict(mirrored, "a street") == model.predict(image, "a street")[:, ::-1]
    assert same.mean() > 0.999


def test_precision_is_that_of_the_run(backbone: Any) -> None:
    model, image, seen = assemble(backbone), picture(64, 64), list[torch.dtype]()
    hook = model.head.classify.register_forward_hook(lambda *x: seen.append(x[2].dtype))
    full, half = (model.predict(image, "a street", precision=p) for p in ("no", "bf16"))
    hook.remove()
    assert seen == [torch.float32, torch.bfloat16]
    assert (full == half).mean() > 0.9


def test_images_are_read_at_the_working_size_as_in_training() -> None:
    from adapt.augmentation import finish, resize
    from tadp_da.tasks.labels.masks import MaskLabel

    image, settings = picture(64, 96), InferenceSettings(long=48)
    label = MaskLabel.checked(np.zeros((64, 96), np.uint8), (64, 96), LABELS, "here")
    trained, _ = finish(*resize(np.array(image), label, (32, 48)), flipped=False)
    assert torch.equal(pixels_of(image, settings)[0], trained)


def test_windows_of_the_paper() -> None:
    inference = InferenceSettings(short=512, long=1024, window=(512, 512), stride=(341, 341))
    assert inference.size(1080, 1920) == (512, 910)
    assert inference.size(1024, 2048) == (512, 1024)
    assert [columns.start for _, columns in inference.windows(512, 1024)] == [0, 341, 512]


@pytest.mark.parametrize(
    "wrong",
    [{"stride": (8, 8)}, {"window": (32, 32), "stride": (33, 8)}, {"short": 0}, {"size": 5}, {"batch": 0}],
)
def test_nonsensical_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InferenceSettings(**wrong)


def test_the_next_image_is_read_meanwhile_and_an_error_comes_in_its_place() -> None:
    begun: list[int] = []
    second = threading.Event()

    def read(index: int) -> int:
        begun.append(index)
        if index == 1:
            second.set()
        return 6 // (2 - index)

    results = read_ahead(read, range(4))
    assert next(results).result() == 3
    assert second.wait(5)
    assert next(results).result() == 6
    with pytest.raises(ZeroDivisionError):
        next(results).result()
    assert next(results).result() == -6
    assert begun == [0, 1, 2, 3]
