"""Pretrain the embedded default from scratch: a small Stable Diffusion and a small BLIP-2 on the drawn world.

    python -m tadp_da.mini.pretrain --processes 2                             # all stages, about two and a half hours
    python -m tadp_da.mini.pretrain --stage unet --minutes 90 --processes 2   # one of them, for longer
    python -m tadp_da.mini.pretrain --stage export --weights tadp_da/mini/weights
    python -m tadp_da.mini.pretrain --stage import --weights tadp_da/mini/weights   # into an empty --work, to train on

Everything is stored in --work. The same command resumes an interrupted stage.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from tadp_da.mini.pretrain_blip2 import LENGTH, load_captioner, train_blip2
from tadp_da.mini.pretrain_data import (
    DataPlan,
    TrainingImages,
    draw_all,
    emphasis,
    load,
    mirrored,
    prompt,
    vocabularies,
)
from tadp_da.mini.pretrain_export import export_captioner, export_diffusion
from tadp_da.mini.pretrain_import import import_weights
from tadp_da.mini.pretrain_loop import Budget, Draw
from tadp_da.mini.pretrain_unet import SCHEDULE, load_denoiser, trainable
from tadp_da.mini.pretrain_vae import cached_latents, load_vae, train_vae
from tadp_da.mini.word_tokens import clip_tokenizer, opt_tokenizer

MINUTES = {"vae": 30.0, "unet": 60.0, "blip2": 30.0}
BATCH = {"vae": 8, "unet": 16, "blip2": 32}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tadp_da.mini.pretrain", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--stage", choices=tuple(STAGES), help="one stage; by default all but import, in order"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/pretrain"), help="checkpoints, caches and logs"
    )
    parser.add_argument(
        "--weights", type=Path, help="where `export` writes and `import` reads (default: WORK/export)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=12_000, help="images to draw")
    parser.add_argument("--size", type=int, default=128, help="their side in pixels")
    parser.add_argument("--processes", type=int, default=1, help="processes that draw or train together")
    parser.add_argument("--threads", type=int, default=1, help="threads of each training process")
    parser.add_argument("--batch", type=int, help=f"images per step and process (default: {BATCH})")
    parser.add_argument("--lr", type=float, help="peak learning rate of the stage `unet`")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--minutes", type=float, help=f"running time of a training stage (default: {MINUTES})"
    )
    budget.add_argument("--steps", type=int)
    options = parser.parse_args(arguments)
    if options.lr is not None and options.stage != "unet":
        parser.error(
            f"--lr belongs to the stage unet, found --stage {options.stage}: omit it, or choose that stage"
        )
    return options


def _budget(options: argparse.Namespace) -> Budget:
    if options.steps is not None:
        return Budget(steps=options.steps)
    return Budget(minutes=options.minutes if options.minutes is not None else MINUTES[options.stage])


def _data(options: argparse.Namespace) -> None:
    draw_all(_plan(options), options.work, options.processes)


def _plan(options: argparse.Namespace) -> DataPlan:
    return DataPlan(seed=options.seed, scenes=options.scenes, size=options.size)


def _images(options: argparse.Namespace) -> TrainingImages:
    return load(_plan(options), options.work)


def _batch(options: argparse.Namespace) -> int:
    return BATCH[options.stage] if options.batch is None else int(options.batch)


def _vae(options: argparse.Namespace) -> None:
    train_vae(_images(options), _budget(options), options.work, options.seed, batch=_batch(options))


def _unet(options: argparse.Namespace) -> None:
    latents = cached_latents(load_vae(options.work), lambda: _images(options), options.work)
    facts = load(_plan(options), options.work, images=False)

    def text(index: int, mirror: bool, draw: Draw) -> str:
        caption = facts.captions[index]
        return prompt(
            mirrored(caption) if mirror else caption, facts.looks[index], facts.cells[index], draw.numpy
        )

    trainable(
        latents,
        emphasis(facts.cells),
        clip_tokenizer(vocabularies(options.work)[0]),
        text,
        _budget(options),
        options.work,
        options.seed,
        SCHEDULE if options.lr is None else replace(SCHEDULE, lr=options.lr),
        batch=_batch(options),
    )


def _blip2(options: argparse.Namespace) -> None:
    tokenizer = opt_tokenizer(vocabularies(options.work)[1], LENGTH)
    train_blip2(
        _images(options), tokenizer, _budget(options), options.work, options.seed, batch=_batch(options)
    )


def _weights(options: argparse.Namespace) -> Path:
    return options.weights or options.work / "export"


def _export(options: argparse.Namespace) -> None:
    out = _weights(options)
    prompts, captions = vocabularies(options.work)
    clip, opt = clip_tokenizer(prompts), opt_tokenizer(captions, LENGTH)
    denoiser = load_denoiser(clip, options.work, options.size // 4)
    print(export_diffusion(load_vae(options.work), denoiser, clip, out))
    print(export_captioner(load_captioner(opt, options.work, options.size), opt, out))


def _import(options: argparse.Namespace) -> None:
    import_weights(_weights(options), options.work, options.size)


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "data": _data, "vae": _vae, "unet": _unet, "blip2": _blip2, "export": _export, "import": _import,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one stage of the pretraining, or all."""
    options = _parse(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for the processes started from here
    for stage in [options.stage] if options.stage else [stage for stage in STAGES if stage != "import"]:
        options.stage = stage
        _run(options)


def _run(options: argparse.Namespace) -> None:
    if options.stage in MINUTES and options.processes > 1:
        with TemporaryDirectory() as meeting:
            spawn(_together, (options, meeting), nprocs=options.processes)
    else:
        _alone(options)


def _alone(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    STAGES[options.stage](options)


def _together(number: int, options: argparse.Namespace, meeting: str) -> None:
    """One of several processes that train one model on different images and average their gradients."""
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}/store", rank=number, world_size=options.processes
    )
    _alone(options)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
