"""A perception model as an ONNX file, for programs without PyTorch: pixels in, the head's outputs out.

The embedding of one prompt is a constant of the graph: neither tokenizer nor text encoder is in the file. It is made
by ``torch.export`` (PyTorch's dynamo exporter), and holds no pickle and no Python.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tadp_da.errors import ArtifactError, EnvironmentSetupError, UsageError
from tadp_da.model_files import FACTS
from tadp_da.perception_model import PerceptionModel
from tadp_da.settings import as_json
from tadp_da.storage.files import file_digest, storing

if TYPE_CHECKING:
    import numpy as np

Size = tuple[int, int]
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3
"""Largest difference between the file's outputs and the model's, relative to outputs above 1."""
PIXELS = "float32 (batch, 3, height, width), RGB, value / 127.5 - 1 of 8-bit values: between -1 and 1"
_MOST_IMAGES = 63  # diffusers copies tensors of batches from 64 on, which would be another graph


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """What was written.

    Attributes:
        path: the file; weights beyond 2 GB are in a second one beside it, named ``<name>.data``.
        prompt: whose embedding is in it.
        metadata: what the file says about itself, by key.
        deviation: largest difference of its outputs under onnxruntime from the model's.
    """

    path: Path
    prompt: str
    metadata: Mapping[str, str]
    deviation: float


def export(
    model: PerceptionModel | Path | str,
    out: Path | str,
    *,
    prompt: str | None = None,
    size: Size | None = None,
) -> OnnxFile:
    """Write a model as an ONNX file, and compare its outputs under onnxruntime with the model's.

    The outputs are those of one forward pass: ``logits (batch, classes, height, width)`` for segmentation, ``depth
    (batch, 1, height, width)`` in metres, and for boxes ``boxes (n, 4)``, ``labels (n,)`` and ``scores (n,)`` of one
    image. Windows and mirror images of the model's inference settings are up to the caller; the metadata holds them.

    Args:
        model: a perception model, or the folder of one.
        out: a new file that ends in ``.onnx``.
        prompt: given to the network for every image; by default what the model's caption strategy makes of an empty
            caption.
        size: fixed height and width of images; by default height and width are free, in multiples of the grid.

    Raises:
        EnvironmentSetupError: when the extra ``export`` is not installed.
        UsageError: for a size off the grid, an output file that exists, or a head or setting that cannot be exported.
        ArtifactError: when the file computes something else than the model.
    """
    require_packages()
    place = Path(out)
    if place.suffix != ".onnx" or place.exists():
        raise UsageError(
            f"{place} {'exists' if place.exists() else 'does not end in .onnx'}",
            fix="give a new file that ends in .onnx",
        )
    if not isinstance(model, PerceptionModel):
        model = PerceptionModel.load(Path(model))
    refuse_off_grid(size, max(model.backbone.spec.channels))
    _refuse_sampling(model)
    prompt = model.prompt("") if prompt is None else prompt
    graph = Graph(model.eval(), prompt)
    metadata = describe(model, prompt, size)
    scratch = place.with_name(f".{place.name}.draft")
    place.parent.mkdir(parents=True, exist_ok=True)
    with storing(place):
        try:
            scratch.mkdir(exist_ok=True)
            _write(graph, scratch / place.name, metadata, size)
            deviation = graph.deviation(scratch / place.name, size)
            for file in sorted(scratch.iterdir(), reverse=True):  # the graph last: it names the other
                file.replace(place.with_name(file.name))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return OnnxFile(path=place, prompt=prompt, metadata=metadata, deviation=deviation)


def require_packages() -> None:
    """Check that the extra is installed.

    Raises:
        EnvironmentSetupError: naming the first package that is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentSetupError(
            f"export needs {' and '.join(missing)}, not installed here", fix="pip install 'tadp-da[export]'"
        )


