"""Parameters and schedule: who moves, how fast, until when."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from adapt.parameters import Mode, parameter_groups, polynomial, trainable
from tadp_da.errors import UsageError
from tadp_da.heads.semantic_fpn import SemanticFPN
from tadp_da.types import LabelSpace

LABELS = LabelSpace("segmentation", ("sky", "road"))


@pytest.fixture
def head(backbone: Any) -> nn.Module:
    built: nn.Module = SemanticFPN(backbone.spec, LABELS, SemanticFPN.Settings(width=16))
    return built


def _reached(name: str) -> bool:
    """Whether the pyramid depends on the parameter: the UNet's output layers lie behind the last feature."""
    return (
        name.startswith("unet.") and not name.startswith("unet.conv_norm_out") and "unet.conv_out" not in name
    )


@pytest.mark.parametrize("mode", ["full", "lora", "frozen"])
def test_only_what_the_mode_names_requires_a_gradient(backbone: Any, head: nn.Module, mode: Mode) -> None:
    with trainable(backbone, head, mode, rank=2, seed=0) as moving:
        names = {n for n, p in backbone.named_parameters() if p.requires_grad}
        assert len(names) == len(moving)
        assert all(p.requires_grad for p in head.parameters())
        if mode == "full":
            assert names == {n for n, _ in backbone.named_parameters() if _reached(n)}
        if mode == "lora":
            assert names
            assert all("lora_" in n and (".attn1." in n or ".attn2." in n) for n in names)
        if mode == "frozen":
            assert not names
    assert not any(p.requires_grad for p in [*backbone.parameters(), *head.parameters()])


def test_fused_layers_leave_a_plain_unet_that_computes_the_same(backbone: Any, head: nn.Module) -> None:
    before = {n: p.clone() for n, p in backbone.named_parameters()}
    text = backbone.encode_text(["a street"])
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with trainable(backbone, head, "lora", rank=2, seed=0) as moving, torch.no_grad():
        base = backbone.denoise(latents, torch.tensor([1]), text)
        for parameter in moving:
            parameter.add_(0.05)
        expected = backbone.denoise(latents, torch.tensor([1]), text)
    after = dict(backbone.named_parameters())
    assert after.keys() == before.keys()
    assert not torch.allclose(base, expected, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone.denoise(latents, torch.tensor([1]), text), expected, atol=1e-4, rtol=1e-3
        )
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved
    assert all(".attn" in n and not n.endswith("bias") for n in moved)


def test_low_rank_layers_start_from_the_seed_alone(backbone: Any, head: nn.Module) -> None:
    def first(seed: int) -> list[torch.Tensor]:
        with trainable(backbone, head, "lora", rank=2, seed=seed) as moving:
            return [p.detach().clone() for p in moving]

    torch.manual_seed(1)
    one = first(0)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(one, first(0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, first(1), strict=True))


def test_groups_hold_every_parameter_once_and_spare_norms_and_biases(backbone: Any, head: nn.Module) -> None:
    with trainable(backbone, head, "full", rank=1, seed=0) as moving:
        groups = parameter_groups(moving, head, backbone_lr=1e-5, head_lr=1e-4, weight_decay=1e-2)
        listed = [id(p) for g in groups for p in g["params"]]
        unet = [p for n, p in backbone.named_parameters() if _reached(n)]
        expected = [*unet, *head.parameters()]
        assert sorted(listed) == sorted(id(p) for p in expected)
        head_ids = {id(p) for p in head.parameters()}
        for group in groups:
            for p in group["params"]:
                assert group["lr"] == (1e-4 if id(p) in head_ids else 1e-5)
                assert group["weight_decay"] == (1e-2 if p.ndim > 1 else 0)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(UsageError, match="set backbone to full or lora"):
        parameter_groups([], nn.Identity(), backbone_lr=1, head_lr=1, weight_decay=0)


def test_schedule_rises_in_a_line_and_ends_at_zero() -> None:
    factor = polynomial(steps=14, warmup=3, power=1)
    values = [factor(i) for i in range(14)]
    assert values[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert values[3:] == pytest.approx([1 - i / 10 for i in range(11)])
    assert values[-1] == 0


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 0), (2, 1), (5, 4), (100, 10)])
def test_schedule_is_sane_for_every_length(steps: int, warmup: int) -> None:
    factor = polynomial(steps=steps, warmup=warmup, power=0.9)
    values = [factor(i) for i in range(steps)]
    assert all(0 <= v <= 1 for v in values)
    assert max(values) == 1
    assert all(v > 0 for v in values[:-1])
    assert values[-1] == (0 if steps - 1 > warmup else 1)
