"""PerceptionModel: predictions at the image's own resolution, attention of words, and a self-contained artifact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tadp_da.captions.rewrite import Rewrite
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.inference import InferenceSettings, pixels_of
from tadp_da.perception_model import PerceptionModel
from tadp_da.types import DomainDescription, LabelSpace

LABELS = LabelSpace("segmentation", ("sky", "road", "car"), palette=((0, 0, 255), (90, 90, 90), (255, 0, 0)))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def assemble(backbone: Any, **settings: Any) -> PerceptionModel:
    return PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, **({"width": 16} | settings))


def dense(model: PerceptionModel, image: Image.Image) -> torch.Tensor:
    """Logits of the whole image at the working size."""
    with torch.no_grad():
        text = model.backbone.encode_text(["a street"])
        outputs: torch.Tensor = model(pixels_of(image, model.inference), text)
    return outputs


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (61, 83), (20, 150)], ids=str)
@pytest.mark.parametrize(
    "inference",
    [InferenceSettings(), InferenceSettings(short=32, window=(32, 32), flip=True)],
    ids=["whole", "windows"],
)
def test_predictions_have_the_size_of_the_image(
    backbone: Any, size: tuple[int, int], inference: InferenceSettings
) -> None:
    prediction = assemble(backbone, inference=inference).predict(picture(*size), "a street")
    assert prediction.shape == size
    assert prediction.dtype == np.uint8
    assert prediction.max() < len(LABELS.classes)


def test_the_prompt_reaches_the_network(backbone: Any) -> None:
    model = assemble(backbone)
    with torch.no_grad():
        one, other = (
            model(pixels_of(picture(64, 64), model.inference), backbone.encode_text([p]))
            for p in ("a car", "a dark night")
        )
    assert not torch.equal(one, other)


def test_captions_are_rewritten_and_prompts_are_not(backbone: Any) -> None:
    rewrite = Rewrite(
        strategy="simple", target_description=DomainDescription(medium="photo", style="dark night")
    )
    model = assemble(backbone, rewrite=rewrite)
    assert model.prompt("a car") == "a dark night photo of a car"
    image = picture(64, 64)
    by_caption = model.predict(image, caption="a car")
    np.testing.assert_array_equal(by_caption, model.predict(image, "a dark night photo of a car"))
    assert backbone.count_tokens(model.prompt("car " * 200)) <= backbone.token_limit


def test_attention_of_words_lies_on_their_tokens(backbone: Any) -> None:
    model, image = assemble(backbone), picture(64, 96)
    maps = model.attention(image, ["night", "dark night"], "a dark night of a car")
    assert {k: (v.shape, v.dtype) for k, v in maps.items()} == {
        "night": ((64, 96), np.float32),
        "dark night": ((64, 96), np.float32),
    }
    dark = model.attention(image, ["dark"], "a dark night of a car")["dark"]
    np.testing.assert_allclose(maps["dark night"], (dark + maps["night"]) / 2, atol=1e-6)
    with torch.no_grad():
        pyramid = backbone.pyramid(
            pixels_of(image, model.inference), backbone.encode_text(["a dark night of a car"])
        )
    # begin mark, a, dark, night: every bilinear enlargement keeps the mean
    expected = np.mean([a[0, 3].mean().item() for a in pyramid.attention.values()])
    assert maps["night"].mean() == pytest.approx(expected, rel=1e-3)


def test_attention_counts_every_place_of_a_word_and_whole_words_only(backbone: Any) -> None:
    model = assemble(backbone)
    assert model.positions("car", "a car, two cars and a CAR") == [2, 8]
    assert model.positions("two cars", "a car, two cars") == [4, 5]
    assert model.says("a tree, a car", "tree")
    assert model.says("a CAR", "car")
    assert not model.says("two cars", "car")


def test_maps_of_layers_have_the_mean_of_their_stride_and_sum_to_one(backbone: Any) -> None:
    model, image = assemble(backbone), picture(45, 83)
    strides = model.attention_maps(image, "a dark night")
    layers = model.attention_maps(image, "a dark night", layers=True)
    assert {stride for stride, _ in layers} == set(strides) == set(backbone.spec.attention)
    for stride, maps in strides.items():
        assert maps.shape == (77, 45, 83)
        torch.testing.assert_close(maps.sum(0), torch.ones(45, 83), atol=1e-4, rtol=0)
        own = torch.stack([found for (s, _), found in layers.items() if s == stride])
        torch.testing.assert_close(own.mean(0), maps, atol=1e-5, rtol=0)
    assert len(layers) > len(strides)


def test_attention_of_a_missing_word_is_an_error(backbone: Any) -> None:
    with pytest.raises(UsageError, match="choose words of the prompt"):
        assemble(backbone).attention(picture(64, 64), ["dog"], "a dark night")


def test_head_and_settings_are_checked(backbone: Any) -> None:
    with pytest.raises(UsageError, match="did you mean 'semantic-fpn'"):
        PerceptionModel.assemble(backbone, "semantic-fnp", LABELS)
    with pytest.raises(UsageError, match="semantic_fpn"):
        assemble(backbone, depth=3)


def test_the_seed_decides_the_heads_first_weights(backbone: Any) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 3)
        return torch.cat([p.flatten() for p in assemble(backbone, seed=seed).head.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.fixture
def learned(backbone: Any) -> PerceptionModel:
    """A model whose UNet, words and head are not those of any base."""
    backbone.add_tokens("<dusk>", "night", vectors=2)
    with torch.no_grad():
        for parameter in backbone.unet.parameters():
            parameter.mul_(1.01)
        backbone.text_encoder.get_input_embeddings().weight[-1] += 0.3
    words = DomainDescription(medium="photo", style="dark night")
    return assemble(
        backbone,
        seed=5,
        rewrite=Rewrite(
            strategy="a {word} photo of {caption}", target_description=words, word="<dusk> <dusk>_1"
        ),
        inference=InferenceSettings(short=48, window=(32, 32), flip=True),
    )


def test_an_artifact_is_self_contained(learned: PerceptionModel, tmp_path: Path) -> None:
    learned.save(tmp_path / "model")
    moved = shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    loaded = PerceptionModel.load(Path(moved))
    assert (loaded.labels, loaded.rewrite, loaded.inference) == (
        learned.labels,
        learned.rewrite,
        learned.inference,
    )
    assert not any(p.requires_grad for p in loaded.parameters())
    image = picture(70, 90)
    assert torch.equal(dense(loaded, image), dense(learned, image))
    np.testing.assert_array_equal(
        loaded.predict(image, caption="a car"), learned.predict(image, caption="a car")
    )
    assert loaded.predict(image).shape == (70, 90)


def test_plain_diffusers_opens_the_backbone(learned: PerceptionModel, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    learned.save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "backbone")
    state = pipeline.unet.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in learned.backbone.unet.state_dict().items())
    assert len(pipeline.tokenizer("a <dusk> <dusk>_1").input_ids) == 5


def test_half_precision_halves_the_folder_and_keeps_the_prediction(
    learned: PerceptionModel, tmp_path: Path
) -> None:
    def weight(folder: Path) -> int:
        return sum(p.stat().st_size for p in folder.rglob("*.safetensors"))

    learned.save(tmp_path / "full")
    learned.save(tmp_path / "half", dtype="float16")
    assert weight(tmp_path / "half") < 0.55 * weight(tmp_path / "full")
    loaded, image = PerceptionModel.load(tmp_path / "half"), picture(64, 64)
    assert (
        {p.dtype for p in learned.parameters()} == {torch.float32} == {p.dtype for p in loaded.parameters()}
    )
    same = loaded.predict(image, "a car") == learned.predict(image, "a car")
    assert same.mean() > 0.98
    torch.testing.assert_close(dense(loaded, image), dense(learned, image), atol=0.02, rtol=0.05)


@pytest.mark.parametrize("name", ["head.safetensors", "backbone/unet/config.json", "backbone/backbone.json"])
@pytest.mark.parametrize("missing", [True, False], ids=["missing", "changed"])
def test_a_corrupt_folder_is_refused(
    learned: PerceptionModel, tmp_path: Path, name: str, missing: bool
) -> None:
    learned.save(tmp_path)
    if missing:
        (tmp_path / name).unlink()
    else:
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ArtifactError, match="tadp-da adapt") as caught:
        PerceptionModel.load(tmp_path)
    assert name in str(caught.value)


def test_a_folder_without_its_last_file_is_not_a_model(learned: PerceptionModel, tmp_path: Path) -> None:
    learned.save(tmp_path)
    (tmp_path / "model.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match="not a perception model"):
        PerceptionModel.load(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(ArtifactError, match="train it again"):
        PerceptionModel.load(tmp_path)


def test_facts_that_do_not_fit_the_weights_are_refused(learned: PerceptionModel, tmp_path: Path) -> None:
    learned.save(tmp_path)
    facts = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    facts["head"]["settings"]["width"] = 32
    (tmp_path / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(ArtifactError, match="cannot be put together"):
        PerceptionModel.load(tmp_path)


def test_a_text_adapter_starts_at_almost_nothing_is_trained_with_the_head_and_saved(
    backbone: Any, tmp_path: Path
) -> None:
    plain, model = assemble(backbone), assemble(backbone, adapter=True)
    image = picture(64, 64)
    torch.testing.assert_close(dense(model, image), dense(plain, image), atol=1e-2, rtol=1e-2)
    text = backbone.encode_text(["a street"])
    model(pixels_of(image, model.inference), text).square().mean().backward()
    trained = dict(model.head.named_parameters())
    assert {n for n in trained if n not in dict(plain.head.named_parameters())} == {
        f"text_adapter.{n}" for n in ("gamma", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")
    }
    assert all(p.grad is not None for p in trained.values())
    gamma, mlp = trained["text_adapter.gamma"], model.head.text_adapter.mlp
    assert torch.equal(model.head.text_adapter(text), text + 1e-4 * mlp(text))
    with torch.no_grad():
        gamma.fill_(5.0)
    changed = dense(model, image)
    assert not torch.allclose(changed, dense(plain, image), atol=1e-3)
    latents = backbone.encode_image(pixels_of(image, model.inference))
    torch.testing.assert_close(model.from_latents(latents, text, (64, 64)), changed)
    model.save(tmp_path)
    assert torch.equal(dense(PerceptionModel.load(tmp_path), image), changed)


def test_embeddings_of_classes_hold_no_words_to_look_for(backbone: Any) -> None:
    rewrite = Rewrite(strategy="class-embeddings", classes=LABELS.classes)
    model = PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, rewrite=rewrite, width=16)
    with pytest.raises(UsageError, match="averaged embeddings, which hold no words"):
        model.attention(picture(64, 64), ["car"], "a car on a road")


def test_a_caption_is_shortened_to_fit_the_longest_template_that_it_is_embedded_in(backbone: Any) -> None:
    rewrite = Rewrite(strategy="caption-embedding")
    model = PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, rewrite=rewrite, width=16)
    prompt = model.prompt("a car " * 36)  # 72 tokens, and the limit is 75
    assert prompt.count("car") < 36
    model.encode_text([prompt])
