"""A run folder with a filled table, made without training: reports, a model and a concept, notes and images."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.publishing import publish
from benchmarks.recipe import read_benchmark
from benchmarks.results import Report, SavedImage
from benchmarks.suite import load_results, table_folder
from tadp_da.attention_maps import FOLDER
from tadp_da.storage.artifacts import MANIFEST, input_digest
from tadp_da.storage.files import file_name, write_json
from tests.benchmarks.scored import CLASSES, evaluation

HOSTILE = """<script>alert(1)</script>"'{{ 7*7 }}{% x %}\u202e</td><img src=x onerror=alert(2)> &amp;"""
TABLE = "night"
GAINS = {"null": 0.0, "simple": 0.4, "dreambooth": 3.0, HOSTILE: -2.0}


def artifact(folder: Path, kind: str, inputs: dict[str, Any], seconds: float = 61.0) -> Path:
    """A folder with a manifest of these inputs."""
    key = input_digest(inputs)
    place = folder / f"{kind}-{key}"
    place.mkdir(parents=True, exist_ok=True)
    facts = {"kind": kind, "key": key, "inputs": inputs, "files": {}, "made": "2026-01-01T00:00:00+00:00"}
    write_json(
        place / MANIFEST, facts | {"seconds": seconds, "versions": {"commit": "abc1234", "torch": "2"}}
    )
    return place


def picture(path: Path, seed: int, size: tuple[int, int] = (48, 32)) -> None:
    """Coloured noise, which compresses badly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compress_level=1)


def keep_maps(folder: Path, keys: list[str], row: str, seed: int) -> None:
    """Attention maps of two words on each image, as :func:`tadp_da.attention_maps.save_maps` writes them."""
    words, maps = ("dark night", HOSTILE), list[dict[str, Any]]()
    for image, key in enumerate(keys):
        for number, word in enumerate(words):
            picture(folder / FOLDER / f"{image:02d}-{number}.png", seed)
            facts = {"key": key, "prompt": f"{HOSTILE} of {row}", "word": word, "low": 0.001, "high": 0.25}
            maps.append({"image": image, "number": number} | facts)
    write_json(folder / FOLDER / "maps.json", {"maps": maps})


def scored(score: float, saved: int) -> Any:
    """An evaluation of five images, some of which were saved."""
    found = evaluation(score, {name: score + 5 * i for i, name in enumerate(CLASSES)})
    keys = [f"a/{HOSTILE}.png", *(f"a/{i}.png" for i in range(1, 5))]
    shown = tuple(
        SavedImage(stem=f"{i:02d}", key=keys[i], prompt=HOSTILE, score=score + i, classes=("sky", "road"))
        for i in range(saved)
    )
    per_image = {key: score + i for i, key in enumerate(keys)}
    return dataclasses.replace(found, images=5, per_image=per_image, saved=shown, notes=(HOSTILE,))


def fill(folder: Path, gains: dict[str, float], *, seeds: int = 3, saved: int = 2, **size: Any) -> Path:
    """A run folder of these rows."""
    base = read_benchmark("demo").rows["null"].as_json()
    concept = artifact(folder, "concept", {"seed": 0})
    write_json(concept / "concept.json", {"fingerprint": "f", "word": HOSTILE, "method": "dreambooth"})
    picture(concept / "before_after.png", 0)
    (concept / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    for place, (row, gain) in enumerate(gains.items()):
        for seed in range(seeds):
            inputs = {"concept": "f" if gain > 1 else "", "row": row, "seed": seed}
            model = artifact(folder, "model", inputs)
            log: list[Any] = [{"step": s + 1, "loss": math.exp(-s / 50)} for s in range(250)]
            log[-1]["facts"] = {f"pixels/{HOSTILE}": 0.5, "fallback": 0.0}
            (model / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in log))
            report = artifact(folder, "report", {"model": inputs})
            value = 45.0 + seed + gain * (1 + 0.05 * seed)
            found = {"target": scored(value, saved), "source": evaluation(80.0)}
            Report(evaluations=found).save(report)
            for i in range(saved):
                for index, what in enumerate(("image", "truth", "prediction")):
                    picture(report / f"target/{i:02d}-{what}.png", 1 + i + saved * (index + place), **size)
            keep_maps(report / "target", [f"a/{HOSTILE}.png", "a/1.png"][:saved], row, seed)
            recipe = base | {"strategy": row, "source": HOSTILE}
            note = {"table": TABLE, "row": row, "place": place, "seed": seed, "recipe": recipe}
            note |= {"made_of": {"data": {"target/test": "d1gest"}}, "command": f"tadp-da run {HOSTILE}"}
            rows = table_folder(folder, TABLE) / "rows"
            rows.mkdir(parents=True, exist_ok=True)
            write_json(
                rows / f"{file_name(row)}-{seed}.json",
                note | {"report": report.name, "varying": ["strategy"]},
            )
    return folder


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a table with a hostile row."""
    folder = fill(tmp_path_factory.mktemp("filled") / "run", GAINS)
    found = {
        "text": f"the choice is {HOSTILE}",
        "tables": {"ranking": [{"row": HOSTILE, "rank": 1.25, "test": None}]},
    }
    (table_folder(folder, TABLE) / "selection").mkdir()
    write_json(table_folder(folder, TABLE) / "selection/findings.json", found)
    reports = load_results(folder, TABLE)
    return publish(TABLE, reports, table_folder(folder, TABLE), table=(folder, TABLE))[2]
