"""Curves and images in TensorBoard or Weights & Biases, by accelerate's trackers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.storage.files import digest

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

Tracker = Literal["none", "tensorboard", "wandb"]


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
    """
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    PartialState()  # the trackers ask it which process they are in
    tracker: GeneralTracker
    if name == "tensorboard":
        tracker = TensorBoardTracker("tensorboard", folder)
    else:
        artifact = folder.name.removeprefix(".").removesuffix(".draft")
        own = digest(str(folder.resolve().with_name(artifact)).encode())[:16]
        tracker = WandBTracker("tadp-da", name=artifact, id=own, resume="allow", dir=str(folder.parent))
    tracker.start()
    try:
        yield tracker
    finally:
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


def log_images(name: str, folder: Path, images: Mapping[str, Path]) -> None:
    """Log image files by their titles, with the artifact that is made in a folder; missing files are left out."""
    import numpy as np
    from PIL import Image

    if name == "none" or not (there := {title: path for title, path in images.items() if path.exists()}):
        return
    options = {"dataformats": "NHWC"} if name == "tensorboard" else {}
    with tracking(name, folder) as tracker:
        for title, path in there.items():
            with Image.open(path) as image:
                tracker.log_images({title: np.asarray(image.convert("RGB"))[None]}, **options)
