"""Where an artifact came from."""

from __future__ import annotations

import json
from pathlib import Path

from tadp_da.provenance import PROVENANCE, learned_from, write_provenance


def test_what_objectives_report_is_kept_beside_the_images_that_were_learned_from(tmp_path: Path) -> None:
    facts = {"supervised": {}, "self-training": {"fallback": 7.0}}
    write_provenance(tmp_path, "mini", {"digest": "a.png"}, facts)
    assert json.loads((tmp_path / PROVENANCE).read_text())["objectives"] == {
        "self-training": {"fallback": 7.0}
    }
    assert learned_from(tmp_path) == {"digest": "a.png"}
    write_provenance(tmp_path, "mini", {}, {"supervised": {}})
    assert "objectives" not in json.loads((tmp_path / PROVENANCE).read_text())
