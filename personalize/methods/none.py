"""No personalization: the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings

from personalize import personalizers

if TYPE_CHECKING:
    from tadp_da.backbones import Backbone
    from tadp_da.concept import Concept
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled


@personalizers.add("none")
@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NoPersonalization:
    """A concept without word and tensors, which changes nothing."""

    needs_images: ClassVar[bool] = False
    needs_captions: ClassVar[bool] = False
    learns_weights: ClassVar[bool] = False

    def __call__(
        self,
        backbone: Backbone,
        images: Unlabeled,
        run: Run,
        captions: Mapping[str, str] | None = None,
    ) -> Concept:
        """The empty concept; no image is opened."""
        from tadp_da.concept import Concept

        return Concept(word="", domain=images.domain, backbone=backbone.fingerprint, method="none")
