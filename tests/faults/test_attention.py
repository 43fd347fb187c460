"""Kernels that are missing, broken or swapped, and images of any shape."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image

from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.errors import EnvironmentSetupError
from tadp_da.perception_model import PerceptionModel
from tadp_da.types import LabelSpace
from tests.faults.victims import Line, train, weights
from tests.tadp_da.backbones.sd import xformers_stand_in

PROMPTS = ["a photo of a street", "two cars in the fog at night"]
SIZES = [(64, 64), (64, 96), (61, 97), (33, 200), (5, 7), (32, 320)]


def _pixels(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_beside_an_unusable_xformers_training_runs_on_sdpa_with_one_warning(
    backbone: StableDiffusion, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a kernel that does not load was called")

    fault = OSError("libcudart.so.12: cannot open shared object file: No such file or directory")
    xformers_stand_in.install(monkeypatch, never, fault)
    text = backbone.encode_text(PROMPTS)
    for model in (backbone, copy.deepcopy(backbone)):
        moving = model.trainable("full")
        levels = model.pyramid(_pixels(64, 64), text).levels()
        sum(x.square().mean() for x in levels.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in moving)
    assert {type(layer.processor) for layer in backbone._kernel.layers} == {AttnProcessor2_0}
    (warning,) = [record.getMessage() for record in caplog.records if "xformers" in record.getMessage()]
    assert "attention runs on torch's SDPA" in warning
    assert "libcudart.so.12" in warning
    assert "tadp-da doctor" in warning


@pytest.mark.parametrize("layers", ["all", "one"])
def test_attention_that_was_swapped_is_noticed(backbone: StableDiffusion, layers: str) -> None:
    if layers == "all":
        backbone.unet.set_attn_processor(AttnProcessor2_0())
    else:
        backbone._captured[3][0].set_processor(AttnProcessor2_0())
    with pytest.raises(EnvironmentSetupError, match=r"capture was replaced by AttnProcessor2_0") as caught:
        backbone.pyramid(_pixels(64, 64), backbone.encode_text(PROMPTS))
    assert caught.value.exit_code == 4
    assert "load the backbone afresh" in caught.value.fix


def test_eight_bit_states_train_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    start, trained = weights(Line(width=4096)), Line(width=4096)
    assert len(train(tmp_path, trained, optimizer="adamw8bit")) == 7
    assert any(not torch.equal(value, start[name]) for name, value in weights(trained).items())


def test_eight_bit_states_without_bitsandbytes_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(EnvironmentSetupError, match="adamw8bit needs bitsandbytes") as caught:
        train(tmp_path, Line(), optimizer="adamw8bit")
    assert caught.value.exit_code == 4
    assert "pip install 'tadp-da[gpu]'" in caught.value.fix


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_every_size_gives_the_pyramid_that_the_spec_promises(
    backbone: StableDiffusion, size: tuple[int, int]
) -> None:
    with torch.no_grad():
        pyramid = backbone.pyramid(_pixels(*size), backbone.encode_text(PROMPTS))
    cells = {s: tuple(math.ceil(side / s) for side in size) for s in backbone.spec.channels}
    assert {s: tuple(x.shape) for s, x in pyramid.features.items()} == {
        s: (2, c, *cells[s]) for s, c in backbone.spec.channels.items()
    }
    assert {s: tuple(x.shape) for s, x in pyramid.attention.items()} == {
        s: (2, t, *cells[s]) for s, t in backbone.spec.attention.items()
    }
    assert list(pyramid.features) == sorted(backbone.spec.channels) == [4, 8, 16, 32]
    assert {s: x.shape[1] for s, x in pyramid.levels().items()} == backbone.spec.widths()


def test_padding_repeats_the_border_and_leaves_the_image_where_it_was(
    backbone: StableDiffusion,
) -> None:
    text = backbone.encode_text(PROMPTS)
    image = _pixels(40, 64)
    padded = torch.cat([image, image[:, :, -1:].expand(-1, -1, 24, -1)], dim=2)
    with torch.no_grad():
        small, large = backbone.pyramid(image, text), backbone.pyramid(padded, text)
    for stride, levels in small.levels().items():
        assert torch.equal(levels, large.levels()[stride][:, :, : math.ceil(40 / stride)])


def test_a_decision_has_the_size_of_its_image(backbone: StableDiffusion) -> None:
    labels = LabelSpace("segmentation", ("road", "sky"))
    model = PerceptionModel.assemble(backbone, "semantic-fpn", labels, width=16)
    for height, width in SIZES:
        image = Image.fromarray(np.full((height, width, 3), 90, np.uint8))
        assert model.predict(image, "a street").shape == (height, width)
