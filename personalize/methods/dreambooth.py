"""DreamBooth (Ruiz et al. 2023, arXiv 2208.12242): the network learns the meaning of a rare word.

All of the network is trained, or low-rank layers in its attention (LoRA, Hu et al. 2022); the text encoder is frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as settings

from personalize import personalizers
from personalize.settings import STRICT, Count, Positive, check_word
from personalize.trained import TrainedPersonalizer

if TYPE_CHECKING:
    from personalize.denoising import LatentDataset
    from tadp_da.run import Run

_CHUNK = 8  # class images sampled at a time


@personalizers.add("dreambooth")
@settings(frozen=True, kw_only=True, config=STRICT)
class DreamBooth(TrainedPersonalizer):
    """Train the network on prompts with a rare word. Defaults are those of the TADP paper's appendix (Table S4 c) for
    Stable Diffusion, without prior preservation as in the authors' runs.

    Attributes:
        word: a rare word; it may be in the vocabulary.
        prompt: of every image; holds ``{word}``, and may hold ``{caption}``.
        mode: all of the network, or low-rank layers in its attention projections, which need a learning rate of about
            1e-4.
        rank: of these layers, whose scale is one (alpha = rank).
        prior_images: number of class images for prior preservation, sampled from the base model; 0 for none.
        prior_prompt: names the class without the word.
        prior_weight: weight of their loss.
        prior_steps: denoising steps per class image.
        prior_guidance: weight of classifier-free guidance in them.
        ema: decay of a moving average of the weights, which becomes the result; 0 for none.
    """

    method: ClassVar[str] = "dreambooth"
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
        if self.prior_images and self.word in self.prior_prompt.split():
            raise ValueError(
                f"prior_prompt {self.prior_prompt!r} names the new word {self.word!r}; name only its class"
            )

    @property
    def sentences(self) -> tuple[str, ...]:
        """The prompt."""
        return (self.prompt,)

    def learn(self, backbone: Any, views: LatentDataset, run: Run) -> dict[str, Any]:
        """Weights of the network, or low-rank layers, which are then fused."""
        from personalize.denoising import NoisePrediction, text_table
        from personalize.training import train
        from tadp_da.training.data import mix
        from tadp_da.training.objective import torch_seed

        text = text_table(
            backbone, views.prompts.all() + (views.prior.prompts.all() if views.prior else []), run
        )
        objective = NoisePrediction(backbone, text, self.snr_gamma, self.prior_weight)
        if self.mode == "full":
            train(objective, backbone.trainable("full", prediction=True), views, self, run, self.method)
            return backbone.concept_weights()
        with torch_seed(mix(run.seed), run.torch_device):  # peft draws from the global stream
            parameters = backbone.trainable("lora", rank=self.rank)
        train(objective, parameters, views, self, run, self.method)
        lora = backbone.lora_tensors()
        backbone.fuse_lora()
        return {"lora": lora}

    def prior(self, backbone: Any, run: Run) -> LatentDataset | None:
        """Class images, sampled from the base model; they stay with the concept."""
        if not self.prior_images:
            return None
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
            with run.progress(self.prior_images, "sampling class images") as advance:
                for first in range(0, self.prior_images, _CHUNK):
                    count = min(_CHUNK, self.prior_images - first)
                    if (folder / f"{first + count:05d}.png").exists():
                        continue  # the next ones were begun, so these are complete
                    samples = backbone.sample(
                        [self.prior_prompt] * count,
                        seed=mix(run.seed, first),
                        steps=self.prior_steps,
                        guidance=self.prior_guidance,
                        size=size,
                    )
                    for i, sample in enumerate(samples, start=first):
                        sample.save(folder / f"{i:05d}.png")
                        advance("")

        folder = run.get_or_create("prior-images", inputs, make, lambda place: place)
        drawn = Unlabeled(domain="prior", root=folder, paths=tuple(sorted(folder.glob("*.png"))))
        latents = encode(backbone, drawn, self, run, "encoding class images")
        return LatentDataset(latents, Prompts((self.prior_prompt,), self.word))
