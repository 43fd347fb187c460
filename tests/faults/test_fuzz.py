"""Files that somebody else wrote, spoiled at random: every reader answers or raises one of our errors, never another.

The fast suite gives every reader a moment; ``pytest -m slow tests/faults/test_fuzz.py`` gives it a minute, or
``TADP_FUZZ_SECONDS``. Spoilings are a function of (reader, number), so what fails fails again.
"""

from __future__ import annotations

import io
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from benchmarks.recipe import read_benchmark
from tadp_da.backbones.sd.exchange import read_embedding, read_lora
from tadp_da.captions.files import CaptionFile
from tadp_da.captions.flags import flags
from tadp_da.concept import Concept
from tadp_da.domains.formats.coco import coco_domain
from tadp_da.domains.formats.depth import read_depth
from tadp_da.domains.formats.labelme import read_labelme
from tadp_da.domains.formats.masks import read_mask
from tadp_da.domains.formats.voc_xml import read_annotation
from tadp_da.domains.formats.yolo import read_yolo
from tadp_da.errors import TadpError
from tadp_da.images import open_image
from tadp_da.types import LabelSpace, Unlabeled
from tests.tadp_da.domains import trees

MOMENT, MINUTE = 0.5, float(os.environ.get("TADP_FUZZ_SECONDS", "60"))
LABELS = LabelSpace("segmentation", ("sky", "road", "car"))
WORDS = (
    *(
        b"\0",
        b"\xff",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"-1",
        b"0",
        b"1e999",
        b"NaN",
        b"null",
        b"true",
    ),
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b"<",
        b">",
        b"&a;",
        b":",
        b"\n",
        b"!!python/object:os.system {}",
        b"&a [*a]",
    ),
    *(b"<!DOCTYPE x [<!ENTITY a 'b'>]>", b"../../etc/passwd", b"\\ud800", "ü街\u202e".encode(), b"9" * 400),
    *(b"2001-99-99", b"!!int x", b"? [a]\n: b\n", b"<<: 3\n", b"%s%n{0.__class__}", b"- " * 50, b"[" * 3000),
)


def spoiled(whole: bytes, rng: np.random.Generator) -> bytes:
    """The content with a few bytes changed, cut, doubled or put in."""
    content = bytearray(whole)
    for _ in range(int(rng.integers(1, 5))):
        start = int(rng.integers(0, len(content) + 1))
        end = min(start + int(rng.integers(1, 40)), len(content))
        kind = int(rng.integers(0, 6))
        if kind == 0 and start < len(content):
            content[start] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del content[start:end]
        elif kind == 2:
            content[start:start] = WORDS[int(rng.integers(0, len(WORDS)))]
        elif kind == 3:
            content[start:end] = WORDS[int(rng.integers(0, len(WORDS)))]
        elif kind == 4:
            content[start:start] = content[start:end]
        else:
            del content[start:]
    return bytes(content)


def picture(form: str, mode: str = "RGB", **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).convert(mode)
    exif = image.getexif()
    exif[0x0112], exif[0x010E] = 6, "a street"
    with io.BytesIO() as file:
        image.save(file, form, exif=exif, **options)
        return file.getvalue()


def index_mask() -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 3, (12, 16), dtype=np.uint8))
    image.putpalette(list(range(256)) * 3)
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return file.getvalue()


COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "x.png", "width": 16, "height": 12}],
        "categories": [{"id": 10, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 10, "bbox": [1, 2, 3.5, 4], "iscrowd": 0}],
    }
).encode()
YOLO = b"0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.9 0.1 0.5 0.75\n"
LABELME = b"""{"version": "5.4.1", "shapes": [{"label": "dog", "points": [[1, 2], [4.5, 8]], "shape_type": "rectangle"},
{"label": "cat", "points": [[8, 6], [8, 9]], "shape_type": "circle"}], "imageHeight": 12, "imageWidth": 16}"""
CAPTIONS = json.dumps({"x.png": {"captions": ["a car", "a bus"], "class_label": 3}, "y": "a dog"}).encode()
XML = b"""<?xml version="1.0" encoding="utf-8"?>
<annotation><size><width>16</width><height>12</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>
</object></annotation>"""
YAML = b"""claim: Mine.
base: {source: mini-day, target: mini-fog, limit: 3, adapt: {steps: 5, backbone_lr: 1.0e-4, augment: {flip: 0.5}},
       head: {name: semantic-fpn},
       backbone: {name: stable-diffusion},
       personalize: &p {name: dreambooth, settings: {steps: 3, word: sks}}}
rows:
  "null": {personalize: {name: none}}
  mine: {strategy: 'a foggy photo of {caption}', personalize: *p, head: {name: semantic-fpn, settings: {width: 16}}}
"""
CONCEPT = Concept(
    word="<x>", domain="d", backbone="b", method="m", rows=torch.zeros(1, 4), settings={"steps": 3}
)
EMBEDDING = save({"<x>": torch.zeros(2, 4), "y": torch.ones(3)}, metadata={"format": "pt"})


