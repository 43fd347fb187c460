"""Where each row's network looks for the words of its prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reports.page.material import Material, Section
from benchmarks.reports.page.pictures import data_uri, prediction_folders, short_names
from tadp_da.attention_maps import KeptMap, read_maps

_BUDGET = 1_000_000
"""Bytes of the maps, before base64 makes them a third larger."""
_SIZES = ((240, 65), (160, 60), (112, 50))
"""Longest side and quality; the last is used if nothing is within the budget."""


@dataclass
class _Map:
    """A map in the page."""

    kept: KeptMap
    src: str = ""


def attention(material: Material) -> Section | None:
    """Attention maps of the words that tell of the domain and of classes, a few images of every row."""
    found = {row: maps for row, folder in _folders(material).items() if (maps := read_maps(folder))}
    keys = list(dict.fromkeys(m.key for maps in found.values() for m in maps))
    shown = {
        row: {key: [_Map(m) for m in maps if m.key == key] for key in keys} for row, maps in found.items()
    }
    _encode([m for cells in shown.values() for maps in cells.values() for m in maps])
    if not any(m.src for cells in shown.values() for maps in cells.values() for m in maps):
        return None
    data = {"images": short_names(keys), "rows": shown}
    return Section("attention", "Where the network looks", "attention.html", data)


def _folders(material: Material) -> Mapping[str, Path]:
    """Where the maps of each row's lowest seed are: in its report, or beside predictions where nothing is scored."""
    if material.comparison is None:
        return prediction_folders(material)
    first = {row: seeds[min(seeds)] for row, seeds in material.reports.items() if seeds}
    return {row: r.folder / r.primary_name for row, r in first.items() if r.folder}


def _encode(maps: list[_Map]) -> None:
    for size in _SIZES:
        for each in maps:
            each.src = data_uri(each.kept.path, size)
        if sum(len(each.src) * 3 // 4 for each in maps) <= _BUDGET:
            return
