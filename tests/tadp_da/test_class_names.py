"""One class, many spellings."""

from __future__ import annotations

import pytest

from tadp_da.class_names import canonical, class_id, same_classes
from tadp_da.domains import domains
from tadp_da.domains.cross_domain_art import SIX
from tadp_da.domains.shared.voc_layout import CLASSES
from tadp_da.errors import DataError

#: COCO's spelling of the classes that VOC spells otherwise.
OTHERWISE = {
    "aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle", "pottedplant": "potted plant",
    "sofa": "couch", "tvmonitor": "tv",
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_voc_is_known_as_coco_spells_it(name: str) -> None:
    for spelled in (name, OTHERWISE.get(name, name), name.upper(), f" {name}", f"{name[:2]}_{name[2:]}"):
        assert CLASSES[class_id(spelled, CLASSES, "x")] == name


@pytest.mark.parametrize("known", ["voc-segmentation", "cityscapes", "watercolor2k"])
def test_no_two_classes_of_a_data_set_mean_the_same(known: str) -> None:
    classes = domains[known].labels.classes  # type: ignore[union-attr]
    assert len({canonical(name) for name in classes}) == len(classes)


def test_the_likest_spelling_wins() -> None:
    both = ("pedestrian", "person", "human")
    assert [class_id(name, both, "x") for name in (*both, "Person", "HUMAN")] == [0, 1, 2, 1, 2]


def test_twenty_classes_meet_six_by_name() -> None:
    assert same_classes(CLASSES, SIX) == {1: 0, 2: 1, 6: 2, 7: 3, 11: 4, 14: 5}
    assert same_classes(SIX, CLASSES) == {v: k for k, v in same_classes(CLASSES, SIX).items()}
    assert same_classes(["TV", "owl"], ["cat", "tvmonitor"]) == {0: 1}


def test_synonyms_that_both_sides_tell_apart_stay_apart() -> None:
    both = ["pedestrian", "person", "car"]
    assert same_classes(both, both) == {0: 0, 1: 1, 2: 2}
    assert same_classes(both, ["Person", "human", "car"]) == {0: 1, 1: 0, 2: 2}
    assert same_classes(["person"], both) == {0: 1}


def test_an_unknown_name_lists_what_is_known() -> None:
    with pytest.raises(DataError, match="'motorbik', did you mean 'motorbike'") as caught:
        class_id("motorbik", CLASSES, "a.xml:3")
    assert caught.value.where == "a.xml:3"
    assert f"--classes {','.join(CLASSES)},-motorbik;" in caught.value.fix
    assert ", ".join(CLASSES) in caught.value.fix
