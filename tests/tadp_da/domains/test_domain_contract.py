"""What every registered domain must do. A new domain is tested the moment its file exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tadp_da.domains import Domain, domains
from tadp_da.errors import TadpError, UsageError
from tadp_da.types import Unlabeled


@pytest.fixture(params=list(domains))
def domain(request: pytest.FixtureRequest) -> Domain:
    return domains[request.param]


def test_it_is_registered_under_its_own_name(domain: Domain) -> None:
    assert domains[domain.name] is domain


def test_it_can_be_a_source_or_a_target(domain: Domain) -> None:
    assert {"train", "unlabeled"} & set(domain.splits)
    assert len(set(domain.splits)) == len(domain.splits)
    if "train" in domain.splits:
        assert domain.labels is not None
        assert domain.label is not None


def test_it_says_what_its_splits_hold(domain: Domain) -> None:
    assert set(domain.counts) <= set(domain.splits)
    assert set(domain.labelled) <= set(domain.splits)
    assert not domain.labelled or domain.label is not None
    assert [split for split in domain.splits if domain.has_labels(split)] or domain.labels is None
    assert not domain.has_labels("unlabeled")
    assert "test" not in domain.splits or domain.labels is None or domain.has_labels("test")


def test_captions_can_speak_of_it(domain: Domain) -> None:
    words = domain.description
    assert all(text.strip() == text != "" for text in (words.medium, words.nearby, words.unrelated))
    assert words.nearby != words.unrelated
    assert f"a {words.style} {words.medium}" not in (words.nearby, words.unrelated), (
        "a control says what is true"
    )
    assert all("{caption}" in template for template in words.templates.values())


def test_labels_are_well_formed(domain: Domain) -> None:
    labels = domain.labels
    if labels is None:
        return
    if labels.range is not None:
        assert 0 < labels.range[0] < labels.range[1]
        assert not labels.classes
        return
    assert len(set(labels.classes)) == len(labels.classes) >= 2
    assert labels.ignore >= len(labels.classes)
    assert len(set(labels.palette)) in (0, len(labels.classes)), "two classes share a colour"


def test_a_root_that_cannot_hold_it_is_refused_with_advice(domain: Domain, tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("not a folder")
    assert domain.fetch
    for split in domain.splits:
        with pytest.raises(TadpError, match=r"root") as caught:
            domain.unlabeled(root, split)
        assert "root" in caught.value.fix
        assert caught.value.exit_code in (3, 4)


def test_an_unknown_split_is_refused_with_the_known_ones(domain: Domain, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"choose one of: {', '.join(domain.splits)}"):
        domain.unlabeled(tmp_path, "holdout")


def test_what_stage_one_gets_has_no_way_to_labels() -> None:
    assert set(Unlabeled.__dataclass_fields__) == {"domain", "root", "paths", "digests"}
    assert Unlabeled("night", Path(), (Path("a.png"),)).digests == {}, "digests are of image files"
    assert not [name for name in dir(Unlabeled) if "label" in name.lower() or "mask" in name.lower()]
