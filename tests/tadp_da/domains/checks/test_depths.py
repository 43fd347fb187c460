"""The usual mistakes of depth maps, and that sound ones are not suspected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tadp_da.domains.checks.validate import check_data
from tadp_da.domains.formats.depth_folder import depth_folder_domain
from tests.tadp_da.domains import trees
from tests.tadp_da.domains.checks.checked import command, only

SIZE = (30, 40)


def metres(index: int) -> np.ndarray:
    """A floor that comes nearer towards the bottom, and a hole."""
    rng = np.random.default_rng(index)
    rows = np.linspace(4 + rng.random(), 1, SIZE[0])[:, None]
    depth = (rows + 0.2 * rng.random(SIZE)).astype(np.float32)
    depth[3:6, 4:9] = 0
    return depth


def drawn(root: Path, change: Callable[[np.ndarray], np.ndarray] = lambda x: x, count: int = 6) -> Path:
    for index in range(count):
        trees.picture(root / f"i/{index}.png", (SIZE[1], SIZE[0]))
        path = root / f"d/{index}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, change(metres(index)))
    return root


def checked(root: Path, **options: float) -> object:
    return check_data(depth_folder_domain("mine", images=root / "i", depth=root / "d", **options), root)


def test_sound_depth_is_summed_up_and_not_suspected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(tmp_path)
    assert command("data", "check", tmp_path / "i", tmp_path / "d") == 0
    shown = capsys.readouterr().out
    assert "median 2.8" in shown
    assert "1.2% of all pixels are 0 and count as unknown" in shown
    assert shown.endswith("ready to use\n")


@pytest.mark.parametrize(
    ("change", "options", "level", "what", "fix"),
    [
        (lambda x: 1000 * x, {}, "error", "millimetres read as metres", "--depth-unit 0.001"),
        (lambda x: x, {"unit": 0.001}, "error", "metres read as millimetres", "--depth-unit 1 for metres"),
        (lambda x: 20 * x, {}, "error", "is that the unit?", "--max-depth"),
        (lambda x: x / x.max(), {}, "warning", "normalized one by one", "give metric depth"),
        (
            lambda x: np.where(x > 0, 3 / np.maximum(x, 0.1), 0),
            {},
            "warning",
            "inverse depth",
            "focal length",
        ),
        (lambda x: np.where(x > 0, x, 7), {}, "warning", "does it mark unknown ones", "--max-depth 7"),
        (lambda x: 0 * x, {}, "warning", "unknown pixels only", "remove image"),
    ],
    ids=["millimetres", "metres", "far", "relative", "inverse", "mark", "empty"],
)
def test_the_usual_mistakes_of_depth_maps_are_told_with_their_fix(
    tmp_path: Path, change: Callable, options: dict[str, float], level: str, what: str, fix: str
) -> None:
    finding = only(checked(drawn(tmp_path, change), **options), level)  # type: ignore[arg-type]
    assert what in finding.what
    assert fix in finding.fix


def test_the_options_that_a_finding_names_mend_it(tmp_path: Path) -> None:
    drawn(tmp_path, lambda x: 1000 * x)
    words = ["data", "check", tmp_path / "i", tmp_path / "d"]
    assert command(*words) == 3
    assert command(*words, "--depth-unit", "0.001") == 0
    assert command(*words, "--max-depth", "9000") == 0


def test_masks_where_depth_is_expected_are_refused(tmp_path: Path) -> None:
    drawn(tmp_path)
    for index in range(6):
        trees.mask(tmp_path / f"m/{index}.png", (1, 200), (SIZE[1], SIZE[0]))
    domain = depth_folder_domain("mine", images=tmp_path / "i", depth=tmp_path / "m")
    assert "8 bits a channel" in only(check_data(domain, tmp_path)).what
