"""The images of a page: every row's prediction on the same images, the best and worst of each row, and concepts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from benchmarks.reports.page.material import Material, Section, read_json
from benchmarks.results import Evaluation, Report, SavedImage
from tadp_da.storage.files import file_name
from tadp_da.tasks import in_unit
from tadp_da.types import LabelSpace
from tadp_da.visualize import colours

MOST = 8
"""Images that are shown of every row."""
BUDGET = 4_000_000
"""Bytes of the images in the viewer, before base64 makes them a third larger."""
_SIZES = ((640, 82), (512, 75), (384, 70), (256, 60), (192, 50))
"""Longest side and quality, tried in this order until everything is within the budget."""
_SMALL = (160, 70)


@dataclass
class Cell:
    """An image in the viewer: a layer of one of the images."""

    path: Path
    alt: str
    score: float | None = None
    prompt: str = ""
    src: str = ""


@dataclass
class Line:
    """One image with its layers; None where a row lacks it."""

    name: str
    cells: list[Cell | None] = field(default_factory=list)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Names of images without their folders, where they differ without."""
    names = [key.rpartition("/")[2] for key in keys]
    return dict(zip(keys, names if len(set(names)) == len(names) else keys, strict=True))


def images(material: Material) -> Section | None:
    """Images with ground truth and every row's prediction, in a viewer and side by side."""
    shown = _shown(material)
    layers, lines = _scored(shown) if shown else _predicted(material)
    if not lines:
        return None
    _encode(lines)
    legend = {} if shown or not (labels := material.labels()) else _legend(labels)
    for *_, evaluation in shown:
        drawn = {name for saved in evaluation.saved for name in saved.classes}
        legend |= {name: colour for name, colour in _legend(evaluation.labels).items() if name in drawn}
    metric = material.comparison.metric if material.comparison else ""
    rows = material.comparison.rows if material.comparison else ()
    scored = {
        row.name: row.primary.mean
        for row in rows
        if row.primary and row.name in layers and row.name not in material.bounds
    }
    best = max(scored, key=lambda n: material.better * scored[n], default=layers[-1])
    data = {"layers": layers, "lines": lines, "legend": legend, "metric": metric, "truth": bool(shown)}
    data |= {"left": 1 if shown else 0, "right": layers.index(best)}
    return Section("images", "Images", "images.html", data)


def _legend(labels: LabelSpace) -> dict[str, str]:
    """Colours of classes."""
    pairs = zip(labels.classes, colours(labels), strict=False)
    return {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in pairs}


def _shown(material: Material) -> list[tuple[str, Report, Evaluation]]:
    """Rows whose report at its lowest seed has saved images."""
    first = [(name, seeds[min(seeds)]) for name, seeds in material.reports.items() if seeds]
    return [
        (name, report, e) for name, report in first if (e := report.primary) and e.saved and report.folder
    ]


def _scored(shown: Sequence[tuple[str, Report, Evaluation]]) -> tuple[list[str], list[Line]]:
    _, report, evaluation = shown[0]
    lines, names = [], short_names([saved.key for saved in evaluation.saved])
    for saved in evaluation.saved[:MOST]:
        line = Line(names[saved.key])
        for layer, alt in (("image", "Image"), ("truth", "Ground truth of")):
            path = report.image(report.primary_name, saved, "image" if layer == "image" else "truth")
            line.cells.append(Cell(path, f"{alt} {saved.key}"))
        for name, other, found in shown:
            own = next((s for s in found.saved if s.key == saved.key), None)
            line.cells.append(_prediction(name, other, own, found) if own else None)
        lines.append(line)
    return ["image", "ground truth", *(name for name, *_ in shown)], lines


def _prediction(row: str, report: Report, saved: SavedImage, found: Evaluation) -> Cell:
    path = report.image(report.primary_name, saved, "prediction")
    score = "" if saved.score is None else f", {found.main.name} {in_unit(saved.score, found.main.unit)}"
    return Cell(path, f"Prediction of {row} on {saved.key}{score}", saved.score, saved.prompt)


