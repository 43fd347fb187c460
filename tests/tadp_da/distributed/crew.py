"""Programs for several processes, and for one to compare with:
``python -m tests.tadp_da.distributed.crew NAME ARGUMENTS``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from tadp_da import cli
from tadp_da.distributed.processes import is_main, join, rank
from tadp_da.errors import DataError
from tadp_da.run import Run
from tadp_da.storage.artifacts import get_or_create
from tadp_da.training import loop
from tadp_da.training.loop import LoopSettings, fit, recorded
from tadp_da.types import Labeled, LabelSpace, Unlabeled
from tests.tadp_da.training.teachers import Fit, MeanTeacher

LABELS = LabelSpace("segmentation", ("dark", "bright"))
IMAGES = 5


class Points:
    """Ten noisy samples of y = 3x; ``bad`` cannot be read."""

    def __init__(self, bad: int | None = None) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 10

    def key(self, index: int) -> str:
        return f"{index}.png"

    def fetch(self, index: int, rng: np.random.Generator) -> torch.Tensor:
        if index == self.bad:
            raise DataError("cannot be read", where=self.key(index), fix="mend it")
        return torch.tensor([index / 10, 0.3 * index + 0.01 * rng.standard_normal()], dtype=torch.float32)

    def collate(self, samples: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(samples))


class Line(nn.Module):
    """A small network with a part that no loss reaches."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
        self.unused = nn.Linear(1, 1)
        self.pause = pause

    def forward(self, batch: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        time.sleep(self.pause)
        jitter = torch.cat([torch.randn(1, generator=g) for g in generators])
        return ((self.layer(batch[:, :1])[:, 0] + 0.01 * jitter - batch[:, 1]) ** 2).mean()


def train(
    folder: Path, steps: int = 6, pause: float = 0.0, teacher: bool = False, **more: Any
) -> dict[str, torch.Tensor]:
    """Train a line, going on from the newest checkpoint in the folder; with a teacher on unlabelled points."""
    run = Run(folder=folder, seed=5, device="cpu", quiet=True)
    network = Line(pause)
    settings = LoopSettings(steps=steps, **({"batch": 4, "accumulate": 2, "ema": 0.5} | more))
    weights = [p for p in network.layer.parameters() if p.ndim > 1]
    biases = [p for p in network.layer.parameters() if p.ndim == 1]
    groups = [
        {"params": weights, "lr": 0.05, "weight_decay": 0.01},
        {"params": biases, "lr": 0.05, "weight_decay": 0.0},
    ]
    checkpoints = run.unfinished / "line"
    streams, given = {"source": Points()}, dict[str, Any]()
    if teacher:
        streams["target"], given["objectives"] = Points(), [Fit(), MeanTeacher()]
    taken = fit(network, groups, streams, settings, run, checkpoints=checkpoints, **given)
    for _ in recorded(taken, steps, run, "line"):
        pass
    return network.layer.state_dict()


def line(place: Path, steps: int = 6, pause: float = 0.0, **more: Any) -> dict[str, torch.Tensor]:
    """Train a line as an artifact; every process gets its weights."""

    def make(folder: Path) -> None:
        weights = train(folder, steps, pause, **more)
        if is_main():
            save_file(weights, folder / "line.safetensors")

    inputs = {"steps": steps}
    return get_or_create(
        place, inputs, make, lambda p: load_file(p / "line.safetensors"), may_change=("steps",)
    )


def pictures(root: Path) -> Labeled:
    """Bright boxes on dark ground; drawn before the processes start."""
    root.mkdir(parents=True, exist_ok=True)
    masks, paths = [], tuple(root / f"{i}.png" for i in range(IMAGES))
    for i, path in enumerate(paths):
        mask = np.zeros((64, 64), np.uint8)
        mask[8 * i : 8 * i + 24, 16:48] = 1
        masks.append(mask)
        if not path.exists():
            Image.fromarray(np.stack([60 + 30 * i + 90 * mask] * 3, -1).astype(np.uint8)).save(path)
    images = Unlabeled("boxes", root, paths)
    captions = {p.name: "a dark street" if i % 2 else "a car" for i, p in enumerate(paths)}
    return Labeled(domain="boxes", labels=LABELS, images=images, label=masks.__getitem__, captions=captions)


def learned(place: Path, pipeline: str, data: Labeled) -> None:
    """Textual inversion, then fine-tuning, then that with a teacher, each in its own folder."""
    from adapt import Augmentation, FineTuning
    from adapt.objectives import objectives
    from adapt.training_data import CaptionedImages
    from personalize.methods.textual_inversion import TextualInversion
    from personalize.settings import Previews
    from tadp_da.backbones.stable_diffusion import StableDiffusion
    from tadp_da.perception_model import PerceptionModel

    backbone = StableDiffusion.from_pretrained(pipeline)
    run = Run(folder=place, device="cpu", quiet=True)
    length: dict[str, Any] = {"steps": 3, "batch": 2, "checkpoint_every": 1}
    word = TextualInversion(
        **length, word="<dusk>", like="night", learning_rate=0.05, accumulate=1, previews=Previews(images=0)
    )
    tuning = FineTuning(**length, backbone_lr=1e-4, head_lr=1e-3, augment=Augmentation(flip=0.5))

    def invert(folder: Path) -> None:
        concept = word(backbone, data.images, run.inside(folder))
        if is_main():
            concept.save(folder)

    def adapt(folder: Path) -> None:
        model = PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, width=16, dropout=0)
        tuned = tuning(model, data, str, run.inside(folder))
        if is_main():
            tuned.save(folder)

    def self_train(folder: Path) -> None:
        teacher = objectives["self-training"]
        given = [objectives["supervised"](), teacher(teacher.Settings(start=1, classmix=True))]
        model = PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, width=16, dropout=0)
        target = CaptionedImages(data.images, data.captions)
        tuned = tuning(model, data, str, run.inside(folder), unlabeled=target, objectives=given)
        if is_main():
            tuned.save(folder)

    for name, make in (("word", invert), ("adapted", adapt), ("self-trained", self_train)):
        get_or_create(place / name, {}, make, lambda p: p)


