"""Heads of depth: the paper's decoder layer by layer, the loss against its definition, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace

TEN = LabelSpace("depth", (), range=(0.001, 10.0))
SD = FeatureSpec(channels={8: 320, 16: 640, 32: 1280, 64: 1280}, attention={16: 77, 32: 77})


def test_the_decoder_has_the_layers_of_the_papers_code() -> None:
    with torch.device("meta"):
        head = heads["depth-decoder"](SD, TEN)
        features = {s: torch.empty(1, c, -(-480 // s), -(-480 // s)) for s, c in SD.channels.items()}
        assert head(FeaturePyramid(features, {}), (480, 480)).shape == (1, 1, 480, 480)
    layers = [*head.modules()]
    down = [m for m in head.descents.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.stride) for m in down] == [
        (320, 320, (2, 2)), (320, 320, (2, 2)), (640, 640, (2, 2)),
    ]  # fmt: skip
    assert (head.join[0].in_channels, head.join[0].out_channels) == (3520, 1536)
    groups = [(g.num_groups, g.num_channels) for g in layers if isinstance(g, nn.GroupNorm)]
    assert groups == [(16, 320), (16, 1536), (8, 32), (8, 32), (8, 32), (16, 192)]
    up = [m for m in layers if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size) for m in up] == [
        (1536, 32, (2, 2)), (32, 32, (2, 2)), (32, 32, (2, 2)),
    ]  # fmt: skip
    assert head.smooth == 2
    assert not head.use_attention


def test_the_latent_beside_the_finest_features_leaves_groups_of_several() -> None:
    spec = FeatureSpec(channels=SD.channels | {8: 324}, attention={})
    with torch.device("meta"):
        head = heads["depth-decoder"](spec, TEN)
    groups = [m.num_groups for m in head.modules() if isinstance(m, nn.GroupNorm) and m.num_channels == 324]
    assert groups == [12]


@pytest.mark.parametrize("name", ["depth-fpn", "depth-decoder"])
def test_metres_stay_within_the_range_and_the_loss_is_its_definition(name: str) -> None:
    torch.manual_seed(0)
    spec = FeatureSpec(channels={4: 8, 8: 8, 16: 8}, attention={})
    head = heads[name](spec, TEN, heads[name].Settings(width=8)).eval()
    features = {s: 30 * torch.randn(2, 8, 32 // s, 32 // s) for s in spec.channels}
    raw = head(FeaturePyramid(features, {}), (32, 32))
    assert raw.min() >= 0
    assert raw.max() <= 10
    truth = torch.rand(2, 32, 32) * 11
    truth[:, :5] = 0
    p, t = raw[:, 0].detach().numpy().astype(float), truth.numpy().astype(float)
    seen = (t > 0.001) & (t < 10)
    d = np.log(p[seen].clip(1e-6)) - np.log(t[seen])
    expected = np.sqrt((d**2).mean() - 0.5 * d.mean() ** 2)
    assert head.loss(raw, truth).item() == pytest.approx(expected, rel=1e-4)
    changed = raw.detach().clone()
    changed[:, :, :5] = 9
    assert head.loss(changed, truth) == head.loss(raw.detach(), truth), "unknown pixels are inert"
    assert head.loss(raw.detach() / 2, truth) != head.loss(raw.detach(), truth), "the scale is learned"
    nothing = head.loss(raw, 0 * truth)
    nothing.backward()
    assert nothing == 0
    assert all((q.grad == 0).all() for q in head.parameters() if q.grad is not None)


def test_a_perfect_prediction_has_a_finite_gradient() -> None:
    head: Any = heads["depth-fpn"](FeatureSpec(channels={4: 8, 8: 8}, attention={}), TEN)
    raw = torch.full((1, 1, 4, 4), 3.0, requires_grad=True)
    head.loss(raw, raw.detach()[:, 0]).backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


def test_a_range_and_doubling_strides_are_needed() -> None:
    for name in ("depth-fpn", "depth-decoder"):
        with pytest.raises(UsageError, match="give depth labels with a range"):
            heads[name](SD, LabelSpace("depth", ()))
    with pytest.raises(UsageError, match="depth-fpn"):
        heads["depth-decoder"](FeatureSpec(channels={4: 8, 16: 8}, attention={}), TEN)


@pytest.mark.parametrize("name", ["depth-fpn", "depth-decoder"])
def test_depth_is_learned_in_metres(name: str) -> None:
    """A map of two distances, from features that tell them apart."""
    torch.manual_seed(0)
    spec = FeatureSpec(channels={4: 8, 8: 8, 16: 8}, attention={})
    head: Any = heads[name](spec, TEN, heads[name].Settings(width=16))
    truth = torch.full((1, 32, 32), 2.0)
    truth[:, :, 16:] = 6
    features = {s: torch.randn(1, 8, 32 // s, 32 // s) for s in spec.channels}
    for level in features.values():
        level[..., level.shape[-1] // 2 :] += 2
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        head.loss(head(FeaturePyramid(features, {}), (32, 32)), truth).backward()
        optimizer.step()
    (found,) = head.eval().predict(head(FeaturePyramid(features, {}), (32, 32)))
    assert np.median(found[:, :12]) == pytest.approx(2, rel=0.2)
    assert np.median(found[:, 20:]) == pytest.approx(6, rel=0.2)
