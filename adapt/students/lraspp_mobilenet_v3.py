"""LR-ASPP on MobileNetV3-Large (Howard et al., ICCV 2019): 3.2 million parameters, for masks."""

from adapt.students import Student, students
from tadp_da.settings import Choice

students.add("lraspp-mobilenet-v3")(
    Student(
        backbone=Choice(name="mobilenet-v3", settings={"dilated": True}),
        weights="imagenet",
        heads={"segmentation": Choice(name="lraspp")},
    )
)