def score(place: Path, data: Labeled) -> None:
    """Score what was adapted."""
    from benchmarks.evaluate import evaluate
    from benchmarks.results import Report
    from tadp_da.perception_model import PerceptionModel

    def make(folder: Path) -> None:
        run = Run(folder=folder, device="cpu", quiet=True)
        model = PerceptionModel.load(place / "adapted", device="cpu")
        taken = run.unfinished / "predictions"
        found = evaluate(model, data, str, run, images=folder / "target", predictions=taken)
        Report(evaluations={"target": found}).save(folder)

    get_or_create(place / "scored", {}, make, lambda p: p)


def captions(place: Path, data: Labeled) -> None:
    """Five images one at a time: of the last there is one for two processes."""
    from tadp_da.captions.captioner import Captioner, CaptionerSettings, caption_images

    model = Captioner.from_pretrained("mini", CaptionerSettings(batch=1, max_new_tokens=8))
    caption_images(data.images, model, place / "captions.json", Run(folder=place, device="cpu", quiet=True))


def taught(place: Path) -> None:
    """A line with a teacher, in two goes over a checkpoint."""
    for steps in (3, 6):
        weights = train(place / "taught", steps=steps, teacher=True, checkpoint_every=1)
    if is_main():
        save_file(weights, place / "taught/taught.safetensors")


def light(place: Path) -> None:
    """Lines and captions; ``rank-N.json`` says what each process read back."""
    weights = line(place / "line")
    taught(place)
    captions(place, pictures(place / "images"))
    (place / f"rank-{rank()}.json").write_text(json.dumps({k: v.sum().item() for k, v in weights.items()}))


def heavy(place: Path, pipeline: str) -> None:
    """Concept, model and report."""
    data = pictures(place / "images")
    learned(place, pipeline, data)
    score(place, data)


def cut(place: Path) -> None:
    """A line in one go, and in two over a checkpoint; under DeepSpeed where the environment asks for it."""
    line(place / "line")
    train(place / "cut", steps=3, checkpoint_every=1)
    weights = train(place / "cut", steps=6, checkpoint_every=1)
    if is_main():
        save_file(weights, place / "cut.safetensors")


def sharded(place: Path) -> None:
    """Under FSDP, which accelerate does not give to CPUs."""
    plain = loop.make_accelerator

    def forced(run: Run, **given: Any) -> Accelerator:
        PartialState()._shared_state["distributed_type"] = DistributedType.MULTI_CPU
        accelerator = plain(run, **given)
        for state in (PartialState, AcceleratorState):
            state._shared_state["distributed_type"] = DistributedType.FSDP
        AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="no_wrap", cpu_ram_efficient_loading=False
        )
        return accelerator

    loop.make_accelerator = forced
    cut(place)
    taught(place)


def interrupted(place: Path) -> None:
    """A training that takes long enough to be stopped."""
    line(place / "line", steps=400, pause=0.02, batch=2, accumulate=1, checkpoint_every=0)


def main() -> None:
    """The named program behind the real front door, whose exit codes it has."""
    name, place, *more = sys.argv[1:]
    sys.argv[1:] = []
    torch.set_num_threads(1)
    cli.app = lambda: (join(torch.device("cpu")), globals()[name](Path(place), *more))  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
