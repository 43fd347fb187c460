"""Legends: the classes of the values or colours of masks, as a YAML file or as CVAT's ``labelmap.txt``."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tadp_da.domains.formats.masks import Colour, stored_colours
from tadp_da.errors import DataError, UsageError
from tadp_da.images import SUFFIXES
from tadp_da.plain_yaml import parse_value, read_yaml
from tadp_da.registry import nearest
from tadp_da.storage.listing import label_files

_IGNORE, _MOST = "ignore", 256
_CVAT = re.compile(r"^([^:#\n]+):[ ]*(\d+,[ ]*\d+,[ ]*\d+)[ ]*:[^:\n]*:[^:\n]*$", re.MULTILINE)
"""A line of ``labelmap.txt``: name, colour, parts, actions."""


@dataclass(frozen=True, kw_only=True)
class Legend:
    """The classes of the values or colours of masks.

    Attributes:
        classes: names in the order of their ids.
        values: stored value to class id; None if they are equal or colours are given.
        colours: RGB colour to class id, or None.
        palette: one colour per class, if colours are given.
    """

    classes: tuple[str, ...]
    values: dict[int, int] | None = None
    colours: dict[Colour, int] | None = None
    palette: tuple[Colour, ...] = ()


def read_legend(file: Path, classes: tuple[str, ...] = (), ignore: int = 255) -> Legend:
    """Read a YAML file with a line for every value or every colour in the masks, or CVAT's ``labelmap.txt``::

        7: road                     128 64 128: road            # label:color_rgb:parts:actions
        26: car                     0 0 142: car                road:128,64,128::
        0: ignore                   0 0 0: ignore               car:0,0,142::

    Args:
        file: values or colours to class names; several may map to the same class.
        classes: class names in the order of their ids; by default the order of the file.
        ignore: id of ignored pixels, named ``ignore`` in the file.

    Raises:
        UsageError: if the file is not a legend, mixes values and colours, or names a class that is not in ``classes``.
    """
    text = read_yaml(file)
    if lines := _CVAT.findall(text):
        text = "\n".join(f"{colour}: {json.dumps(name.strip())}" for name, colour in lines)
    entries = parse_value(text, where=str(file))
    entries = entries if isinstance(entries, dict) else {}
    keys = [_key(key, file) for key in entries]
    names = [_name(key, name, file) for key, name in entries.items()]
    if len({type(key) for key in keys}) != 1:
        raise UsageError(
            "a legend must map either values or colours, and must not be empty",
            where=file,
            fix="write 7: road or 128 64 128: road",
        )
    order = classes or tuple(dict.fromkeys(name for name in names if name != _IGNORE))
    if strange := [name for name in names if name not in (*order, _IGNORE)]:
        raise UsageError(
            f"the legend names a class {strange[0]!r} that is not among the classes{nearest(strange[0], list(order))}",
            where=file,
            fix=f"write one of {', '.join(order)}, or {_IGNORE}",
        )
    ids = [ignore if name == _IGNORE else order.index(name) for name in names]
    values = {key: number for key, number in zip(keys, ids, strict=True) if isinstance(key, int)}
    if values:
        return Legend(classes=order, values=values)
    colours = {key: number for key, number in zip(keys, ids, strict=True) if isinstance(key, tuple)}
    if lacking := [name for name in order if order.index(name) not in ids]:
        raise UsageError(
            f"the legend has no colour of {', '.join(lacking)}", where=file, fix="add a line for it"
        )
    shown = {number: colour for colour, number in reversed(colours.items())}
    return Legend(classes=order, colours=colours, palette=tuple(shown[i] for i in range(len(order))))


def _name(key: object, name: object, file: Path) -> str:
    """The class of a line; ``Ignore`` is written as people write it."""
    if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
        found = "no class" if name is None else f"{name!r} instead of a class"
        raise UsageError(
            f"the legend has {found} for {key!r}", where=file, fix=f"write the name of a class, or {_IGNORE}"
        )
    return _IGNORE if str(name).strip().lower() == _IGNORE else str(name)


def draft_legend(masks: Path) -> str:
    """A first legend of a folder of masks, with a line for every value or colour that they hold.

    Every line names a class of its own, ``class-7``, to be edited; 255 is named ``ignore``.

    Raises:
        DataError: when there are no masks, one cannot be read, some paint colours and some hold values, or there are
            more of them than classes can have.
    """
    files = label_files(masks, SUFFIXES)
    if not files:
        raise DataError("there are no masks", where=masks, fix="name the folder that holds them")
    pixels, seen, painted = Counter[Any](), Counter[Any](), set[bool]()
    for path in files:
        found, counts, colours = stored_colours(path)
        painted.add(colours)
        keys = [" ".join(map(str, each)) if colours else int(each) for each in found.tolist()]
        seen.update(keys)
        pixels.update(dict(zip(keys, counts.tolist(), strict=True)))
        if len(painted) > 1 or len(pixels) > _MOST:
            what = "more than 256 values or colours" if len(painted) == 1 else "values, others colours"
            raise DataError(
                f"the masks hold {what}",
                where=path,
                fix="export masks of one kind, without smoothing and not as JPEG",
            )
    order = sorted(pixels, key=lambda key: key if isinstance(key, int) else -pixels[key])
    total, width = pixels.total(), max(len(str(key)) for key in order)
    lines = [
        f"# {len(files)} masks in {masks}. Write a class, or {_IGNORE}, after each colon; several lines may have one."
    ]
    for number, key in enumerate(order):
        name = _IGNORE if key == 255 else f"class-{number if painted == {True} else key}"
        where = f"{pixels[key] / total:.2%} of the pixels, in {seen[key]} masks"
        lines.append(f"{f'{key}: {name}':{width + 12}}  # {where}")
    return "\n".join(lines) + "\n"


def _key(key: Any, file: Path) -> int | Colour:
    if type(key) is int and 0 <= key < 2**16:
        return key
    numbers = [int(part) for part in re.findall(r"\d+", str(key))]
    if not re.fullmatch(r"\d+[ ,]+\d+[ ,]+\d+", str(key)) or max(numbers) > 255:
        raise UsageError(
            f"a legend has the key {key!r}",
            where=file,
            fix="write values as 7: road, colours as 128 64 128: road",
        )
    red, green, blue = numbers
    return red, green, blue
