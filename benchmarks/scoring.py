"""Stage 3 as every command runs it: a model is scored once per model, test images and prompts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.evaluate import EvaluationSettings, evaluate
from benchmarks.results import Evaluation, Report
from tadp_da.attention_maps import IMAGES, save_maps
from tadp_da.captions.provider import CaptionProvider
from tadp_da.datasets import DataSource
from tadp_da.distributed.processes import is_main
from tadp_da.errors import UsageError
from tadp_da.images import open_image
from tadp_da.perception_model import PerceptionModel
from tadp_da.provenance import learned_from, refuse_overlap
from tadp_da.run import Run
from tadp_da.settings import keyed
from tadp_da.storage.artifacts import inputs_of
from tadp_da.storage.files import digest, folder_digest
from tadp_da.tracking import log_images

_log = logging.getLogger(__name__)
ORACLE = (
    "strategy {strategy!r} reads the labels of {domain}'s test images: its prompts name the classes that are there. It "
    "is an upper bound, and no method."
)
"""Note of an evaluation with captions from labels."""


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Labelled test images, and how their captions become prompts."""

    data: DataSource
    write: Callable[[str], str]
    split: str = "test"


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Score a saved model on test images. Call it.

    Attributes:
        model: loaded from a folder.
        tests: test sets by name: ``"source"`` and ``"target"``, or only ``"test"``.
        captions: captions of the test images.
        run: device, precision, and the folder for artifacts.
        settings: how.
        folder: where the report is to be, instead of a name in the run's folder.
    """

    model: PerceptionModel
    tests: Mapping[str, TestSet]
    captions: CaptionProvider
    run: Run
    settings: EvaluationSettings
    folder: Path | None = None

    @property
    def _model_folder(self) -> Path:
        if self.model.folder is None:
            raise UsageError("the model was not loaded from a folder", fix="save it, and load it from there")
        return self.model.folder

    def _captions(self, test: TestSet) -> Mapping[str, str]:
        labels = self.model.rewrite.label_quality
        return test.data.captions(test.split, self.captions, self.run, from_labels=labels)

    def inputs(self) -> dict[str, Any]:
        """What the scores depend on, as JSON values."""
        known = inputs_of(self._model_folder)
        tests = {}
        for name, test in self.tests.items():
            captions = self._captions(test)
            prompts = {key: test.write(caption) for key, caption in sorted(captions.items())}
            tests[name] = {
                "domain": test.data.domain.name,
                "data": test.data.digest(test.split, names=True),
                "prompts": digest(json.dumps(prompts).encode()),
            }
        return {
            "model": known if known is not None else {"files": folder_digest(self._model_folder)},
            "tests": tests,
            "evaluate": keyed(EvaluationSettings, self.settings),
            "precision": self.run.precision,
        }

    def __call__(self) -> Report:
        """The report: found when it was made before, computed otherwise.

        Raises:
            DataError: when the model has learned from test images, unless the run allows it.
            UsageError: when model and labels share no class.
        """

        if not self.run.allow_overlap:  # also where a report was made with --allow-overlap
            known = learned_from(self._model_folder)
            for test in self.tests.values():
                refuse_overlap(known, test.data.images(test.split))

        def make(folder: Path) -> None:
            found = {name: self._score(name, test, folder) for name, test in self.tests.items()}
            if is_main():
                log_images(
                    self.run.tracker,
                    folder,
                    {
                        f"{name}/{saved.key}": folder / name / f"{saved.stem}-prediction.png"
                        for name, evaluation in found.items()
                        for saved in evaluation.saved
                    },
                )
            Report(evaluations=found).save(folder)

        return self.run.get_or_create("report", self.inputs(), make, Report.load, folder=self.folder)

    def _score(self, name: str, test: TestSet, folder: Path) -> Evaluation:
        images = test.data.images(test.split)
        data = test.data.domain.labeled(test.data.root, test.split, self._captions(test), images)
        found = evaluate(
            self.model,
            data,
            partial(self.model.fitted, test.write),
            self.run,
            self.settings,
            images=folder / name,
            predictions=self.run.inside(folder).unfinished / name,
        )
        if is_main() and name != "source":
            self._keep_maps(found, folder / name)
        if not self.model.rewrite.reads_labels:
            return found
        return replace(
            found,
            notes=(*found.notes, ORACLE.format(strategy=self.model.rewrite.strategy, domain=found.domain)),
        )

    def _keep_maps(self, found: Evaluation, folder: Path) -> None:
        """Attention maps of the first saved images, for the report. They only illustrate it: an image that fits into
        memory in windows alone has none, and its scores are kept."""
        shown = ((s.key, open_image(folder / f"{s.stem}-image.png"), s.prompt) for s in found.saved[:IMAGES])
        try:
            save_maps(self.model, shown, folder)
        except torch.OutOfMemoryError:
            _log.warning("no attention maps for the report: a whole image does not fit into the memory")
