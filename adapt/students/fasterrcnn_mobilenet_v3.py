"""Faster R-CNN with FPN on MobileNetV3-Large, as torchvision's detector of that name: for boxes."""

from adapt.students import Student, students
from tadp_da.settings import Choice

students.add("fasterrcnn-mobilenet-v3")(
    Student(
        backbone=Choice(name="mobilenet-v3"),
        weights="imagenet",
        heads={"detection": Choice(name="faster-rcnn")},
    )
)
