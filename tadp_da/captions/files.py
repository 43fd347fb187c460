"""Files of captions, in the forms that tools write.

    captions.json   {key: {"captions": [caption, ...], "class_label": 15}}: published BLIP-2 captions
    metadata.jsonl  lines of {"file_name": key, "text": caption}: image folders of Hugging Face datasets
    metadata.csv    the same as a table; the column of captions is text or caption
    FOLDER          such files in it and its sub-folders, or else a text file per image: 1.txt (or 1.caption) for 1.jpg

The first caption of an entry is used, of a text file its first line. A key is an image's path relative to the data root
or, in files where no key has an image suffix, that path without its suffix.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from tadp_da.errors import DataError
from tadp_da.images import SUFFIXES, path_key
from tadp_da.storage.files import storing, write_json
from tadp_da.storage.listing import label_files
from tadp_da.types import Unlabeled

_TABLES = (".jsonl", ".csv")
_TEXT_SUFFIXES = (".txt", ".caption")
_FORM = 'write entries as {"images/1.png": {"captions": ["a car on a street"]}}'
_LINES = 'write lines as {"file_name": "1.png", "text": "a car on a street"}, or a table with these columns'


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
    """Captions by key, and the file or folder that holds them."""

    path: Path
    entries: Mapping[str, CaptionEntry]

    @classmethod
    def read(cls, path: Path) -> CaptionFile:
        """Read a caption file or a folder of text files. In JSON, an entry may also be a list of captions or a string.

        Raises:
            DataError: if the file is missing, not UTF-8 or not JSON, or has NaN, a repeated key, or an entry that is
                not a caption; the message names file and key.
        """
        tables = [f for f in label_files(path, _TABLES) if f.stem == "metadata"] if path.is_dir() else []
        if tables or path.suffix.lower() in _TABLES:
            return cls(path, _read_tables(path, tables or [path]))
        if path.is_dir():
            return cls(path, _read_folder(path))
        content = _json(_text(path), path, _FORM)
        if not isinstance(content, dict):
            what = f"the caption file holds a {type(content).__name__}, not an object of entries by key"
            raise DataError(what, where=path, fix=_FORM)
        return cls(path, {key: _entry(value, path, key) for key, value in content.items()})

    def write(self) -> None:
        """Write the file as JSON, atomically and sorted by key.

        Raises:
            EnvironmentSetupError: if it cannot be written.
        """
        content = {key: {"captions": list(e.captions), **e.facts} for key, e in sorted(self.entries.items())}
        with storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, content)

    @property
    def by_stem(self) -> bool:
        """Whether the keys are without suffix: none of them has that of an image."""
        return not any(PurePosixPath(key).suffix.lower() in SUFFIXES for key in self._keys)

    @cached_property
    def _keys(self) -> Mapping[str, list[str]]:
        """Keys of the file by their :func:`path_key` form."""
        found: dict[str, list[str]] = defaultdict(list)
        for key in self.entries:
            found[path_key(key)].append(key)
        return dict(found)

    def lookup(self, images: Unlabeled, fallback: str | None = None) -> dict[str, str]:
        """The caption of every image by ``images.key``.

        A key of the file is an image's path, with or without the folders that lead to it (published files start at the
        data set's own folder, e.g. ``night/...``), compared as in :func:`path_key`.

        Args:
            images: the images whose captions are requested.
            fallback: caption of images that have none; if None, such an image is an error.

        Raises:
            DataError: if captions are missing, with the coverage and the command that creates them; if two images
                share an entry, or two entries differ in spelling only.
        """
        keys, by_stem = [images.key(i) for i in range(len(images))], self.by_stem
        names = {key: name for key in keys if (name := self._name_of(key, by_stem)) is not None}
        self._refuse_shared(names)
        missing = [key for key in keys if key not in names]
        if missing and fallback is None:
            raise self._missing(missing, len(keys), images.root)
        return {key: self.entries[names[key]].caption if key in names else fallback or "" for key in keys}

    def _name_of(self, key: str, by_stem: bool) -> str | None:
        """The longest key of the file that fits an image."""
        if key in self.entries:
            return key
        whole = PurePosixPath(path_key(key))
        for path in (whole, whole.with_suffix("")) if by_stem else (whole,):
            found = next(
                (f for i in range(len(path.parts)) if (f := self._keys.get("/".join(path.parts[i:])))), None
            )
            if found is not None and len(found) > 1:
                raise DataError(
                    f"two entries are about {key!r}: {found[0]!a} and {found[1]!a}",
                    where=self.path,
                    fix="remove one",
                )
            if found is not None:
                return found[0]
        return None

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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        fix = f"check the path, or create it: tadp-da caption IMAGES --out {path}"
        raise DataError("the caption file is missing", where=path, fix=fix) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"the caption file is not UTF-8 (byte {error.start})",
            where=path,
            fix=f"convert it, e.g. iconv -f latin1 -t utf8 {path.name}",
        ) from None
    except OSError as error:
        what = f"cannot read the caption file: {error.strerror}"
        raise DataError(what, where=path, fix="check the path and its permissions") from None


def _json(text: str, where: object, form: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the caption file is not valid JSON: {error}", where=where, fix=form) from None


def _read_tables(folder: Path, tables: list[Path]) -> dict[str, CaptionEntry]:
    """Entries of metadata files; names of images are relative to the folder of the file, as in Hugging Face's."""
    found: dict[str, CaptionEntry] = {}
    for table in tables:
        below = table.parent.relative_to(folder) if table != folder else Path()
        for where, row in _rows(table):
            caption = next((row[name] for name in ("text", "caption") if name in row), None)
            if caption is None or row.get("file_name") is None:
                what = f"a line needs file_name and text or caption, and has {sorted(row)}"
                raise DataError(what, where=where, fix=_LINES)
            key = (below / path_key(str(row["file_name"]))).as_posix()
            if key in found:
                raise DataError(
                    f"the file_name {key!r} is repeated", where=where, fix="remove one of the lines"
                )
            found[key] = _entry(caption, where, key, _LINES)
    return found