def _predicted(material: Material) -> tuple[list[str], list[Line]]:
    """Predictions on unlabelled images, where there are no labelled ones."""
    rows = prediction_folders(material)
    stems = sorted({path.stem for folder in rows.values() for path in folder.glob("*.png")})[:MOST]
    layers = [(row, folder, f"Prediction of {row} on") for row, folder in rows.items()]
    if material.folder and (plain := material.folder / "predictions" / "images").is_dir():
        layers.insert(0, ("image", plain, "Image"))
    lines = [Line(stem, [_existing(folder, alt, stem) for _, folder, alt in layers]) for stem in stems]
    return [name for name, *_ in layers], lines


def _existing(folder: Path, alt: str, stem: str) -> Cell | None:
    path = folder / f"{stem}.png"
    return Cell(path, f"{alt} {stem}") if path.exists() else None


def prediction_folders(material: Material) -> dict[str, Path]:
    """Where each row's predictions on unlabelled images are, at the lowest seed that has them."""
    if material.folder is None:
        return {}
    roots = [material.folder / "predictions" / f"seed-{seed}" for seed in material.seeds]
    places = {
        row: [place for root in roots if (place := root / file_name(row)).is_dir()] for row in material.rows
    }
    return {row: found[0] for row, found in places.items() if found}


def _encode(lines: list[Line]) -> None:
    """Encode all cells in the largest size that is within the budget; where there is none, of fewer images."""
    cells = [cell for line in lines for cell in line.cells if cell]
    for size in _SIZES:
        left = BUDGET
        for cell in cells:
            cell.src = data_uri(cell.path, size)
            left -= len(cell.src) * 3 // 4
            if left < 0:
                break
        else:
            return
    if len(lines) > 1:
        lines.pop()
        _encode(lines)


def data_uri(path: Path, size: tuple[int, int]) -> str:
    """An image in a page, no larger than a longest side and at a quality; empty where it cannot be read."""
    try:
        with Image.open(path) as image:
            shown = image.convert("RGB")
    except OSError:
        return ""
    side, quality = size
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=quality, method=3)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def extremes(material: Material) -> Section | None:
    """The best and the worst image of each row: of those that were saved as images, of all others by name."""
    lines = []
    for row, report, evaluation in _shown(material):
        scored = {key: v for key, v in evaluation.per_image.items() if v is not None}
        saved = [s for s in evaluation.saved if s.score is not None]
        if not scored or not saved:
            continue
        order = sorted(scored, key=lambda key: material.better * scored[key])
        ends = sorted(saved, key=lambda s: material.better * (s.score or 0))
        shown = [_pair(row, report, s, evaluation) for s in (ends[0], ends[-1])]
        short = short_names(order)
        names = [[(short[key], scored[key]) for key in found] for found in (order[:3], order[:-4:-1])]
        lines.append((row, list(zip(shown, names, strict=True))))
    if not lines:
        return None
    count = len(next(iter(_shown(material)))[2].per_image)
    return Section("extremes", "Worst and best images", "extremes.html", {"lines": lines, "count": count})


def _pair(row: str, report: Report, saved: SavedImage, found: Evaluation) -> list[Cell]:
    """Ground truth and prediction in a small size."""
    truth = Cell(report.image(report.primary_name, saved, "truth"), f"Ground truth of {saved.key}")
    cells = [truth, _prediction(row, report, saved, found)]
    for cell in cells:
        cell.src = data_uri(cell.path, _SMALL)
    return cells


def concepts(material: Material) -> Section | None:
    """Samples of the diffusion model before and after it learned the target."""
    found: dict[Path, dict[str, object]] = {}
    for row, seeds in material.reports.items():
        known = material.concept(row, min(seeds)) if seeds else None
        if known and (image := known[0] / "before_after.png").exists():
            entry = found.setdefault(known[0], {"rows": []})
            rows = entry["rows"]
            assert isinstance(rows, list)
            rows.append(row)
            if len(rows) == 1:
                entry["cell"] = Cell(image, "", src=data_uri(image, (1000, 80)))
                entry |= {"concept": read_json(known[0] / "concept.json")}
                entry |= {"summary": read_json(known[0] / "summary.json")}
    if not found:
        return None
    return Section(
        "concepts", "What was learned from the target", "concepts.html", {"concepts": [*found.values()]}
    )
