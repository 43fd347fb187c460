"""Fill a work folder of the pretraining from exported weights, so that training can go on where it ended.

Exported weights are the averaged ones, in half precision and without the optimizer's state; the learning rate warms up
again. The heads that only the captioner's training has start from nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import Blip2ForConditionalGeneration, CLIPTextModel, CLIPTokenizer, GPT2Tokenizer

from tadp_da.mini import pretrain_blip2, pretrain_unet, pretrain_vae
from tadp_da.mini.pretrain_data import vocabularies
from tadp_da.mini.pretrain_export import CAPTIONER, DIFFUSION
from tadp_da.mini.pretrain_loop import Schedule, Training
from tadp_da.mini.word_tokens import clip_tokenizer, opt_tokenizer


def import_weights(weights: Path, work: Path, size: int = 128) -> None:
    """Make `work` a folder in which every training stage is at step 0 with the weights of the folder `weights`.

    `size` is the side of the images in pixels. Raises FileExistsError where `work` already holds a stage, and
    ValueError where the world's words are not those of the tokenizers.
    """
    if kept := sorted(work.glob("*/checkpoint.pt")):
        raise FileExistsError(
            f"{kept[0]} exists: training goes on from there; to import, name an empty --work"
        )
    diffusion, captioner = weights / DIFFUSION, weights / CAPTIONER
    prompts, captions = vocabularies(work)
    clip, opt = clip_tokenizer(prompts), opt_tokenizer(captions, pretrain_blip2.LENGTH)
    _same_words(clip, CLIPTokenizer.from_pretrained(diffusion / "tokenizer"), diffusion)
    _same_words(opt, GPT2Tokenizer.from_pretrained(captioner), captioner)

    vae = pretrain_vae.new_vae(size=size)
    vae.load_state_dict(AutoencoderKL.from_pretrained(diffusion / "vae").state_dict())
    _start(vae, work / "vae", pretrain_vae.SCHEDULE)
    vae.save_pretrained(work / "vae" / "model")

    denoiser = pretrain_unet.Denoiser(clip, size // 4)
    denoiser.unet.load_state_dict(UNet2DConditionModel.from_pretrained(diffusion / "unet").state_dict())
    denoiser.text_encoder.load_state_dict(
        CLIPTextModel.from_pretrained(diffusion / "text_encoder").state_dict()
    )
    _start(denoiser, work / "unet", pretrain_unet.SCHEDULE)

    torch.manual_seed(0)  # the heads
    whole = pretrain_blip2.TrainableCaptioner(pretrain_blip2.new_config(opt, size))
    whole.blip2.load_state_dict(Blip2ForConditionalGeneration.from_pretrained(captioner).state_dict())
    _start(whole, work / "blip2", pretrain_blip2.SCHEDULE)


def _same_words(
    now: CLIPTokenizer | GPT2Tokenizer, then: CLIPTokenizer | GPT2Tokenizer, folder: Path
) -> None:
    mine, theirs = now.get_vocab(), then.get_vocab()
    if mine != theirs:
        changed = sorted(mine.keys() ^ theirs.keys(), key=len, reverse=True)[:3]
        raise ValueError(
            f"the tokenizer of {folder} has other words or other numbers for them than the world now (such as "
            f"{', '.join(changed)}): its weights cannot be trained on; pretrain from nothing"
        )


def _start(module: nn.Module, folder: Path, schedule: Schedule) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Training(module, folder, schedule).save()
