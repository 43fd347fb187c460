"""The teacher is an average of what is trained, and shares everything else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from adapt.parameters import trainable
from adapt.teacher import Teacher
from tadp_da.errors import UsageError


class Small(nn.Module):
    """A frozen layer, a trained one, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.trained, self.drop = nn.Linear(2, 2), nn.Linear(2, 2), nn.Dropout(0.5)
        self.frozen.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.trained(self.frozen(x)))


def moved(model: nn.Module, by: float = 1.0) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * p.requires_grad)


def test_a_teacher_equal_to_its_student_does_not_drift() -> None:
    model = Small()
    teacher = Teacher(model, 0.99)
    for step in range(50):
        teacher.update(model, step)
    assert set(teacher.average) == {"trained.weight", "trained.bias"}
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in teacher.average.items())


def test_it_is_the_mean_of_the_first_states_and_then_forgets() -> None:
    model = Small()
    start = model.trained.bias.detach().clone()
    teacher = Teacher(model, 0.75)
    for step, expected in enumerate((1 / 2, 2 / 2, 3 / 2, 0.75 * 3 / 2 + 0.25 * 4)):
        moved(model)
        teacher.update(model, step)
        torch.testing.assert_close(teacher.average["trained.bias"] - start, torch.full((2,), expected))


def test_it_starts_as_a_copy_half_way_to_its_first_use() -> None:
    model = Small()
    teacher = Teacher(model, 0.99, start=6)
    for step in range(3):
        moved(model)
        teacher.update(model, step)
    assert torch.equal(teacher.average["trained.bias"], model.trained.bias)
    moved(model)
    teacher.update(model, 3)
    torch.testing.assert_close(teacher.average["trained.bias"], model.trained.bias - 0.5)


def test_it_is_applied_without_dropout_and_gradients_and_leaves_the_model_as_it_was() -> None:
    model, x = Small().train(), torch.ones(64, 2)
    model.frozen.eval()
    expected = model.eval()(x)
    model.train()
    model.frozen.eval()
    teacher = Teacher(model, 0.99)
    moved(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = teacher.apply(model, lambda own: own(x))
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in before.items())
    assert model.training
    assert not model.frozen.training


def test_under_autocast_the_student_still_gets_its_gradient() -> None:
    model, x = Small().train(), torch.ones(4, 2)
    teacher = Teacher(model, 0.99)
    with torch.autocast("cpu", torch.bfloat16):
        teacher.apply(model, lambda own: own(x))
        model(x).sum().backward()
    assert bool(model.trained.bias.grad.any())


def test_its_state_comes_back_and_can_be_given_to_the_model() -> None:
    model = Small()
    teacher = Teacher(model, 0.99)
    start = model.trained.bias.detach().clone()
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    moved(model)
    teacher.update(model, 0)
    teacher.load_state_dict(state | {"more": torch.ones(1)})
    teacher.copy_to(model)
    assert torch.equal(model.trained.bias, start)
    assert model.trained.bias.requires_grad


def test_with_low_rank_layers_it_averages_only_them_and_the_head(fresh_model: Any) -> None:
    model = fresh_model()
    with trainable(model.backbone, model.head, "lora", rank=2, seed=0):
        teacher = Teacher(model, 0.9)
        names = {name for name in teacher.average if not name.startswith("head.")}
        assert names
        assert all("lora" in name for name in names)
        batch = {"pixels": torch.zeros(1, 3, 64, 64), "text": model.backbone.encode_text(["a car"])}
        first = teacher.raw(model, batch, [torch.Generator()])
        moved(model, 0.1)
        assert torch.equal(teacher.raw(model, batch, [torch.Generator()]), first)
        teacher.update(model, 0)
        assert not torch.equal(teacher.raw(model, batch, [torch.Generator()]), first)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_sharded_training_is_refused_with_advice(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(UsageError, match="shards the parameters") as caught:
        Teacher(Small(), 0.99)
    assert "--processes" in caught.value.fix
