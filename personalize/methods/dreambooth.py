"""DreamBooth (Ruiz et al. 2023, arXiv 2208.12242): a rare word whose meaning the network itself learns.

All of the network moves, or a low-rank change of its attention (LoRA, Hu et al. 2022). The text encoder stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as settings

from personalize import personalizers
from personalize.settings import STRICT, Count, Positive, TrainingSettings, as_record, check_word
from personalize.templates import check, wants_caption

if TYPE_CHECKING:
    from torch import nn

    from personalize.denoising import LatentDataset, NoisePrediction
    from tadp_da.backbones import Backbone
    from tadp_da.concept import Concept
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled

_CHUNK = 8  # prior images drawn at a time


@personalizers.add("dreambooth")
@settings(frozen=True, kw_only=True, config=STRICT)
class DreamBooth(TrainingSettings):
    """Tie a rare word to the domain by training the network. Defaults are those of the TADP paper's appendix
    (Table S4 c) for Stable Diffusion, without prior preservation as in the authors' runs.

    Attributes:
        word: a rare word; it need not be new to the vocabulary.
        prompt: what is said of every image; holds ``{word}``, and ``{caption}`` to name its content too.
        mode: all of the network, or a low-rank change of its attention projections; the latter needs a learning
            rate of about 1e-4.
        rank: of the low-rank change, whose scale is one (alpha = rank).
        prior_images: images of the class that the untouched model draws first and that its trained form must
            still explain (prior preservation); 0 for none.
        prior_prompt: names the class without the word.
        prior_weight: weight of their loss.
        prior_steps: denoising steps per class image.
        prior_guidance: weight of classifier-free guidance in them.
        ema: decay of a running average of the weights that is kept in place of the last ones; 0 for none.
    """

    needs_images: ClassVar[bool] = True
    learns_weights: ClassVar[bool] = True

    word: Annotated[str, AfterValidator(check_word)] = "sks"
    prompt: str = "an image in {word} style"
    mode: Literal["full", "lora"] = "full"
    rank: Positive = 4
    prior_images: Count = 0
    prior_prompt: str = "an image"
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    prior_steps: Positive = 30
    prior_guidance: Annotated[float, Field(ge=0)] = 5.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    steps: Positive = 1000
    learning_rate: Annotated[float, Field(gt=0)] = 5e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        check([self.prompt])
        if self.prior_images and self.word in self.prior_prompt.split():
            raise ValueError(
                f"prior_prompt {self.prior_prompt!r} names the new word {self.word!r}; name only its class"
            )

    @property
    def needs_captions(self) -> bool:
        """Whether the prompt holds ``{caption}``."""
        return wants_caption([self.prompt])

    def __call__(
        self,
        backbone: Backbone,
        images: Unlabeled,
        run: Run,
        captions: Mapping[str, str] | None = None,
    ) -> Concept:
        """Learn the weights; the backbone holds them afterwards.

        Raises:
            DataError: when there is no image, or a caption is needed and missing.
            DivergedError: when the loss is not finite.
        """
        from personalize.denoising import LatentDataset, NoisePrediction, Prompts, TextTable
        from personalize.latents import encode
        from personalize.training import BeforeAfterLogger, as_it_came
        from tadp_da.concept import Concept

        base = backbone.fingerprint
        prompts = Prompts.of((self.prompt,), self.word, images, captions)
        prior = self._prior(backbone, run) if self.prior_images else None
        views = LatentDataset(encode(backbone, images, self, run), prompts, prior)
        said = prompts.all() + (prior.prompts.all() if prior else [])
        text = TextTable(backbone, said, run)
        objective = NoisePrediction(backbone, text, self.snr_gamma, self.prior_weight)
        learn = self._low_rank if self.mode == "lora" else self._full
        with BeforeAfterLogger(backbone, images, views, self, run)(), as_it_came(objective.backbone):
            learned = learn(backbone, objective, views, run)
        return Concept(
            word=self.word,
            domain=images.domain,
            backbone=base,
            method="dreambooth",
            settings=as_record(self),
            **learned,
        )

    def _full(
        self, backbone: Any, objective: NoisePrediction, views: LatentDataset, run: Run
    ) -> dict[str, Any]:
        self._train(backbone.trainable("full", prediction=True), objective, views, run)
        return backbone.concept_weights()

    def _low_rank(
        self, backbone: Any, objective: NoisePrediction, views: LatentDataset, run: Run
    ) -> dict[str, Any]:
        from personalize.training import global_seed

        with global_seed(run):  # peft draws the first values from the global stream
            parameters = backbone.trainable("lora", rank=self.rank)
        self._train(parameters, objective, views, run)
        lora = backbone.lora_tensors()
        backbone.fuse_lora()
        return {"lora": lora}

    def _train(
        self, parameters: list[nn.Parameter], objective: NoisePrediction, views: LatentDataset, run: Run
    ) -> None:
        from personalize.training import train

        train(objective, parameters, views, self, run, "dreambooth", self.ema)

    def _prior(self, backbone: Any, run: Run) -> LatentDataset:
        """Class images by the untouched model, drawn once per base, prompt, size and seed."""
        from personalize.denoising import LatentDataset, Prompts
        from personalize.latents import encode, target_size
        from tadp_da.types import Unlabeled

        size = target_size(self, backbone)
        inputs = {
            "backbone": backbone.fingerprint,
            "sampler": backbone.sampler,
            "prompt": self.prior_prompt,
            "images": self.prior_images,
            "steps": self.prior_steps,
            "guidance": self.prior_guidance,
            "seed": run.seed,
            "size": list(size),
        }

        def make(folder: Path) -> None:
            from tadp_da.training.data import mix

            backbone.to(run.torch_device)
            with run.progress(self.prior_images, "drawing class images") as advance:
                for first in range(0, self.prior_images, _CHUNK):
                    count = min(_CHUNK, self.prior_images - first)
                    if (folder / f"{first + count:05d}.png").exists():
                        continue  # the next ones were begun: these are whole
                    pictures = backbone.sample(
                        [self.prior_prompt] * count,
                        seed=mix(run.seed, first),
                        steps=self.prior_steps,
                        guidance=self.prior_guidance,
                        size=size,
                    )
                    for i, picture in enumerate(pictures, start=first):
                        picture.save(folder / f"{i:05d}.png")
                        advance("")

        folder = run.get_or_create("prior-images", inputs, make, lambda place: place)
        drawn = Unlabeled(domain="prior", root=folder, paths=tuple(sorted(folder.glob("*.png"))))
        latents = encode(backbone, drawn, self, run, "encoding class images")
        return LatentDataset(latents, Prompts((self.prior_prompt,), self.word))