def refuse_off_grid(size: Size | None, grid: int) -> None:
    """Refuse a fixed size that is not a multiple of the grid.

    Raises:
        UsageError: with the nearest larger size.
    """
    if size is None or all(side > 0 and side % grid == 0 for side in size):
        return
    height, width = (max(grid, -(-side // grid) * grid) for side in size)
    raise UsageError(
        f"the size {size[0]}x{size[1]} (height x width) is not on the model's grid of {grid} pixels",
        where="--size",
        fix=f"give {height}x{width}, and pad images to it by repeating their last row and column",
    )


def _refuse_sampling(model: PerceptionModel) -> None:
    if getattr(model.backbone.settings, "posterior", "mode") == "sample":
        raise UsageError(
            "the backbone samples the autoencoder's posterior, and a file cannot draw the same noise",
            where="backbone.settings.posterior",
            fix="train with posterior: mode; the other recipes do",
        )


def describe(model: PerceptionModel, prompt: str, size: Size | None) -> dict[str, str]:
    """Metadata of the file: plain text, or JSON for lists and settings."""
    labels, digest = model.labels, ""
    if model.folder is not None:
        digest = file_digest(model.folder / FACTS)  # which names the digest of every other file
    inference = as_json(model.inference)
    return {
        "task": labels.task,
        "classes": json.dumps(labels.classes),
        "palette": json.dumps(labels.palette),
        "range": json.dumps(labels.range),
        "unit": "m" if labels.range else "",
        "pixels": PIXELS,
        "grid": str(max(model.backbone.spec.channels)),
        "size": json.dumps(size),
        "prompt": prompt,
        "inference": json.dumps({k: v for k, v in inference.items() if k != "batch"}),
        "head": model.head_name,
        "model_digest": digest,
    }


class Graph(nn.Module):
    """What is exported: a model with the embedding of one prompt.

    Args:
        model: in eval mode.
        prompt: for every image.
    """

    text: Tensor

    def __init__(self, model: PerceptionModel, prompt: str) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.register_buffer("text", model.encode_text([prompt]))
        self.single = hasattr(model.head, "graph_outputs")

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        # not len(), which would fix the size of a batch
        raw = self.model(pixels, self.text.expand(pixels.shape[0], -1, -1))
        if self.single:
            found: dict[str, Tensor] = self.model.head.graph_outputs(raw)
            return found
        if not isinstance(raw, Tensor):
            raise UsageError(
                f"the head {self.model.head_name!r} returns {type(raw).__name__}, not a tensor",
                fix="give it a method graph_outputs(raw) that returns tensors by name; see tadp_da.heads",
            )
        return {"logits" if self.model.labels.classes else self.model.labels.task: raw}

    def example(self, size: Size | None, cells: Size = (4, 3), images: int = 2) -> Tensor:
        """Random pixels of a fixed size, or of so many cells of the grid."""
        grid = max(self.model.backbone.spec.channels)
        height, width = size or (cells[0] * grid, cells[1] * grid)
        pixels = torch.rand(
            1 if self.single else images, 3, height, width, generator=torch.Generator().manual_seed(0)
        )
        return (2 * pixels - 1).to(self.model.device)

    @torch.no_grad()
    def deviation(self, path: Path, size: Size | None) -> float:
        """Largest difference of a file's outputs from the graph's, at the example's size and at another.

        Raises:
            ArtifactError: when it is larger than :data:`TOLERANCE`.
        """
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names, most = [output.name for output in session.get_outputs()], 0.0
        for pixels in (self.example(size), self.example(size, (2, 5), 3)):
            expected = {name: value.cpu().numpy() for name, value in self(pixels).items()}
            found = dict(zip(names, session.run(None, {"pixels": pixels.cpu().numpy()}), strict=True))
            most = max(most, *(_difference(found[name], value) for name, value in expected.items()))
        if not most <= TOLERANCE:
            raise ArtifactError(
                f"the outputs of the exported graph differ from the model's by {most:.2g}",
                where=path,
                fix="please report it with the model's settings; another version of torch, onnxscript or onnxruntime "
                "may work",
            )
        return most


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    import numpy as np

    if found.shape != expected.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())


def _write(graph: Graph, path: Path, metadata: Mapping[str, str], size: Size | None) -> None:
    """Trace the graph and write it; sizes are free where they are not given."""
    grid, dim = max(graph.model.backbone.spec.channels), torch.export.Dim
    free = {2: grid * dim("rows"), 3: grid * dim("columns")} if size is None else {}
    free |= {} if graph.single else {0: dim("batch", max=_MOST_IMAGES)}
    pixels = graph.example(size)
    with torch.no_grad(), _quiet():
        names = list(graph(pixels))
        traced = torch.export.export(graph, (pixels,), dynamic_shapes={"pixels": free}, strict=False)
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=["pixels"],
            output_names=names,
            verbose=False,
        )
    if program is None:  # only for the exporter that is not used here
        raise ArtifactError("the exporter returned nothing", where=path, fix="install another torch")
    program.model.metadata_props.update(metadata)
    program.model.producer_name = "tadp-da"
    program.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks about things that are none of the user's business."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "torch.fx")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)


def as_size(text: str) -> Size | None:
    """Height and width from text such as ``512x1024``; None for an empty one.

    Raises:
        UsageError: when it is not such a text.
    """
    if not text:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(f"--size {text!r} is not HEIGHTxWIDTH", fix="write for example --size 512x1024")
    return int(height), int(width)
