"""The pretraining recipe at a tiny size, and the laws that the committed weights keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration, Blip2Processor, CLIPTokenizer, GPT2Tokenizer

from tadp_da.mini import WEIGHTS, pretrain
from tadp_da.mini.pretrain_blip2 import LENGTH, TrainableCaptioner, new_config
from tadp_da.mini.pretrain_data import (
    RARE_WORD,
    DataPlan,
    TrainingImages,
    caption_words,
    cells_of,
    emphasis,
    load,
    look_of,
    mirrored,
    prompt,
    prompt_words,
    trained_looks,
)
from tadp_da.mini.pretrain_export import CAPTIONER, DIFFUSION
from tadp_da.mini.pretrain_import import import_weights
from tadp_da.mini.pretrain_loop import Budget, Draw, Schedule, train
from tadp_da.mini.pretrain_unet import new_scheduler, weight, weights_in_noise, weights_on_latents
from tadp_da.mini.pretrain_vae import encode, fold, new_vae
from tadp_da.mini.report import agreement, psnr, table
from tadp_da.mini.styles import LOOKS
from tadp_da.mini.word_tokens import IMAGE, clip_tokenizer, opt_tokenizer, words_of
from tadp_da.mini.world import CLASSES, draw_scene

TINY = ["--size", "64", "--scenes", "6"]
HELD_OUT = [look for look in LOOKS.values() if look.held_out]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A work folder after all stages, two steps each."""
    folder = tmp_path_factory.mktemp("pretrain")
    pretrain.main(["--work", str(folder), *TINY, "--steps", "2", "--batch", "2"])
    return folder


def test_pictures_come_in_an_order_of_the_seed_each_once_an_epoch() -> None:
    def seen(seed: int) -> list[int]:
        return [int(i) for step in range(4) for i in Draw(seed, step).indices(6, 3)]

    assert seen(0) == seen(0) != seen(1)
    for seed in (0, 1):
        assert sorted(seen(seed)[:6]) == sorted(seen(seed)[6:]) == list(range(6))


class TestStages:
    def test_export_is_a_stable_diffusion(self, work: Path) -> None:
        pipeline = StableDiffusionPipeline.from_pretrained(work / "export" / DIFFUSION)
        pipeline.set_progress_bar_config(disable=True)
        assert isinstance(pipeline.tokenizer, CLIPTokenizer)
        assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
        assert pipeline("a street", num_inference_steps=2).images[0].size == (64, 64)

    def test_export_is_a_blip2(self, work: Path) -> None:
        folder = work / "export" / CAPTIONER
        model, info = Blip2ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        assert model.dtype == torch.float32
        processor = Blip2Processor.from_pretrained(folder)
        inputs = processor(images=[np.zeros((64, 64, 3), np.uint8)], return_tensors="pt")
        assert inputs["pixel_values"].shape == (1, 3, 64, 64)
        tokens = model.generate(**inputs, max_new_tokens=4)
        assert isinstance(processor.batch_decode(tokens, skip_special_tokens=True)[0], str)

    def test_latents_are_centred_and_scaled(self, work: Path) -> None:
        latents = torch.load(work / "latents.pt", weights_only=True).float()
        assert latents.shape == (6, 2, 4, 16, 16)
        torch.testing.assert_close(latents.mean((0, 1, 3, 4)), torch.zeros(4), atol=0.02, rtol=0)
        torch.testing.assert_close(latents.std((0, 1, 3, 4)), torch.ones(4), atol=0.02, rtol=0)

    def test_a_finished_stage_is_not_trained_again(self, work: Path) -> None:
        checkpoint = work / "vae" / "checkpoint.pt"
        before = torch.load(checkpoint, weights_only=True)
        pretrain.main(["--stage", "vae", "--work", str(work), *TINY, "--steps", "2", "--batch", "2"])
        after = torch.load(checkpoint, weights_only=True)
        assert after["step"] == 2
        assert all(torch.equal(before["ema"][name], after["ema"][name]) for name in before["ema"])

    def test_missing_pictures_say_what_to_run(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="run the stage 'data'"):
            load(DataPlan(seed=0, scenes=3, size=64), tmp_path)

    def test_missing_checkpoint_says_what_to_run(self, work: Path, tmp_path: Path) -> None:
        (tmp_path / "vae").mkdir()
        (tmp_path / "vae" / "model").symlink_to(work / "vae" / "model")
        with pytest.raises(FileNotFoundError, match="run the stage 'unet'"):
            pretrain.main(["--stage", "export", "--work", str(tmp_path), *TINY])


