"""The three stages without networks: what would train notes everything that it is handed, and nothing else.

The stages and their inputs are real. What an artifact would hold is a function of what was noted, so two artifacts of
one key must have the same notes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adapt import stage
from adapt.fine_tuning import FineTuning
from benchmarks import scoring
from benchmarks.evaluate import EvaluationSettings
from benchmarks.experiment import Experiment
from benchmarks.pipeline import reproduce
from benchmarks.recipe import Recipe
from personalize import personalizers
from tadp_da import base_model
from tadp_da.base_model import BaseModel
from tadp_da.captions import provider
from tadp_da.captions.captioner import CaptionerSettings
from tadp_da.captions.files import CaptionEntry, CaptionFile
from tadp_da.concept import Concept
from tadp_da.run import Run
from tadp_da.settings import keyed
from tadp_da.storage.artifacts import MANIFEST, input_digest
from tadp_da.storage.files import digest, file_digest, write_json
from tests.benchmarks.scored import evaluation

CAPTIONS = ("an oil painting of two dogs", "- a car", "photo of a cat", "a street", "watercolor of a tree")
Notes = dict[str, str]


class Pretended:
    """Runs recipes; ``seen`` holds the notes of every key that was ever made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.numbers = folder, itertools.count()
        self.seen: dict[tuple[str, str], str] = {}
        self.keys: Notes = {}
        self.notes: Notes = {}
        monkeypatch.setattr("os.fsync", lambda handle: None)
        monkeypatch.setattr(base_model, "_KNOWN", {})
        monkeypatch.setattr(BaseModel, "load", backbone)
        monkeypatch.setattr(provider, "Captioner", SimpleNamespace(from_pretrained=lambda *given: given))
        monkeypatch.setattr(provider, "caption_images", caption)
        for name in personalizers:
            monkeypatch.setattr(personalizers[name], "__call__", learn)
        known = SimpleNamespace(assemble=assemble, load=loaded)
        monkeypatch.setattr(stage, "PerceptionModel", known)
        monkeypatch.setattr(stage, "write_card", lambda folder: None)  # of files that are not pretended
        monkeypatch.setattr(FineTuning, "__call__", self.tune)
        monkeypatch.setattr(scoring, "evaluate", score)
        monkeypatch.setattr(Run, "get_or_create", lambda run, *given, **more: self.make(*given))

    def make(
        self, kind: str, inputs: Any, make: Callable[[Path], object], load: Callable[[Path], Any]
    ) -> Any:
        """An artifact, always made anew."""
        place, key = self.folder / f"{kind}-{next(self.numbers)}", input_digest(inputs)
        place.mkdir(parents=True)
        make(place)
        write_json(place / MANIFEST, {"inputs": inputs})
        notes = "\n".join(file.read_text() for file in sorted(place.glob("notes*")))
        known = self.seen.setdefault((kind, key), notes)
        assert known == notes, f"two {kind}s share a key:\n{differing(known, notes)}"
        self.keys[kind] = self.keys.get(kind, "") + key
        self.notes[kind] = self.notes.get(kind, "") + notes
        return load(place)

    def __call__(self, recipe: Recipe, **options: Any) -> tuple[Notes, Notes]:
        """Keys and notes by kind of artifact."""
        self.keys, self.notes = {}, {}
        run = Run(**{"folder": self.folder / "run", "quiet": True, "device": "cpu"} | options)
        reproduce(Experiment(recipe, run, self.folder))
        return self.keys, self.notes

    @staticmethod
    def tune(tuning: Any, model: Any, data: Any, write: Any, run: Run, **more: Any) -> Any:
        model.known |= {"adapt": keyed(FineTuning, tuning), "run": [run.seed, run.precision]}
        model.known["data"] = examples(data, write)
        if target := more["unlabeled"]:
            prompts = [model.rewrite.target(c) for c in target.captions.values()]
            model.known["target"] = [prompts, contents(target.images)]
        if few := more["labelled_target"]:
            model.known["labelled target"] = [examples(few.data, model.rewrite.target), few.share]
        plugins = [*more["objectives"], more["source"]]
        model.known["plug-ins"] = [[type(p).__name__, keyed(p.Settings, p.settings)] for p in plugins]
        note(run.folder / "notes", model.known)
        return model


MODELS: dict[Path, Any] = {}


