"""Laws of registries and errors: near misses are named, doubles refused, advice is always there."""

from __future__ import annotations

import pytest

from tadp_da import errors
from tadp_da.backbones import backbones
from tadp_da.captions.strategies import strategies
from tadp_da.domains import domains
from tadp_da.errors import TadpError, UsageError
from tadp_da.heads import heads
from tadp_da.registry import Registry, nearest


@pytest.mark.parametrize("registry", [backbones, strategies, domains, heads], ids=lambda r: r.kind)
def test_every_registry_finds_its_folder(registry: Registry[object]) -> None:
    assert len(registry) > 0
    assert list(registry) == sorted(registry)
    for name in registry:
        assert name in registry
        assert registry[name] is not None


def test_a_near_miss_is_named_and_a_far_one_is_not() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'semantic-fpn'"):
        heads["semantic-fnp"]
    with pytest.raises(UsageError) as refused:
        heads["zzz"]
    assert "did you mean" not in str(refused.value)
    assert "choose one of: " in str(refused.value)
    assert nearest("nul", ["null", "simple"]) == ", did you mean 'null'?"


def test_a_name_taken_twice_is_refused_with_both_places() -> None:
    registry: Registry[str] = Registry("thing", "tadp_da.heads")
    registry.add("x")("first")
    with pytest.raises(UsageError, match="'first' and 'second'"):
        registry.add("x")("second")


def test_exit_codes_are_the_published_contract() -> None:
    codes = {c.__name__: c.exit_code for c in TadpError.__subclasses__()}
    assert codes == {
        "UsageError": 2,
        "DataError": 3,
        "EnvironmentSetupError": 4,
        "DivergedError": 5,
        "ArtifactError": 6,
        "InterruptedRunError": 75,
    }
    error = errors.DataError("a mask holds 9", where="a.png", fix="map it")
    assert error.lines() == ["a mask holds 9", "  where: a.png", "  fix:   map it"]
    assert str(error) == "\n".join(error.lines())