class TestImport:
    def test_import_undoes_export(self, work: Path, tmp_path: Path) -> None:
        weights, again = work / "export", tmp_path / "weights"
        for stage, folder in (("import", weights), ("export", again)):
            pretrain.main(
                ["--stage", stage, "--weights", str(folder), "--work", str(tmp_path / "work"), *TINY]
            )
        files = sorted(path.relative_to(weights) for path in weights.rglob("*.safetensors"))
        assert len(files) == 4
        for file in files:
            before, after = load_file(weights / file), load_file(again / file)
            assert before.keys() == after.keys()
            assert all(torch.equal(before[name], after[name]) for name in before), file

    def test_training_goes_on_from_imported_weights(self, work: Path, tmp_path: Path) -> None:
        def run(stage: str) -> dict[str, Tensor]:
            pretrain.main(
                ["--stage", stage, "--weights", str(work / "export"), "--work", str(tmp_path), *TINY,
                 *([] if stage == "import" else ["--steps", "1", "--batch", "2"])]
            )  # fmt: skip
            state = torch.load(tmp_path / "unet" / "checkpoint.pt", weights_only=True)
            assert state["step"] == (stage == "unet")
            module: dict[str, Tensor] = state["module"]
            return module

        (tmp_path / "data-seed0-64px").symlink_to(work / "data-seed0-64px")
        before, after = run("import"), run("unet")
        moved = max(float((after[name] - before[name]).abs().max()) for name in before)
        assert 0 < moved < 1e-4  # one step of the warm-up, not new weights

    def test_a_folder_in_use_is_not_overwritten(self, work: Path) -> None:
        with pytest.raises(FileExistsError, match="name an empty --work"):
            import_weights(work / "export", work, 64)

    def test_other_words_are_refused(self, work: Path, tmp_path: Path) -> None:
        words = json.loads((work / "words.json").read_text())
        words["prompts"].append("zeppelin")
        (tmp_path / "words.json").write_text(json.dumps(words))
        with pytest.raises(ValueError, match="zeppelin"):
            import_weights(work / "export", tmp_path, 64)


class InterruptedRunError(Exception):
    pass


def _fit(folder: Path, budget: Budget, stop: int | None = None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    steps = 0

    def loss(draw: Draw) -> dict[str, Tensor]:
        nonlocal steps
        if steps == stop:
            raise InterruptedRunError
        steps += 1
        return {"error": (model(draw.normal(4, 3)) - draw.normal(4, 2)).square().mean()}

    schedule = Schedule(warmup=2, save_seconds=0.0, log_every=1)
    return train(model, loss, budget, schedule, folder, seed=3).state_dict()


class TestLoop:
    def test_resumed_equals_uninterrupted(self, tmp_path: Path) -> None:
        whole = _fit(tmp_path / "a", Budget(steps=6))
        with pytest.raises(InterruptedRunError):
            _fit(tmp_path / "b", Budget(steps=6), stop=3)
        resumed = _fit(tmp_path / "b", Budget(steps=6))
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        rows = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]

    def test_minutes_end_the_training(self, tmp_path: Path) -> None:
        _fit(tmp_path, Budget(minutes=0.001))
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["seconds"] >= 0.06

    @pytest.mark.parametrize("given", [{}, {"minutes": 1.0, "steps": 1}])
    def test_a_budget_is_one_thing(self, given: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="either minutes or steps"):
            Budget(**given)  # type: ignore[arg-type]

    def test_a_bad_loss_says_what_to_do(self, tmp_path: Path) -> None:
        model = nn.Linear(1, 1)
        with pytest.raises(FloatingPointError, match="lower the learning rate"):
            train(
                model, lambda draw: {"error": model.weight.sum() * float("nan")}, Budget(steps=1), Schedule(),
                tmp_path, 0,
            )  # fmt: skip

    def test_every_picture_comes_once_an_epoch(self) -> None:
        seen = np.concatenate([Draw(0, step).indices(10, 4) for step in range(5)])
        assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


