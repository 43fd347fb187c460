"""Where the captions of a set of images come from: a file, or a captioner that is asked once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tadp_da.captions.captioner import Captioner, CaptionerSettings, caption_images
from tadp_da.captions.clean import clean_all
from tadp_da.captions.files import CaptionFile
from tadp_da.captions.flags import fallback_caption, notes
from tadp_da.captions.loading import identity
from tadp_da.errors import UsageError
from tadp_da.run import Run
from tadp_da.settings import keyed
from tadp_da.storage.files import digest, file_digest
from tadp_da.types import Unlabeled

_log = logging.getLogger(__name__)
ANY = "*"
"""Stands for every split in :attr:`CaptionProvider.files`."""


@dataclass(frozen=True, kw_only=True)
class CaptionProvider:
    """Captions of any set of images.

    Attributes:
        captioner: model that captions images for which there is no file: ``"mini"``, a folder, an alias or a hub id;
            empty for none.
        settings: how it captions.
        files: caption files by ``domain/split``, or under :data:`ANY`.
        fallback: ``"class-names"`` lists all classes for images that a file lacks; otherwise those are an error.
        classes: their names.
        cleaned: domains of works of art, whose captions lose bullets and style phrases.
        shuffled: give every image the caption of another one of its set, as a control for whether captions tell
            anything about their image.
        scenes: what an image file's caption is, by domain; files and captioner are for the others.
        needed: False for a model that reads no text: its images have empty captions.
    """

    captioner: str = ""
    settings: CaptionerSettings = field(default_factory=CaptionerSettings)
    files: Mapping[str, Path] = field(default_factory=dict)
    fallback: str = ""
    classes: Sequence[str] = ()
    cleaned: Collection[str] = ()
    shuffled: bool = False
    needed: bool = True
    scenes: Mapping[str, Callable[[Path], str]] = field(default_factory=dict)

    def __call__(self, images: Unlabeled, split: str, run: Run) -> dict[str, str]:
        """The caption of every image by its key.

        Args:
            images: the images.
            split: theirs, to find their file.
            run: keeps what the captioner writes as an artifact.

        Raises:
            UsageError: when there is neither a file nor a captioner.
            DataError: when a file cannot be read or lacks an image.
        """
        if not self.needed:
            return dict.fromkeys(map(images.key, range(len(images))), "")
        file = self.files.get(f"{images.domain}/{split}") or self.files.get(ANY)
        if scene := self.scenes.get(images.domain):
            found = {images.key(i): scene(path) for i, path in enumerate(images.paths)}
        elif file is not None:
            found = CaptionFile.read(file).lookup(images, fallback_caption(self.fallback, self.classes))
            if odd := notes(found):
                _log.warning("%s: %s", file, "; ".join(odd))
        else:
            found = self._captioned(images, run)
        found = clean_all(found)[0] if images.domain in self.cleaned else found
        return shuffle(found) if self.shuffled else found

    def _captioned(self, images: Unlabeled, run: Run) -> dict[str, str]:
        if not self.captioner:
            raise UsageError(
                f"the images of {images.domain!r} have no captions, and the model does not name the captioner that it "
                "was trained with",
                fix="give --captions FILE, or name a captioner: --captioner blip2-opt-2.7b",
            )
        parts = [f"{images.key(i)}:{file_digest(path)}" for i, path in enumerate(images.paths)]
        inputs: dict[str, Any] = {
            "images": digest("\n".join(parts).encode()),
            "captioner": identity(self.captioner),
        }

        def make(folder: Path) -> None:
            captioner = Captioner.from_pretrained(self.captioner, self.settings, run.torch_device)
            caption_images(images, captioner, folder / "captions.json", run)

        return run.get_or_create(
            "captions",
            inputs | {"captions": keyed(CaptionerSettings, self.settings)},
            make,
            lambda folder: CaptionFile.read(folder / "captions.json").lookup(images),
        )


def shuffle(captions: Mapping[str, str]) -> dict[str, str]:
    """Every image gets the caption of another one; which one is a function of the images' keys alone."""
    order = sorted(captions, key=lambda key: digest(key.encode(errors="surrogateescape")))
    moved = {key: captions[other] for key, other in zip(order, [*order[1:], *order[:1]], strict=True)}
    return {key: moved[key] for key in captions}