def loaded(folder: Path) -> Any:
    model = MODELS.pop(folder)
    model.folder = folder
    return model


def note(file: Path, known: Any) -> None:
    file.write_text(json.dumps(known, indent=1, sort_keys=True, default=str))


def differing(one: str, two: str) -> str:
    return "\n".join(f"{a} / {b}" for a, b in zip(one.split("\n"), two.split("\n"), strict=False) if a != b)


def contents(images: Any) -> list[str]:
    return [file_digest(path) for path in images.paths]


def examples(data: Any, write: Callable[[str], str]) -> list[Any]:
    found = [data[i] for i in range(len(data))]
    told = [[write(example.caption), digest(example.target.tobytes())] for example in found]
    return [dataclasses.asdict(data.labels), contents(data.images), told]


def weights(model: str) -> str:
    file = Path(model) / "weights"
    return file.read_text() if file.exists() else model


def backbone(base: BaseModel) -> Any:
    known = {"base": weights(base.model), "backbone": base.backbone.name}

    def load_concept(concept: Concept) -> None:
        known["concept"] = "" if concept.is_empty else concept.fingerprint

    found = SimpleNamespace(known=known, fingerprint=weights(base.model), sampler="", origin=None)
    found.to, found.load_concept = lambda device: found, load_concept
    found.reinitialize = lambda seed: known.update(fresh=seed)
    found.settings = base.backbone.settings
    return found


def caption(images: Any, captioner: Any, out: Path, run: Run) -> None:
    known = [weights(captioner[0]), keyed(CaptionerSettings, captioner[1])]
    made = {
        images.key(i): CaptionEntry((f"a painting of a x{digest(repr((known, content)).encode())[:9]}",))
        for i, content in enumerate(contents(images))
    }
    CaptionFile(out, made).write()
    note(out.with_name("notes"), [known, sorted(map(repr, made.items()))])


def learn(method: Any, backbone: Any, images: Any, run: Run, captions: Any = None) -> Concept:
    known = {"method": type(method).__name__, "settings": keyed(type(method), method)}
    known |= {"images": contents(images), "captions": list((captions or {}).values())}
    known |= {"base": backbone.known, "run": [run.seed, run.precision]}
    note(run.folder / "notes", known)
    values = torch.tensor([*digest(json.dumps(known, default=str).encode()).encode()], dtype=torch.float32)
    facts: dict[str, Any] = {
        "word": "",
        "domain": images.domain,
        "backbone": backbone.fingerprint,
        "method": "x",
    }
    if hasattr(method, "word"):
        facts["word"] = method.word
        facts |= (
            {"weights": {"w": values}, "part": "unet"} if method.learns_weights else {"rows": values[None]}
        )
    return Concept(**facts)


def assemble(backbone: Any, head: str, labels: Any, **more: Any) -> Any:
    rewrite, inference = more.pop("rewrite"), more.pop("inference")
    known = {**backbone.known, "head": [head, more], "labels": str(labels)}
    known |= {"inference": keyed(type(inference), inference)}
    known["class embeddings"] = [rewrite.class_templates, rewrite.classes if rewrite.class_templates else ()]
    known["says"] = [write(text) for write in (rewrite.source, rewrite.target) for text in CAPTIONS]
    known["features"] = {
        k: backbone.settings[k] for k in ("timestep", "scaled", "posterior", "pixels", "latent", "vae_dtype")
    }
    if "captioner" in more:
        more["captioner"] = weights(more["captioner"])
    model = SimpleNamespace(known=known, rewrite=rewrite, labels=labels, captioner="", folder=None)
    model.backbone = SimpleNamespace(count_tokens=lambda prompt: len(prompt.split()), token_limit=75)
    model.fitted = lambda write, caption: write(caption)
    model.save = lambda folder: MODELS.update({folder: model})
    return model


def score(
    model: Any, data: Any, rewrite: Any, run: Run, settings: Any, *, images: Path, predictions: Path
) -> Any:
    known = {"model": model.known, "data": examples(data, rewrite), "domain": data.domain}
    known |= {"keys": [data.images.key(i) for i in range(len(data))], "precision": run.precision}
    note(
        images.parent / f"notes-{images.name}",
        known | {"settings": keyed(EvaluationSettings, settings)},
    )
    return evaluation(1.0)