class TestData:
    def test_held_out_looks_are_not_drawn(self) -> None:
        drawn = [look_of(0, index) for index in range(1500)]
        assert set(drawn) == set(trained_looks())
        assert not set(drawn) & {look.name for look in HELD_OUT}
        assert 0.4 < drawn.count("day") / len(drawn) < 0.5

    def test_cells_count_what_the_scene_counts(self) -> None:
        for index in range(5):
            scene = draw_scene(5, index, (64, 64))
            cells = cells_of(scene)
            assert (cells[..., : len(CLASSES)].sum(-1) == 64).all()
            counted = cells[..., len(CLASSES) :].sum((0, 1)).tolist()
            assert counted == [scene.counts[thing] for thing in ("car", "person", "tree")]

    def test_people_count_more_than_their_area(self) -> None:
        cells = np.stack([cells_of(draw_scene(5, index, (64, 64))) for index in range(20)])
        weights, people = emphasis(cells), cells[..., CLASSES.index("person")]
        np.testing.assert_allclose(weights.mean((1, 2)), 1, rtol=1e-5)
        cars = cells[..., CLASSES.index("car")]
        assert weights[people > 32].min() > 2 * weights[(people == 0) & (cars == 0)].max()
        cells[..., [CLASSES.index("person"), CLASSES.index("car")]] = 0
        assert (emphasis(cells) == 1).all()

    def test_weights_are_mirrored_with_their_picture(self) -> None:
        weights = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
        spread = weights_on_latents(weights, np.array([0, 1]), 6)
        assert spread.shape == (2, 6, 6)
        torch.testing.assert_close(spread[0, ::3, ::2], torch.from_numpy(weights[0]))
        torch.testing.assert_close(spread[1, ::3, ::2], torch.from_numpy(weights[1]).flip(-1))

    def test_weights_fade_in_noise(self) -> None:
        weights = torch.tensor([[0.5, 1.5]]).expand(3, 1, 2)
        clean, half, noise = weights_in_noise(weights, torch.tensor([1.0, 0.5, 0.0]))
        assert torch.equal(clean, weights[0])
        assert torch.equal(half, torch.tensor([[0.875, 1.125]]))
        assert torch.equal(noise, torch.ones(1, 2))

    def test_mirrored_twice_is_the_same(self) -> None:
        text = "a street with buildings on the left and two cars"
        assert mirrored(text) == "a street with buildings on the right and two cars"
        assert mirrored(mirrored(text)) == text

    def test_prompts_hold_known_words_only(self) -> None:
        scene = draw_scene(5, 0, (64, 64))
        rng, known, cells = np.random.default_rng(0), set(prompt_words()), cells_of(scene)
        texts = [prompt(scene.caption, look, cells, rng) for look in trained_looks() for _ in range(100)]
        assert set(words_of(texts)) <= known - {RARE_WORD}
        assert 0.05 < texts.count("") / len(texts) < 0.15