UNET = torch.nn.ModuleDict({"attn2": torch.nn.ModuleDict({"to_k": torch.nn.Linear(4, 6)})})
UNET.config = SimpleNamespace(cross_attention_dim=4)  # type: ignore[assignment]
LORA = save(
    {
        "unet.attn2.to_k.lora_A.weight": torch.ones(2, 4),
        "unet.attn2.to_k.lora_B.weight": torch.ones(6, 2),
        "unet.attn2.to_k.alpha": torch.tensor(4.0),
    },
    metadata={
        "lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {}})
    },
)
TABLE = b'file_name,label,text\nx.png,3,"a car, red"\n./y.png,,a bus\n'


def _boxes(path: Path) -> None:
    domain = coco_domain("mine", images=path.parent, annotations=path)
    images = domain.unlabeled(path.parent, "train")
    for file in images.paths:
        assert domain.label is not None
        domain.label(file)


def _concept(path: Path) -> None:
    folder = path.parent / "concept"
    CONCEPT.save(folder)
    (folder / "concept.json").write_bytes(path.read_bytes())
    Concept.load(folder)


def _captions(path: Path) -> None:
    file = CaptionFile.read(path)
    for entry in file.entries.values():
        flags(entry.caption)
    file.lookup(Unlabeled(domain="d", root=path.parent, paths=(path.parent / "x.png",)), "a street")


def _concept_file() -> bytes:
    facts = {k: getattr(CONCEPT, k) for k in ("word", "domain", "backbone", "method")}
    return json.dumps(facts | {"settings": {"steps": 3}, "fingerprint": CONCEPT.fingerprint}).encode()


def depth_png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(stream, "PNG")
    return stream.getvalue()


def depth_npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.linspace(0, 9, 600, dtype=np.float32).reshape(20, 30))
    return stream.getvalue()


#: name of a file, what is in it when it is sound, who reads it
READERS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "jpeg": ("p.jpg", picture("JPEG"), open_image),
    "cmyk jpeg": ("p.jpg", picture("JPEG", "CMYK"), open_image),
    "png": ("p.png", picture("PNG", "RGBA"), open_image),
    "webp": ("p.webp", picture("WEBP"), open_image),
    "bmp": ("p.bmp", picture("BMP"), open_image),
    "mask": ("p.png", index_mask(), lambda path: read_mask(path, LABELS)),
    "depth png": ("p.png", depth_png(), read_depth),
    "depth npy": ("p.npy", depth_npy(), read_depth),
    "voc xml": ("p.xml", XML, lambda path: read_annotation(path, path.parent / "x.png", ("dog", "cat"))),
    "coco json": ("p.json", COCO, _boxes),
    "yolo": ("p.txt", YOLO, lambda path: read_yolo(path, path.parent / "x.png", ("dog", "cat"))),
    "labelme": ("p.json", LABELME, lambda path: read_labelme(path, path.parent / "x.png", ("dog", "cat"))),
    "caption json": ("p.json", CAPTIONS, _captions),
    "caption table": ("metadata.csv", TABLE, _captions),
    "recipe yaml": ("p.yaml", YAML, lambda path: read_benchmark(str(path))),
    "embedding": ("p.safetensors", EMBEDDING, lambda path: read_embedding(path, "<x>")),
    "lora": ("p.safetensors", LORA, lambda path: read_lora(path, UNET)),
    "concept": ("p.json", _concept_file(), _concept),
}


def foreign(read: Callable[[Path], object], path: Path) -> Exception | None:
    """What a reader raises that is not ours, or has no advice."""
    try:
        read(path)
    except TadpError as error:
        return None if error.what and error.fix else error
    except Exception as error:
        return error
    return None


def fuzz(name: str, folder: Path, seconds: float, most: int = 10**9) -> int:
    """How many spoiled files a reader was given; all of them were read or refused with advice."""
    file, whole, read = READERS[name]
    trees.picture(folder / "x.png", (16, 12))
    path = folder / file
    path.write_bytes(whole)
    read(path)  # sound, it is read
    end, number = time.monotonic() + seconds, 0
    while (time.monotonic() < end or number < 20) and number < most:
        content = spoiled(whole, np.random.default_rng([number, *name.encode()]))
        path.write_bytes(content)
        if (wrong := foreign(read, path)) is not None:
            raise AssertionError(f"{name} number {number}: {wrong!r} from {content[:4000]!r}") from wrong
        number += 1
    return number


@pytest.fixture(autouse=True)
def _calm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow speaks of odd EXIF data
        yield


@pytest.mark.parametrize("name", READERS)
def test_a_moment_of_spoiled_files_finds_no_foreign_error(name: str, tmp_path: Path) -> None:
    assert fuzz(name, tmp_path, MOMENT, most=300) >= 20


#: what long runs found, and is mended
FOUND = [
    ("cmyk jpeg", 10126),
    ("coco json", 1102),
    ("coco json", 2894),
    ("coco json", 6361),
    ("recipe yaml", 21365),
]


@pytest.mark.parametrize(("name", "number"), FOUND)
def test_what_a_long_run_found_is_mended(name: str, number: int, tmp_path: Path) -> None:
    file, whole, read = READERS[name]
    path = tmp_path / file
    path.write_bytes(spoiled(whole, np.random.default_rng([number, *name.encode()])))
    assert foreign(read, path) is None


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", READERS)
def test_a_minute_of_spoiled_files_finds_no_foreign_error(name: str, tmp_path: Path) -> None:
    count = fuzz(name, tmp_path, MINUTE)
    print(f"{name}: {count} spoiled files in {MINUTE:g} s")
