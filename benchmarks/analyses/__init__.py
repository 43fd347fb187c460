"""Analyses of models and tables that exist already: nothing is trained.

An analysis is one file in this folder: a frozen, keyword-only dataclass whose fields are its settings, to be called::

    @analyses.add("off-target")
    @dataclass(frozen=True, kw_only=True, config=STRICT)
    class OffTarget:
        needs: ClassVar[Needs] = "models"
        def __call__(self, given: Given, run: Run) -> Findings: ...

``tadp-da analyze off-target runs/model`` calls it and writes its findings.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol
from urllib.parse import quote

from benchmarks.reports.tables import grid, harmless
from benchmarks.results import Report
from benchmarks.suite import read_notes, read_report, tables_in
from tadp_da.errors import ArtifactError, UsageError
from tadp_da.images import output_folder
from tadp_da.registry import Registry, nearest
from tadp_da.storage.artifacts import find_equal, inputs_of, is_complete
from tadp_da.storage.files import file_name, write_json, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from tadp_da.run import Run

Needs = Literal["models", "table"]
Row = Mapping[str, Any]
_LONGEST = 40
"""Lines of a table in ``findings.md``; all of them are in its CSV file."""
_FRAME = 700
"""Milliseconds that an image of an animation is shown for."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an analysis found.

    Attributes:
        text: a paragraph in plain words.
        tables: rows of each table by its name; a row is values by column, None where there is none.
        figures: images by name.
        animations: images of one size by name, shown one after the other.
        facts: everything else, as JSON values.
    """

    text: str
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    figures: Mapping[str, Image] = field(default_factory=dict)
    animations: Mapping[str, Sequence[Image]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write ``findings.md``, ``findings.json``, a CSV file per table, a PNG file per figure and a WebP file per
        animation.

        Returns:
            The path of ``findings.md``.
        """
        output_folder(folder)
        parts = [self.text]
        for name, rows in self.tables.items():
            columns = list(dict.fromkeys(column for row in rows for column in row))
            out = io.StringIO()
            lines = csv.writer(out, lineterminator="\n")
            lines.writerow(columns)
            lines.writerows([_cell(row.get(column)) for column in columns] for row in rows)
            write_text(folder / f"{file_name(name)}.csv", out.getvalue())
            shown = [[_shown(row.get(column)) for column in columns] for row in rows]
            parts += [f"## {name}", grid(columns, shown[:_LONGEST])] if rows else []
            if len(rows) > _LONGEST:
                parts.append(
                    f"{len(rows)} lines in all: [{file_name(name)}.csv]({quote(file_name(name))}.csv)"
                )
        for name, image in self.figures.items():
            path = folder / f"{file_name(name)}.png"
            image.save(path)
            parts.append(f"![{name}]({quote(path.name)})")
        for name, (first, *others) in self.animations.items():
            path = folder / f"{file_name(name)}.webp"
            first.save(path, save_all=True, append_images=others, duration=_FRAME, loop=0, quality=80)
            parts.append(f"![{name}]({quote(path.name)})")
        stored = {"text": self.text, "tables": {k: [dict(r) for r in v] for k, v in self.tables.items()}}
        write_json(folder / "findings.json", stored | {"facts": dict(self.facts)})
        write_text(folder / "findings.md", "\n\n".join(parts) + "\n")
        return folder / "findings.md"


def _cell(value: Any) -> Any:
    return harmless(value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One finished row of a table at one seed: the record of its recipe, its report, and the folder of its model."""

    row: str
    seed: int
    recipe: Mapping[str, Any]
    report: Report
    model: Path


@dataclass(frozen=True, kw_only=True)
class Given:
    """What an analysis is called for.

    Attributes:
        folders: model folders; or the run folder of a table.
        table: name of the table; the only one when empty.
        images: a folder of images, one image, or the name of a registered data set; empty for those of the table.
        labels: labels of a folder of images, as for ``tadp-da evaluate``.
        captions: caption file of the images; the model's captioner writes them if None.
        data: folder of the registered data sets.
    """

    folders: tuple[Path, ...]
    table: str = ""
    images: str = ""
    labels: Path | None = None
    captions: Path | None = None
    data: Path = Path("data")

    def check(self, needs: Needs) -> None:
        """Refuse folders that are not what an analysis needs.

        Raises:
            UsageError: naming the first that is not.
        """
        if needs == "table":
            if len(self.folders) != 1:
                raise UsageError("one run folder is expected", fix="give the --out of one `benchmark run`")
            _ = self.title
            return
        for folder in self.folders:
            if not (folder / "model.json").is_file():
                raise UsageError(
                    "this is not a model",
                    where=folder,
                    fix="give model folders from `adapt` or `benchmark run`",
                )

    @property
    def title(self) -> str:
        """Name of the table.

        Raises:
            UsageError: when the run folder has none of this name, or several to choose from.
        """
        known = tables_in(self.folders[0])
        if self.table in known:
            return self.table
        if len(known) == 1 and not self.table:
            return known[0]
        asked = f"no table {self.table!r}{nearest(self.table, known)}"
        raise UsageError(
            f"the run folder has {asked if self.table else 'several tables' if known else 'no table'}",
            where=self.folders[0],
            fix=f"name one with --table: {', '.join(known)}" if known else "fill one: tadp-da benchmark run",
        )

    def cells(self) -> list[Cell]:
        """Every finished row and seed of the table, in its order.

        Raises:
            ArtifactError: when a model is no longer there.
        """
        (folder,) = self.folders
        found = []
        for note in read_notes(folder, self.title):
            report = read_report(folder, note)
            model = _model_of(folder / note["report"], folder)
            found.append(
                Cell(
                    row=note["row"], seed=int(note["seed"]), recipe=note["recipe"], report=report, model=model
                )
            )
        return found


def _model_of(report: Path, folder: Path) -> Path:
    """The folder of the model that a report is about, by what it was made from."""
    inputs = (inputs_of(report) or {}).get("model", {})
    place = _place(folder, inputs)
    if found := place if is_complete(place) else find_equal(place, "model", inputs):
        return found
    raise ArtifactError(
        "the model of a finished row is not in the run folder any more",
        where=report,
        fix="run the benchmark again: what is missing is made again",
    )


def _place(folder: Path, inputs: Mapping[str, Any]) -> Path:
    from tadp_da.run import Run

    return Run(folder=folder).artifact_path("model", inputs)


class Analysis(Protocol):
    """Looks at models or a table. Its fields are settings, validated when it is created."""

    needs: ClassVar[Needs]
    """``"models"``: folders of models; ``"table"``: a run folder with a filled table."""

    def __call__(self, given: Given, run: Run) -> Findings:
        """Find out.

        Args:
            given: models or a table, checked to be what it :attr:`needs`, and images.
            run: device, precision, progress, and a folder for what it caches.
        """


analyses: Registry[Any] = Registry("analysis", "benchmarks.analyses")
