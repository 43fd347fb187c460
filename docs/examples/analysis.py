"""How large a head is beside its backbone: an analysis of models."""

from typing import Annotated, ClassVar

from PIL import Image, ImageDraw
from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.analyses import Findings, Given, Needs, analyses
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.settings import STRICT


@analyses.add("weights")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Weights:
    """Compares the number of weights of backbone and head.

    Attributes:
        width: of the figure, in pixels.
    """

    needs: ClassVar[Needs] = "models"

    width: Annotated[int, Field(ge=64)] = 256

    def __call__(self, given: Given, run: Run) -> Findings:
        rows = []
        for folder in given.folders:
            model = PerceptionModel.load(folder, device=run.torch_device)
            total = sum(p.numel() for p in model.parameters())
            head = sum(p.numel() for p in model.head.parameters())
            rows.append({"model": folder.name, "weights": total, "head": 100 * head / total})
        figure = Image.new("RGB", (self.width, 16 * len(rows)), "white")
        pen = ImageDraw.Draw(figure)
        for i, row in enumerate(rows):
            pen.rectangle((0, 16 * i + 2, self.width * row["head"] / 100, 16 * i + 13), fill="black")
        largest = max(rows, key=lambda row: row["head"])
        text = f"Of {len(rows)} models {largest['model']} has the largest head: {largest['head']:.1f} % of its weights."
        return Findings(text=text, tables={"weights": rows}, figures={"head": figure})