def _rows(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and fields of every line."""
    text = _text(table)
    if table.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), restkey="more fields than names")
        try:
            for row in reader:
                yield f"{table}:{reader.line_num}", {k: v for k, v in row.items() if v is not None}
        except csv.Error as error:
            where = f"{table}:{reader.line_num + 1}"
            raise DataError(f"the caption file is not valid CSV: {error}", where=where, fix=_LINES) from None
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            content = _json(line, where := f"{table}:{number}", _LINES)
            yield where, content if isinstance(content, dict) else {str(content): None}


def _read_folder(folder: Path) -> dict[str, CaptionEntry]:
    found: dict[str, CaptionEntry] = {}
    for path in label_files(folder, _TEXT_SUFFIXES):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise DataError(
                f"{path.with_suffix('').name} has two text files", where=path, fix="remove one of them"
            )
        text = _text(path)
        if text.strip() and not any(map(str.isalpha, text)):
            raise DataError(
                f"a text file holds no caption but {text.split()[0]!r}, ...: are these boxes of YOLO?",
                where=path,
                fix="give a folder with captions, or a caption file",
            )
        found[key] = CaptionEntry(tuple(line.strip() for line in text.splitlines() if line.strip()) or ("",))
    if not found:
        raise DataError(
            "the folder holds no metadata.jsonl or metadata.csv and no .txt or .caption files",
            where=folder,
            fix="check the path, or write a caption file: tadp-da caption IMAGES --out captions.json",
        )
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} is repeated")
    return content


def _entry(value: Any, where: object, key: str, form: str = _FORM) -> CaptionEntry:
    def refuse(what: str) -> NoReturn:
        raise DataError(f"the entry of {key!r} {what}", where=where, fix=form)

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
