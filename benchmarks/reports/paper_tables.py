"""The numbers of the paper's tables: data, and nothing else.

They are those of the tables of arXiv 2310.00031v3 (CVPR 2024). Where the paper's prose says otherwise, the table
stands.
"""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """A measure of a table: the data set and the measure by their names here, the paper's heading, and digits behind
    the point. ``AP`` is the mean over overlaps 0.50 to 0.95."""

    target: str
    measure: str
    heading: str
    digits: int = 1


class PaperRow(NamedTuple):
    """A method, what it is told (see :attr:`PaperTable.about`), its numbers in the order of the columns (None where the
    paper has none), and the name of the row in the recipes here, or that in the recipe of each column; empty for the
    work of others."""

    method: str
    seen: str
    numbers: tuple[float | None, ...]
    row: str | tuple[str, ...] = ""

    def row_of(self, column: int) -> str:
        """Name of the row in the recipe of a column."""
        return self.row if isinstance(self.row, str) else self.row[column]


class PaperTable(NamedTuple):
    """A table of the paper; ``about`` is what :attr:`PaperRow.seen` says of a row. ``further`` tells whether rows of
    the recipes that are in no table of the paper are shown below it."""

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[PaperRow, ...]
    remarks: tuple[str, ...]
    about: str = "seen of the target"
    further: bool = True


