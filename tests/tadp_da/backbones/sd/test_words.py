from __future__ import annotations

import pytest
import torch

from tadp_da.errors import DataError, UsageError


def test_text_is_encoded_at_all_positions(backbone):
    text = backbone.encode_text(["a photo", "two cars in the fog"])
    assert text.shape == (2, 77, backbone.unet.config.cross_attention_dim)
    assert not text.requires_grad
    assert not torch.allclose(text[0], text[1], atol=1e-3)


def test_text_agrees_with_the_pipeline_of_diffusers(backbone, tiny_pipeline):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    expected, _ = pipeline.encode_prompt("a dark street", "cpu", 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(backbone.encode_text(["a dark street"]), expected)


def test_the_limit_is_exact_and_a_longer_prompt_is_an_error_not_a_cut(backbone):
    assert backbone.token_limit == 75
    assert backbone.count_tokens("a street with two cars") == 5
    longest = " ".join(["car"] * 75)
    assert backbone.encode_text([longest]).shape[1] == 77
    with pytest.raises(DataError, match="76 tokens; the text encoder reads 75") as caught:
        backbone.encode_text(["a street", f"{longest} car"])
    assert "shorten the caption" in caught.value.fix


def test_a_new_word_initialised_from_another_encodes_like_it(backbone):
    expected = backbone.encode_text(["a night street"])
    assert backbone.add_tokens("<dusk>", "night") == ("<dusk>",)
    assert backbone.count_tokens("a <dusk> street") == 3
    assert torch.equal(backbone.encode_text(["a <dusk> street"]), expected)


def test_other_words_are_as_before(backbone):
    before, rows = backbone.encode_text(["a night street"]), len(backbone.tokenizer)
    weight = backbone.text_encoder.get_input_embeddings().weight.detach().clone()
    backbone.add_tokens("<dusk>", "day", vectors=3)
    assert torch.equal(backbone.encode_text(["a night street"]), before)
    after = backbone.text_encoder.get_input_embeddings().weight
    assert torch.equal(after[: len(weight)], weight)
    assert len(backbone.tokenizer) == rows + 3 == len(after)
    assert not after.requires_grad


def test_several_vectors_are_several_tokens_that_the_prompt_names(backbone):
    tokens = backbone.add_tokens("<dusk>", "night", vectors=3)
    assert tokens == ("<dusk>", "<dusk>_1", "<dusk>_2")
    assert backbone.count_tokens("a " + " ".join(tokens) + " street") == 5
    assert backbone.count_tokens("a <dusk> street") == 3
    rows = backbone.token_rows(tokens)
    assert rows.shape == (3, backbone.unet.config.cross_attention_dim)
    assert torch.equal(rows[0], rows[2])


def test_an_initializer_of_several_tokens_gives_their_mean(backbone):
    backbone.add_tokens("<x>", "dark night")
    torch.testing.assert_close(
        backbone.token_rows(["<x>"])[0], backbone.token_rows(["dark</w>", "night</w>"]).mean(0)
    )


def test_a_learned_word_is_not_found_inside_others(backbone):
    before = backbone.encode_text(["masks"])
    backbone.add_tokens("sks", "night")
    assert torch.equal(backbone.encode_text(["masks"]), before)
    assert backbone.count_tokens("sks") == 1


def test_a_learned_row_can_train_through_the_text_encoder(backbone):
    backbone.add_tokens("<x>", "night")
    weight = backbone.text_encoder.get_input_embeddings().weight.requires_grad_(True)
    backbone.encode_text(["a <x> street"]).square().sum().backward()
    assert weight.grad[-1].abs().max() > 0


@pytest.mark.parametrize(
    ("word", "like", "advice"),
    [
        ("night", "day", "choose a new word, such as '<my-night>'"),
        ("dark night", "day", "without blanks"),
        ("", "day", "without blanks"),
        ("<x>", "", "give a word near the concept"),
    ],
)
def test_words_that_cannot_be_learned_are_refused_with_advice(backbone, word, like, advice):
    size = len(backbone.tokenizer)
    with pytest.raises(UsageError) as caught:
        backbone.add_tokens(word, like)
    assert advice in caught.value.fix
    assert len(backbone.tokenizer) == size


def test_a_word_is_learned_once(backbone):
    backbone.add_tokens("<x>", "night")
    with pytest.raises(UsageError, match="in the vocabulary already"):
        backbone.add_tokens("<x>", "day")
