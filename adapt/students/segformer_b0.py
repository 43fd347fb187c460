"""The encoder of SegFormer-B0 (Xie et al., NeurIPS 2021) with an FPN: for masks and depth."""

from adapt.students import Student, students
from tadp_da.settings import Choice

students.add("segformer-b0")(
    Student(
        backbone=Choice(name="segformer"),
        weights="mit-b0",
        heads={
            "segmentation": Choice(name="semantic-fpn", settings={"width": 64}),
            "depth": Choice(name="depth-fpn", settings={"width": 64}),
        },
    )
)