_CLASSES, _CAPTIONS, _LABELS = "all class names", "captions", "the classes in the image's label"
_ONE_RUN = "The paper reports one run per row, evaluated on the test images during training."
TABLE_1 = PaperTable(
    number=1,
    title="Pascal VOC 2012, semantic segmentation by prompt",
    columns=(Column("voc-segmentation", "mIoU", "VOC val mIoU", 2),),
    rows=(
        PaperRow("VPD (reproduced)", _CLASSES, (82.34,), "vpd"),
        PaperRow("VPD, latents scaled", _CLASSES, (83.06,), "vpd-scaled"),
        PaperRow("class embeddings", _CLASSES, (82.72,), "class-tokens"),
        PaperRow("class names", _CLASSES, (84.08,), "class-names"),
        PaperRow("TADP-0", _CAPTIONS, (86.36,), "min-0"),
        PaperRow("TADP-20", _CAPTIONS, (86.19,), "min-20"),
        PaperRow("TADP-40", _CAPTIONS, (87.11,), "null"),
        PaperRow("TADP-20, nouns only", _CAPTIONS, (86.35,), "nouns"),
        PaperRow("TADP oracle", _LABELS, (89.85,), "oracle"),
    ),
    remarks=(
        "The oracle reads labels of test images: an upper bound, and no method.",
        "The paper's prose gives nouns only 86.4; its table says 86.35.",
        _ONE_RUN,
    ),
    about="prompt",
)
TABLE_2 = PaperTable(
    number=2,
    title="ADE20K, semantic segmentation, and NYUv2, depth",
    columns=(
        Column("ade20k", "mIoU", "ADE20K mIoU"),
        Column("ade20k", "mIoU", "ADE20K mIoU, several scales"),
        Column("nyu-v2", "RMSE", "NYUv2 RMSE (m)", 3),
    ),
    rows=(
        PaperRow("VPD", _CLASSES, (53.7, 54.6, 0.254)),
        PaperRow("VPD (reproduced)", _CLASSES, (53.1, 54.2, 0.248), ("vpd", "vpd-scales", "vpd")),
        PaperRow(
            "VPD, latents scaled",
            _CLASSES,
            (53.7, 54.4, 0.235),
            ("vpd-scaled", "vpd-scaled-scales", "vpd-scaled"),
        ),
        PaperRow("TADP-40", _CAPTIONS, (54.8, 55.9, 0.225), ("null", "null-scales", "null")),
        PaperRow("TADP oracle", _LABELS, (72.0, None, None), ("oracle", "", "")),
    ),
    remarks=(
        "The oracle reads labels of test images: an upper bound, and no method. The prose gives it 72.2.",
        "Several scales are 1.0 to 1.5 with the mirror image, as in the authors' code.",
        "On NYUv2, VPD's prompt is the name of the image's scene, such as bathroom.",
        _ONE_RUN,
    ),
    about="prompt",
)
TABLE_3 = PaperTable(
    number=3,
    title="Fast schedules: ADE20K in 4,000 and 8,000 steps, NYUv2 in one epoch",
    columns=(
        Column("ade20k", "mIoU", "4k steps mIoU"),
        Column("ade20k", "mIoU", "8k steps mIoU"),
        Column("nyu-v2", "RMSE", "1 epoch RMSE (m)", 3),
    ),
    rows=(
        PaperRow("VPD, no text", "none", (41.5, 46.9, None), ("no-text-4k", "no-text-8k", "")),
        PaperRow("VPD", _CLASSES, (43.1, 48.7, 0.349)),
        PaperRow("VPD (reproduced)", _CLASSES, (42.6, 49.2, 0.340), ("vpd-4k", "vpd-8k", "vpd-1-epoch")),
        PaperRow(
            "VPD, latents scaled",
            _CLASSES,
            (45.0, 50.5, 0.332),
            ("vpd-scaled-4k", "vpd-scaled-8k", "vpd-scaled-1-epoch"),
        ),
        PaperRow(
            "TADP-20 (depth: TADP-0)",
            _CAPTIONS,
            (50.2, 52.8, 0.328),
            ("min-20-4k", "min-20-8k", "min-0-1-epoch"),
        ),
        PaperRow(
            "the same with a text adapter",
            _CAPTIONS,
            (49.9, 52.7, None),
            ("text-adapter-4k", "text-adapter-8k", ""),
        ),
    ),
    remarks=(_ONE_RUN,),
    about="prompt",
    further=False,
)
TABLE_4 = PaperTable(
    number=4,
    title="Cityscapes to night, semantic segmentation",
    columns=(
        Column("dark-zurich", "mIoU", "Dark Zurich-val mIoU"),
        Column("nighttime-driving", "mIoU", "Nighttime Driving mIoU"),
    ),
    rows=(
        PaperRow("DAFormer", "images", (None, 54.1)),
        PaperRow("Refign-DAFormer", "images", (None, 56.8)),
        PaperRow("PTDiffSeg", "-", (37.0, None)),
        PaperRow("TADP null", "-", (42.8, 57.5), "null"),
        PaperRow("TADP simple", "name", (39.1, 56.9), "simple"),
        PaperRow("TADP TextualInversion", "500 images of Dark Zurich", (41.4, 60.8), "textual-inversion"),
        PaperRow("TADP DreamBooth", "500 images of Dark Zurich", (38.9, 60.4), "dreambooth"),
        PaperRow("TADP NearbyDomain", "-", (41.9, 56.9), "nearby"),
        PaperRow("TADP UnrelatedDomain", "-", (42.3, 55.1), "unrelated"),
    ),
    remarks=(
        "The paper's prose gives null 60.8 on Nighttime Driving; its table says 57.5.",
        _ONE_RUN,
    ),
)
TABLE_5 = PaperTable(
    number=5,
    title="Pascal VOC to drawings, object detection",
    columns=(
        Column("watercolor2k", "AP (VOC07)", "Watercolor2k AP"),
        Column("watercolor2k", "AP50 (VOC07)", "Watercolor2k AP50"),
        Column("comic2k", "AP (VOC07)", "Comic2k AP"),
        Column("comic2k", "AP50 (VOC07)", "Comic2k AP50"),
    ),
    rows=(
        PaperRow("CLIP-the-Gap", "-", (None, 33.5, None, 43.4)),
        PaperRow("PLGE", "images and their classes", (None, 56.5, None, 41.7)),
        PaperRow("ICCM", "images and their classes", (None, 57.4, None, 37.1)),
        PaperRow("H2FA R-CNN", "images and their classes", (None, 59.9, None, 46.4)),
        PaperRow("ADDA", "images", (None, 49.8, None, 23.8)),
        PaperRow("MCAR", "images", (None, 56.0, None, 33.5)),
        PaperRow("UMT", "images", (None, 58.1, None, None)),
        PaperRow("DASS-Detector", "images and many drawings", (None, 71.5, None, 64.2)),
        PaperRow("TADP null", "-", (42.1, 72.1, 31.1, 57.4), "null"),
        PaperRow("TADP simple", "name", (43.5, 72.2, 31.9, 56.6), "simple"),
        PaperRow("TADP TextualInversion", "5 images", (43.2, 72.2, 33.2, 57.4), "textual-inversion"),
        PaperRow("TADP DreamBooth", "5 images", (43.2, 72.2, 32.9, 56.9), "dreambooth"),
        PaperRow("TADP NearbyDomain", "-", (42.0, 71.5, 31.8, 56.4), "nearby"),
        PaperRow("TADP UnrelatedDomain", "-", (42.2, 71.9, 32.0, 55.9), "unrelated"),
    ),
    remarks=(
        "The paper does not say which AP it reports; ours is VOC 2007's (11 points), as its data sets' authors do.",
        _ONE_RUN,
    ),
)
TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5)
