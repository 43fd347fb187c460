"""Curves and images in TensorBoard or Weights & Biases, by accelerate's trackers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tadp_da.distributed.processes import count
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.storage.files import digest

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker
    from PIL import Image

Tracker = Literal["none", "tensorboard", "wandb"]
_OPEN: dict[Path, GeneralTracker] = {}


def check_tracker(name: str) -> None:
    """Refuse a tracker that is unknown (UsageError) or not installed (EnvironmentSetupError)."""
    if name not in (known := get_args(Tracker)):
        raise UsageError(f"tracker {name!r} is unknown", fix=f"choose {', '.join(known)}")
    if name != "none" and find_spec(name) is None:
        raise EnvironmentSetupError(
            f"tracker {name} is not installed", fix=f"pip install 'tadp-da[{name}]', or leave out --tracker"
        )


@contextmanager
def tracking(name: str, folder: Path) -> Iterator[GeneralTracker]:
    """A tracker of the artifact that is made in a folder.

    TensorBoard's events are written into the folder, so that ``tensorboard --logdir RUN_FOLDER`` shows every artifact
    of a run. Weights & Biases has a run per artifact, in the project ``tadp-da``; a resumed training continues it.
    Inside the block, another call for the same folder gives the same tracker.
    """
    place = folder.resolve()
    if place in _OPEN:
        yield _OPEN[place]
        return
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    PartialState()  # the trackers ask it which process they are in
    tracker: GeneralTracker
    if name == "tensorboard":
        tracker = TensorBoardTracker("tensorboard", folder)
    else:
        artifact = folder.name.removeprefix(".").removesuffix(".draft")
        own = digest(str(place.with_name(artifact)).encode())[:16]
        tracker = WandBTracker("tadp-da", name=artifact, id=own, resume="allow", dir=str(folder.parent))
    tracker.start()
    _OPEN[place] = tracker
    try:
        yield tracker
    finally:
        del _OPEN[place]
        tracker.finish()


def log_step(tracker: GeneralTracker, record: Mapping[str, Any]) -> None:
    """Log a line of ``metrics.jsonl``; its nested values get names such as ``losses/supervised``."""
    flat: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{inner}": number for inner, number in value.items()}
        elif isinstance(value, list | tuple):
            flat |= {f"{name}/{index}": number for index, number in enumerate(value)}
        elif name != "step":
            flat[name] = value
    tracker.log(flat, step=record["step"])


def log_images(
    name: str, folder: Path, images: Mapping[str, Path | Image.Image], step: int | None = None
) -> None:
    """Log images by their titles, with the artifact that is made in a folder; missing files are left out."""
    import numpy as np
    from PIL import Image

    there = {title: image for title, image in images.items() if not isinstance(image, Path) or image.exists()}
    if name == "none" or not there:
        return
    options = {"dataformats": "NHWC"} if name == "tensorboard" else {}
    with tracking(name, folder) as tracker:
        for title, found in there.items():
            with Image.open(found) if isinstance(found, Path) else found as image:
                pixels = np.asarray(image.convert("RGB"))[None]
            tracker.log_images({title: pixels}, step=step, **options)


def logs_during_training(name: str) -> bool:
    """Whether a training makes images for the tracker at its checkpoints. Several processes do not: a pass in one of
    them would wait for the others."""
    return name != "none" and count() == 1
