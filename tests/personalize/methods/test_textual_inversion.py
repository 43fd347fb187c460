from __future__ import annotations

import dataclasses
import itertools
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from personalize.denoising import LatentDataset, NoisePrediction, Prompts
from personalize.latents import encode
from personalize.methods.textual_inversion import TextualInversion
from personalize.settings import Previews
from personalize.training import train
from tadp_da.errors import DataError, InterruptedRunError, UsageError
from tadp_da.run import Run
from tadp_da.training.signals import attended
from tadp_da.types import Unlabeled

SHORT = TextualInversion(
    word="<dusk>",
    like="night",
    steps=4,
    learning_rate=0.05,
    batch=1,
    accumulate=1,
    resolution=32,
    learnable_property="scene",
    checkpoint_every=1,
    previews=Previews(images=0),
)


def _table(backbone: Any) -> torch.Tensor:
    return backbone.text_encoder.get_input_embeddings().weight.detach()


def test_all_other_rows_stay_bit_for_bit(learned: Any) -> None:
    trained = learned("rows")
    count = len(trained.rows_before)
    assert trained.settings.weight_decay > 0, "decay is what moves untouched rows elsewhere"
    assert torch.equal(_table(trained.backbone)[:count], trained.rows_before)
    assert len(_table(trained.backbone)) == count + 2


def test_every_new_row_moved_on_its_own(learned: Any) -> None:
    trained = learned("rows")
    start = trained.rows_before[trained.backbone.tokenizer.convert_tokens_to_ids("night</w>")]
    rows = trained.concept.rows
    assert rows.shape == (2, len(start))
    assert torch.equal(rows, trained.backbone.token_rows(trained.concept.tokens))
    assert ((rows - start).abs() > 0.01).any(dim=1).all()
    assert not torch.equal(rows[0], rows[1])


def test_nothing_but_the_rows_moves(learned: Any, fresh: Any) -> None:
    ours, untouched = learned("rows").backbone.state_dict(), fresh().state_dict()
    assert ours.keys() == untouched.keys()
    for name, value in untouched.items():
        if "token_embedding" not in name:
            assert torch.equal(ours[name], value), name


def test_the_optimizer_holds_the_new_rows_only(backbone: Any) -> None:
    tokens = backbone.add_tokens("<dusk>", "night", 3)
    with backbone.trained_rows(tokens) as rows:
        assert rows.shape == (3, 32)
        assert [p.shape for p in backbone.text_encoder.parameters() if p.requires_grad] == [rows.shape]
        text = backbone.encode_text(["a <dusk> <dusk>_1 <dusk>_2 street"])
        (gradient,) = torch.autograd.grad(text.square().sum(), rows)
        assert (gradient.abs().sum(1) > 0).all()
        with torch.no_grad():
            rows.add_(1.0)
            inside = backbone.encode_text(["a <dusk> street"])
    assert torch.equal(backbone.encode_text(["a <dusk> street"]), inside)


def test_plain_diffusers_opens_the_word(learned: Any, tiny_pipeline: Path, tmp_path: Path) -> None:
    trained = learned("rows")
    trained.concept.save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    pipeline.load_textual_inversion(tmp_path)
    prompt = pipeline.maybe_convert_prompt("a <dusk> street", pipeline.tokenizer)
    assert prompt == f"a {trained.concept.prompt_word} street"
    with torch.no_grad():
        theirs, _ = pipeline.encode_prompt("a <dusk> street", "cpu", 1, False)
        torch.testing.assert_close(theirs, trained.backbone.encode_text([prompt]))


def test_a_resumed_training_ends_in_the_same_bits(fresh: Any, images: Unlabeled, tmp_path: Path) -> None:
    def rows_after(folder: str, *, stop: int | None = None) -> torch.Tensor:
        backbone, run = fresh(), Run(folder=tmp_path / folder, device="cpu", quiet=True)
        calls = itertools.count(1)

        class Objective(NoisePrediction):
            def forward(self, *given: Any) -> torch.Tensor:
                if next(calls) == stop:
                    signal.raise_signal(signal.SIGTERM)
                return super().forward(*given)

        tokens = backbone.add_tokens("<dusk>", "night")
        views = LatentDataset(encode(backbone, images, SHORT, run), Prompts(SHORT.sentences, "<dusk>"))
        objective = Objective(backbone, backbone.encode_text)
        with attended(), backbone.trained_rows(tokens) as rows:
            train(objective, [rows], views, SHORT, run, "textual inversion")
        return backbone.token_rows(tokens)

    whole = rows_after("whole")
    with pytest.raises(InterruptedRunError, match="step 3 of 4"):
        rows_after("halves", stop=3 * SHORT.accumulate)
    assert torch.equal(rows_after("halves"), whole)
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "halves")]
    assert lines[0] == lines[1]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == [1, 2, 3, 4]


def test_other_images_start_anew(fresh: Any, images: Unlabeled, tmp_path: Path) -> None:
    run = Run(folder=tmp_path, device="cpu", quiet=True)
    chosen = dataclasses.replace(SHORT, steps=1)
    first, other = (chosen(fresh(), some, run) for some in (images[:1], images[1:2]))
    assert first.fingerprint != other.fingerprint
    assert len(list((tmp_path / "unfinished").iterdir())) == 2


def test_a_word_of_the_vocabulary_is_refused(backbone: Any, images: Unlabeled, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose a new word"):
        dataclasses.replace(SHORT, word="street")(backbone, images, Run(folder=tmp_path, device="cpu"))


def test_captioned_sentences_need_captions(backbone: Any, images: Unlabeled, tmp_path: Path) -> None:
    chosen = dataclasses.replace(SHORT, learnable_property="captioned")
    assert chosen.needs_captions
    assert not SHORT.needs_captions
    with pytest.raises(DataError, match="tadp-da caption"):
        chosen(backbone, images, Run(folder=tmp_path, device="cpu"), {images.key(0): "a street"})