class TestWords:
    def test_each_trained_word_is_one_token(self) -> None:
        tokenizer = clip_tokenizer(prompt_words())
        assert RARE_WORD in prompt_words()
        assert {word: tokenizer.tokenize(word) for word in prompt_words()} == {
            word: [f"{word}</w>"] for word in prompt_words()
        }

    @pytest.mark.parametrize("word", ["thermal", "aquarelle", "manga"])
    def test_words_of_held_out_looks_are_in_pieces(self, word: str) -> None:
        assert len(clip_tokenizer(prompt_words()).tokenize(word)) > 1

    def test_any_text_survives(self) -> None:
        tokenizer = clip_tokenizer(prompt_words())
        assert (
            tokenizer.decode(tokenizer("Año 7, naïve ☂!").input_ids, skip_special_tokens=True)
            == "año 7 , naïve ☂!"
        )

    def test_captions_survive(self) -> None:
        tokenizer = opt_tokenizer(caption_words(), LENGTH)
        text = draw_scene(1, 2).caption
        tokens = tokenizer(text).input_ids
        assert tokenizer.decode(tokens, skip_special_tokens=True) == text
        assert len(tokens) == 1 + len(text.replace(",", " ,").split())
        assert tokenizer(IMAGE).input_ids[1:] == [tokenizer.convert_tokens_to_ids(IMAGE)]

    def test_files_of_both_formats_load(self, work: Path) -> None:
        folder = work / "export" / DIFFUSION / "tokenizer"
        assert {"vocab.json", "merges.txt", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
        text = "a watercolor painting of a sks street"
        assert CLIPTokenizer.from_pretrained(folder)(text) == clip_tokenizer(prompt_words())(text)
        assert isinstance(
            Blip2Processor.from_pretrained(work / "export" / CAPTIONER).tokenizer, GPT2Tokenizer
        )


class TestModels:
    def test_fold_keeps_pictures_and_whitens_latents(self) -> None:
        torch.manual_seed(0)
        vae = new_vae(size=64).eval().requires_grad_(False)
        drawn = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
        data = TrainingImages(drawn, [""] * 4, ["day"] * 4, drawn)
        images = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
        before, spread = (
            vae.decode(vae.encode(images).latent_dist.mode()).sample,
            vae.encode(images).latent_dist.std,
        )
        latents = encode(vae, data).float()
        mean, std = latents.mean((0, 1, 3, 4)), latents.std((0, 1, 3, 4))
        fold(vae, mean, std)
        after = vae.encode(images).latent_dist
        torch.testing.assert_close(vae.decode(after.mode()).sample, before, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(after.std * std[:, None, None], spread, atol=1e-5, rtol=1e-3)

    def test_the_noise_ends_in_pure_noise_and_is_trained_there(self) -> None:
        scheduler = new_scheduler()
        assert scheduler.alphas_cumprod[-1] == 0
        weights = weight(scheduler, torch.arange(1000))
        assert weights[-1] == 1
        assert (weights > 0).all()
        assert weights.isfinite().all()

    def test_queries_differ_from_the_start(self) -> None:
        queries = TrainableCaptioner(new_config(opt_tokenizer(["a"], LENGTH), 64)).blip2.query_tokens[0]
        assert (torch.cdist(queries, queries) + torch.eye(len(queries)) > 0.5).all()


class TestReport:
    def test_agreement_by_hand(self) -> None:
        one, two = {"car": 1, "person": 0, "tree": 2}, {"car": 1, "person": 1, "tree": 2}
        assert agreement([one, one], [one, two]) == {"car": 100, "person": 50, "tree": 100, "all": 50}

    def test_psnr_by_hand(self) -> None:
        assert psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.2)).item() == pytest.approx(20)

    def test_table_is_markdown(self) -> None:
        assert table("T", {"day": {"PSNR": 25.04}}) == "### T\n\n| | PSNR |\n|---|---|\n| day | 25.0 |\n"


class TestCommittedWeights:
    def test_they_are_small(self) -> None:
        assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 40e6

    def test_they_know_the_words_of_the_world(self) -> None:
        tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / DIFFUSION / "tokenizer")
        assert {word: tokenizer.tokenize(word) for word in prompt_words()} == {
            word: [f"{word}</w>"] for word in prompt_words()
        }
