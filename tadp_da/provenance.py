"""Where a concept or model came from: its base model, and the images that it has learned from."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tadp_da.errors import ArtifactError, DataError
from tadp_da.storage.files import file_digest, write_json
from tadp_da.types import Unlabeled

_log = logging.getLogger(__name__)
PROVENANCE = "provenance.json"
"""In a concept and in a model: where the base model came from, and which images were learned from."""


def digests(images: Unlabeled) -> dict[str, str]:
    """Paths of images by the digests of their bytes."""
    return {_digest(images, path): str(path) for path in images.paths}


def _digest(images: Unlabeled, path: Path) -> str:
    return images.digests.get(path) or file_digest(path)


def write_provenance(
    folder: Path, origin: str | None, images: Mapping[str, str], objectives: Mapping[str, Any] | None = None
) -> None:
    """Write :data:`PROVENANCE` into an artifact. It is not an input: a model that moved is the same model.

    Args:
        folder: the artifact.
        origin: where the base model was loaded from.
        images: what was learned from, as :func:`digests` gives it.
        objectives: what each reported about its last step, if anything.
    """
    facts = {"base": origin, "images": dict(images)}
    told = {name: each for name, each in (objectives or {}).items() if each}
    write_json(folder / PROVENANCE, facts | ({"objectives": told} if told else {}))


def learned_from(folder: Path) -> dict[str, str]:
    """Paths by digest of the images that a concept or a model has learned from.

    Returns:
        An empty mapping, with a warning, for an artifact that was made elsewhere and does not say.

    Raises:
        ArtifactError: when its record cannot be read.
    """
    file = folder / PROVENANCE
    if not file.exists():
        _log.warning(
            "%s does not say which images it has learned from: test images among them cannot be found", folder
        )
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"cannot read what was learned from: {error!r}",
            where=file,
            fix="delete the folder and make it again",
        ) from error


def refuse_overlap(known: Mapping[str, str], test: Unlabeled) -> None:
    """Refuse test images that training has seen, by content: a copy under another name counts.

    Args:
        known: what was learned from, as :func:`digests` gives it.
        test: images to score on.

    Raises:
        DataError: with how many there are, and the first pair.
    """
    both = [(known[digest], path) for path in test.paths if (digest := _digest(test, path)) in known]
    if both:
        raise DataError(
            f"{len(both)} of {len(test)} test images are also among the images that were learned from",
            where=f"{both[0][1]} is {both[0][0]}",
            fix="remove them from one of the two folders, or the score means nothing; if it is intended: "
            "--allow-overlap",
        )
