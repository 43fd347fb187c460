"""Laws that hold for whatever was learned: it is on disk, opens elsewhere, and can be made again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from personalize.methods.none import NoPersonalization
from tadp_da.concept import Concept
from tadp_da.run import Run
from tadp_da.types import Unlabeled


def _features(backbone: Any, concept: Concept) -> dict[int, torch.Tensor]:
    pixels = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        return backbone.pyramid(pixels, backbone.encode_text([f"a {concept.prompt_word} street"])).levels()


def test_the_concept_says_where_it_comes_from(learned: Any, method: str, fresh: Any) -> None:
    concept = learned(method).concept
    assert concept.backbone == fresh().fingerprint
    assert concept.domain == "dusk"
    assert concept.settings["steps"] == learned(method).settings.steps
    json.dumps(concept.settings)


def test_installing_gives_the_trained_features(learned: Any, method: str, fresh: Any, tmp_path: Path) -> None:
    trained = learned(method)
    trained.concept.save(tmp_path)
    installed = fresh().load_concept(Concept.load(tmp_path))
    theirs, ours = _features(trained.backbone, trained.concept), _features(installed, trained.concept)
    for stride, level in ours.items():
        torch.testing.assert_close(level, theirs[stride], rtol=0, atol=0)


def test_what_was_learned_changes_the_features(learned: Any, method: str, fresh: Any) -> None:
    trained, untouched = learned(method), fresh()
    if trained.concept.rows is not None:
        untouched.add_tokens("<dusk>", "night", 2)
    theirs, ours = _features(trained.backbone, trained.concept), _features(untouched, trained.concept)
    assert any(not torch.allclose(ours[stride], theirs[stride], atol=1e-4) for stride in ours)


def test_loss_falls_on_noise_that_stays_the_same(learned: Any, method: str) -> None:
    run = learned(method).run
    summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["loss_after"] < summary["loss_before"]
    steps = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, learned(method).settings.steps + 1))
    assert all(np.isfinite(step["loss"]) for step in steps)


def test_parameters_are_as_trainable_as_they_came(learned: Any, method: str, fresh: Any) -> None:
    came = {name: p.requires_grad for name, p in fresh().named_parameters()}
    assert {name: p.requires_grad for name, p in learned(method).backbone.named_parameters()} == came


def test_equal_seeds_learn_equal_bits_and_others_do_not(
    learned: Any, method: str, fresh: Any, images: Unlabeled, tmp_path: Path
) -> None:
    run, settings = Run(folder=tmp_path, device="cpu", quiet=True), learned(method).settings
    silent = dataclasses.replace(settings.previews, images=0)
    short = dataclasses.replace(settings, steps=1, resolution=32, previews=silent)
    first, again, other = (short(fresh(), images[:1], r) for r in (run, run, run.with_seed(1)))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_the_picture_shows_before_after_and_real_images(learned: Any) -> None:
    picture = np.asarray(Image.open(learned("rows").run.folder / "before_after.png"))
    assert picture.shape[0] > 3 * 128
    assert picture.shape[1] > 2 * 128
    before, after = picture[-3 * 134 : -2 * 134, -128:], picture[-2 * 134 : -134, -128:]
    assert (before != after).any(), "the samples did not change"
    assert not (learned("full").run.folder / "before_after.png").exists(), "a picture that nobody asked for"


def test_nothing_is_the_identity(fresh: Any, images: Unlabeled, tmp_path: Path) -> None:
    backbone = fresh()
    concept = NoPersonalization()(backbone, images, Run(folder=tmp_path))
    concept.save(tmp_path)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.load_concept(Concept.load(tmp_path))
    assert concept.prompt_word is None
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
