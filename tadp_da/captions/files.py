"""Caption files: JSON of the form ``{key: {"captions": [caption, ...], "class_label": 15}}``.

BLIP-2 captions of this field are published in this format. The first caption of an entry is used. A key is an image's
path relative to the data root or, in files where no key has a folder or an image suffix, the stem of its name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from tadp_da.errors import DataError
from tadp_da.storage.files import storing, write_json
from tadp_da.types import Unlabeled

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
_FORM = 'write entries as {"images/1.png": {"captions": ["a car on a street"]}}'


@dataclass(frozen=True)
class CaptionEntry:
    """The entry of one image.

    Attributes:
        captions: at least one caption; the first is used.
        facts: everything else in the entry, e.g. ``{"class_label": 15}``, kept unchanged.
    """

    captions: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def caption(self) -> str:
        """The caption that is used."""
        return self.captions[0]

    def with_caption(self, caption: str) -> CaptionEntry:
        """The same entry with another first caption."""
        return replace(self, captions=(caption, *self.captions[1:]))


@dataclass(frozen=True)
class CaptionFile:
    """Captions by key, and the file that holds them."""

    path: Path
    entries: Mapping[str, CaptionEntry]

    @classmethod
    def read(cls, path: Path) -> CaptionFile:
        """Read a caption file. An entry may also be a list of captions or a single string.

        Raises:
            DataError: if the file is missing, not UTF-8 or not JSON, or has NaN, a repeated key, or an entry that is
                not a caption; the message names file and key.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
            content = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
        except FileNotFoundError:
            fix = f"check the path, or create it: tadp-da caption IMAGES --out {path}"
            raise DataError("the caption file is missing", where=path, fix=fix) from None
        except UnicodeDecodeError as error:
            raise DataError(
                f"the caption file is not UTF-8 (byte {error.start})",
                where=path,
                fix=f"convert it, e.g. iconv -f latin1 -t utf8 {path.name}",
            ) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"the caption file is not valid JSON: {error}", where=path, fix=_FORM) from None
        except OSError as error:
            what = f"cannot read the caption file: {error.strerror}"
            raise DataError(what, where=path, fix="check the path and its permissions") from None
        if not isinstance(content, dict):
            what = f"the caption file holds a {type(content).__name__}, not an object of entries by key"
            raise DataError(what, where=path, fix=_FORM)
        return cls(path, {key: _entry(value, path, key) for key, value in content.items()})

    def write(self, path: Path | None = None) -> None:
        """Write the file atomically, sorted by key.

        Raises:
            EnvironmentSetupError: if it cannot be written.
        """
        path = path or self.path
        content = {key: {"captions": list(e.captions), **e.facts} for key, e in sorted(self.entries.items())}
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, content)

    @property
    def by_stem(self) -> bool:
        """Whether the keys are stems: none of them has a folder or an image suffix."""
        return bool(self.entries) and not any(
            "/" in key or PurePosixPath(key).suffix.lower() in _IMAGE_SUFFIXES for key in self.entries
        )

    def lookup(self, images: Unlabeled, fallback: str | None = None) -> dict[str, str]:
        """The caption of every image by ``images.key``.

        A key of the file is an image's path relative to the data root, the end of that path (published files start at
        the data set's own folder, e.g. ``night/...``), or, in a file of stems, the stem of its name.

        Args:
            images: the images whose captions are requested.
            fallback: caption of images that have none; if None, such an image is an error.

        Raises:
            DataError: if captions are missing, with the coverage and the command that creates them; if two images
                share an entry.
        """
        keys = [images.key(i) for i in range(len(images))]
        names = {key: name for key in keys if (name := self._name_of(key)) is not None}
        self._refuse_shared(names)
        missing = [key for key in keys if key not in names]
        if missing and fallback is None:
            raise self._missing(missing, len(keys), images.root)
        return {key: self.entries[names[key]].caption if key in names else fallback or "" for key in keys}

    def _name_of(self, key: str) -> str | None:
        """The longest key of the file that fits an image."""
        parts = PurePosixPath(key).parts
        ends = ["/".join(parts[i:]) for i in range(len(parts))]
        if self.by_stem:
            ends.append(PurePosixPath(key).stem)
        return next((end for end in ends if end in self.entries), None)

    def _refuse_shared(self, names: Mapping[str, str]) -> None:
        name, count = max(Counter(names.values()).items(), key=lambda c: c[1], default=("", 0))
        if count > 1:
            same = [key for key, found in names.items() if found == name]
            raise DataError(
                f"{count} images share the caption of {name!r}: {same[0]}, {same[1]}",
                where=self.path,
                fix="key the file by relative paths; tadp-da caption writes such files",
            )

    def _missing(self, missing: list[str], total: int, root: Path) -> DataError:
        known = next(iter(sorted(self.entries)), None)
        keys = f"its keys look like {known!r}" if known is not None else "the file is empty"
        return DataError(
            f"{total - len(missing)} of {total} images have a caption and {len(missing)} have none, "
            f"e.g. {missing[0]!r}; {keys}",
            where=self.path,
            fix=f"check the data root, or create them: tadp-da caption {root} --out captions.json; or use the class "
            "names as captions of these images: --caption-fallback class-names",
        )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} is repeated")
    return content


def _entry(value: Any, path: Path, key: str) -> CaptionEntry:
    def refuse(what: str) -> NoReturn:
        raise DataError(f"the entry of {key!r} {what}", where=path, fix=_FORM)

    content = value if isinstance(value, dict) else {"captions": value}
    if "captions" not in content:
        refuse(f"has no field 'captions', only {sorted(content)}")
    captions = content["captions"]
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not captions:
        refuse(f"holds {captions!r} where a list of captions is expected")
    for caption in captions:
        if not isinstance(caption, str):
            refuse(f"holds {caption!r}, a {type(caption).__name__}, where a caption is expected")
        if any("\ud800" <= c <= "\udfff" for c in caption):
            refuse("holds half of a character (a lone surrogate)")
    label = content.get("class_label")
    if label is not None and type(label) is not int:
        refuse(f"has the class_label {label!r}, which is not an integer")
    return CaptionEntry(tuple(captions), {k: v for k, v in content.items() if k != "captions"})
