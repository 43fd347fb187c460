"""Names from outside become one part of a path each."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tadp_da.domains import Domain
from tadp_da.domains.checks import preflight
from tadp_da.run import Run
from tadp_da.storage.files import file_name

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["..", ".", "a/b", "a\\b", "%", "%2F", "/", "x" * 999, "é" * 200, "\0", "a\nb", "null "]
)


@given(TEXT, TEXT)
def test_every_name_becomes_one_part_of_a_path_of_its_own(one: str, two: str) -> None:
    names = [file_name(one), file_name(two)]
    assert (names[0] == names[1]) == (one == two)
    for name in names:
        assert Path("folder", name).parts == ("folder", name)
        assert name not in (".", "..", "")
        assert len(f"{name}-12345.json".encode()) < 255
        assert not set('\\:*?<>|\0\n"') & set(name)


def test_usual_names_stay_as_they_are() -> None:
    usual = ("dreambooth-word-only", "no-text", "dark-zurich", "a row", "Nacht über Zürich", "v1.4 (mine)")
    assert [file_name(name) for name in usual] == [*usual]


def test_the_list_of_a_data_set_of_any_name_is_in_the_run_folder(tmp_path: Path) -> None:
    domain = Domain(name="../night", splits=("unlabeled",), images=lambda root, split: ())
    preflight._without(domain, {"unlabeled": {"a.png": "truncated"}}, Run(folder=tmp_path / "run"))
    assert [path.parent for path in tmp_path.rglob("skipped-*.json")] == [tmp_path / "run"]
