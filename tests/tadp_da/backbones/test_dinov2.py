"""DINOv2 as a perception backbone; what every backbone must do is in ``tests/contract``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapt.fine_tuning import FineTuning
from tadp_da.backbones.dinov2 import DINOv2, DINOv2Settings
from tadp_da.errors import ArtifactError, EnvironmentSetupError, UsageError
from tadp_da.images import imagenet_normalize
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.types import Boxes, Labeled, LabelSpace, Unlabeled
from tests.adapt.boxes import PLAIN, scene
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dinov2(tmp_path_factory.mktemp("models") / "dinov2")


@pytest.mark.parametrize("registers", [0, 2])
def test_the_deepest_level_is_the_last_hidden_state_of_transformers(tmp_path: Path, registers: int) -> None:
    backbone = DINOv2.from_pretrained(str(save_tiny_dinov2(tmp_path / "model", registers=registers)))
    assert backbone.feature_layers == {8: 1, 16: 2, 32: 3, 64: 4}
    pixels = torch.rand(1, 3, 128, 192) * 2 - 1
    latents = backbone.encode_image(pixels)
    assert latents.shape == (1, 3, 112, 168), "a patch of 14 covers 16 pixels"
    with torch.no_grad():
        theirs = backbone.network(latents, output_hidden_states=True)
        ours = backbone.pyramid(pixels, backbone.encode_text(["a"])).features
    patches = theirs.last_hidden_state[:, 1 + registers :].transpose(1, 2).unflatten(2, (8, 12))
    torch.testing.assert_close(ours[64], torch.nn.functional.avg_pool2d(patches, 4))
    shallower = backbone.network.layernorm(theirs.hidden_states[2])[:, 1 + registers :]
    torch.testing.assert_close(ours[16], shallower.transpose(1, 2).unflatten(2, (8, 12)))


def test_cells_of_every_level_line_up_with_the_pixels(folder: Path) -> None:
    """Resampling by powers of two: the mean of a level's cells over a coarse cell is the coarse cell."""
    from tadp_da.backbones.dinov2 import _resample

    patches = torch.zeros(1, 1, 8, 8)
    patches[..., 4:, :] = 1
    assert torch.equal(_resample(patches, 16, 32)[0, 0, :, 0], torch.tensor([0.0, 0, 1, 1]))
    fine = _resample(patches, 16, 8)[0, 0, :, 0]
    torch.testing.assert_close(fine[[6, 7, 8, 9]], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_the_stride_decides_how_many_patches_are_seen(folder: Path) -> None:
    fine = DINOv2.from_pretrained(str(folder), DINOv2Settings(stride=8))
    assert list(fine.spec.channels) == [4, 8, 16, 32]
    assert fine.encode_image(torch.zeros(1, 3, 64, 64)).shape[-1] == 64 // 8 * 14
    assert DINOv2.from_pretrained(str(folder)).default_resolution == 64


def test_pixels_are_normalized_as_torchvision_does() -> None:
    from torchvision.transforms.functional import normalize

    pixels = torch.rand(2, 3, 8, 8)
    expected = normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(imagenet_normalize(pixels * 2 - 1), expected)


def _data(root: Path, task: str) -> Labeled:
    paths, truths = [], []
    for i in range(2):
        image, mask = scene(i)
        Image.fromarray(image).save(root / f"{i}.png")
        paths.append(root / f"{i}.png")
        rows, columns = np.nonzero(mask)
        box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
        boxes = Boxes(box, np.zeros(1, np.int64), np.zeros(1, bool))
        truths.append(mask if task == "segmentation" else boxes)
    return Labeled(
        domain="boxes",
        labels=LABELS[task],
        images=Unlabeled("boxes", root, tuple(paths)),
        label=lambda i: truths[i],
        captions={f"{i}.png": "a dark street" for i in range(2)},
    )


LABELS = {
    "segmentation": LabelSpace("segmentation", ("dark", "bright")),
    "detection": LabelSpace("detection", ("box",)),
}
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "segmentation": ("semantic-fpn", {"width": 16}),
    "detection": ("faster-rcnn", {"width": 16, "hidden": 16}),
}


@pytest.mark.parametrize(
    ("task", "scope"), [("segmentation", "full"), ("segmentation", "frozen"), ("detection", "lora")]
)
def test_it_trains_and_predicts_inside_a_perception_model(
    folder: Path, tmp_path: Path, task: str, scope: Any
) -> None:
    name, settings = HEADS[task]
    backbone = DINOv2.from_pretrained(str(folder))
    model = PerceptionModel.assemble(backbone, name, LABELS[task], **settings)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tuning = FineTuning(
        steps=2, batch=1, backbone=scope, backbone_lr=1e-2, head_lr=1e-2, warmup=0, augment=PLAIN, lora_rank=2
    )
    run = Run(folder=tmp_path / "run", quiet=True, device="cpu")
    tuning(model, _data(tmp_path, task), lambda caption: caption, run)
    assert model.state_dict().keys() == before.keys()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert any(k.startswith("head.") for k in moved)
    assert any(k.startswith("backbone.") for k in moved) == (scope != "frozen")
    model.save(tmp_path / "model")
    again = PerceptionModel.load(tmp_path / "model")
    assert isinstance(again.backbone, DINOv2)
    image = Image.fromarray(scene(7, (72, 90))[0])
    ours, theirs = model.predict(image, "a street"), again.predict(image, "anything else")
    values = (ours, theirs) if task == "segmentation" else (ours.xyxy, theirs.xyxy)
    np.testing.assert_array_equal(*values)
    with pytest.raises(UsageError, match="no attention maps"):
        again.attention(image, ["street"], "a street")


def test_a_model_that_is_not_here_is_refused_with_what_to_fetch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(EnvironmentSetupError, match="cannot fetch 'dinov2-small'") as caught:
        DINOv2.from_pretrained("dinov2-small")
    assert "hf download facebook/dinov2-small --local-dir FOLDER --revision" in caught.value.fix
    with pytest.raises(EnvironmentSetupError, match="is not a folder with a transformers DINOv2") as caught:
        DINOv2.from_pretrained("mini")
    assert "dinov2-base" in caught.value.fix
    with pytest.raises(EnvironmentSetupError, match="not in the hub's cache"):
        DINOv2.on_meta("someone/dinov2")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ArtifactError, match="of type 'vit'"):
        DINOv2.from_pretrained(str(other))


def test_the_built_in_sizes_are_those_of_dinov2() -> None:
    counted = {
        name: sum(p.numel() for p in DINOv2.on_meta(name).parameters())
        for name in ("dinov2-small", "dinov2-base")
    }
    assert counted == {"dinov2-small": 22_056_576, "dinov2-base": 86_580_480}
