"""A perception model on the embedded mini weights, and a few labelled drawn images with captions."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tadp_da.backbones import load_backbone
from tadp_da.domains.mini import LABELS
from tadp_da.mini.styles import render
from tadp_da.mini.world import CLASSES, draw_scene
from tadp_da.perception_model import PerceptionModel
from tadp_da.provenance import write_provenance
from tests.toy import SIZE


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images``, ``masks`` and ``captions.json`` of four drawn scenes, each without a class or several."""
    from PIL import Image

    root, captions = tmp_path_factory.mktemp("drawn"), {}
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    scenes = (draw_scene(11, index, size=SIZE) for index in itertools.count())
    for index, scene in enumerate(
        itertools.islice((s for s in scenes if len({*s.mask.flat}) < len(CLASSES)), 4)
    ):
        Image.fromarray(render(scene, "day", 11, index)).save(root / f"images/{index}.png")
        Image.fromarray(scene.mask).save(root / f"masks/{index}.png")
        captions[f"{index}.png"] = {"captions": [scene.caption]}
    (root / "captions.json").write_text(json.dumps(captions))
    return root


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained head on the embedded mini model."""
    folder = tmp_path_factory.mktemp("models") / "mini"
    backbone = load_backbone("stable-diffusion", "mini")
    PerceptionModel.assemble(backbone, "semantic-fpn", LABELS, width=16).save(folder)
    write_provenance(folder, backbone.origin, {})
    return folder


@pytest.fixture(scope="session")
def given_words(drawn: Path, model_folder: Path) -> list[object]:
    """Arguments of ``tadp-da analyze`` after the name of an analysis."""
    return [
        model_folder, "--images", drawn / "images", "--labels", drawn / "masks", "--captions", drawn / "captions.json",
        "--device", "cpu",
    ]  # fmt: skip
