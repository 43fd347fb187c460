"""Object detection from a feature pyramid: torchvision's Faster R-CNN with FPN (Ren et al., 2015; Lin et al., 2017)
behind a diffusion backbone, as the paper's detector is (TADP, section 4).
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings_class
from torch import Tensor, nn

from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.heads.detection.regions import Anchors, Regions, Sampling
from tadp_da.types import Detections, FeaturePyramid, FeatureSpec, LabelSpace

Count = Annotated[int, Field(ge=1, le=100_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(gt=0, le=100)]


@settings_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FasterRCNNSettings:
    """Settings of :class:`FasterRCNN`; the defaults are those of the paper's code, which are torchvision's.

    Attributes:
        use_attention: read the cross-attention maps behind the features (TADP, section 3.1).
        width: channels of the neck, a multiple of 8.
        hidden: units of the two layers that read a region.
        anchor_scale: side of a level's anchors in cells: 4 gives 32, 64, 128, 256 pixels at strides 8 to 64.
        ratios: height by width of the anchors.
        pool: cells on a side that a region is pooled to.
        samples: samples per such cell on a side.
        canonical: side in pixels of a region that is pooled from the level of stride 16; larger and smaller ones
            from coarser and finer levels.
        rpn_candidates: best anchors per level before suppression, in training and after it.
        rpn_proposals: proposals per image after suppression, in training and after it.
        rpn_nms: overlap above which only the better of two proposals is kept.
        rpn_match: overlap with an object below which an anchor is background, and from which it is an object.
        rpn_batch: anchors per image that are trained on.
        rpn_positive: share of them that are objects, at most.
        roi_match: overlap with an object from which a proposal is one; below, it is background.
        roi_batch: proposals per image that are trained on.
        roi_positive: share of them that are objects, at most.
        min_score: least score of a detection.
        nms: overlap above which only the better of two detections of one class is kept.
        most: detections per image.
        difficult: train on objects that are marked difficult; they never count in the score.
        min_visible: share of an object that a random crop must keep for it to be trained on.
    """

    use_attention: bool = True
    width: Annotated[int, Field(ge=8, le=2048, multiple_of=8)] = 256
    hidden: Annotated[int, Field(ge=8, le=8192)] = 1024
    anchor_scale: Annotated[float, Field(gt=0, le=64)] = 4.0
    ratios: Annotated[tuple[Ratio, ...], Field(min_length=1, max_length=9)] = (0.5, 1.0, 2.0)
    pool: Annotated[int, Field(ge=1, le=28)] = 7
    samples: Annotated[int, Field(ge=1, le=8)] = 2
    canonical: Annotated[int, Field(ge=8, le=2048)] = 224
    rpn_candidates: tuple[Count, Count] = (2000, 1000)
    rpn_proposals: tuple[Count, Count] = (2000, 1000)
    rpn_nms: Share = 0.7
    rpn_match: tuple[Share, Share] = (0.3, 0.7)
    rpn_batch: Count = 256
    rpn_positive: Share = 0.5
    roi_match: Share = 0.5
    roi_batch: Count = 512
    roi_positive: Share = 0.25
    min_score: Share = 0.05
    nms: Share = 0.5
    most: Count = 100
    difficult: bool = False
    min_visible: Share = 0.25

    @model_validator(mode="after")
    def _ordered(self) -> FasterRCNNSettings:
        if self.rpn_match[0] > self.rpn_match[1]:
            raise ValueError(f"rpn_match {self.rpn_match}: the first overlap must not be above the second")
        return self


@dataclass(frozen=True)
class NeckOutputs:
    """What a forward pass gives: levels ``str(stride) -> float32 (b, c, u, v)`` for images of ``size`` (h, w)."""

    levels: OrderedDict[str, Tensor]
    size: tuple[int, int]


@heads.add("faster-rcnn")
class FasterRCNN(nn.Module):
    """Boxes, classes and scores from a pyramid of strides that double, at images of any size.

    Args:
        spec: what the backbone gives; channel widths come from here and from nowhere else.
        labels: a detection label space.
        settings: the defaults when None.

    Raises:
        UsageError: when the label space is not for detection, or strides do not double from level to level.
    """

    Settings = FasterRCNNSettings
    task = "detection"

    def __init__(
        self, spec: FeatureSpec, labels: LabelSpace, settings: FasterRCNNSettings | None = None
    ) -> None:
        from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
        from torchvision.models.detection.roi_heads import RoIHeads
        from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
        from torchvision.ops import FeaturePyramidNetwork

        from tadp_da.heads.detection.anchors import StridedAnchors, roi_align

        super().__init__()
        self.strides = strides = tuple(sorted(spec.channels))
        _refuse_others(labels, strides)
        self.settings = made = settings or FasterRCNNSettings()
        self.labels, self.use_attention = labels, made.use_attention
        self.nms, self.most = made.nms, made.most
        self.anchor_sampling = Sampling(made.rpn_batch, made.rpn_positive)
        self.region_sampling = Sampling(made.roi_batch, made.roi_positive)
        widths = spec.widths(use_attention=self.use_attention)
        self.neck = FeaturePyramidNetwork([widths[s] for s in strides], made.width)
        modes = ("training", "testing")
        self.rpn = RegionProposalNetwork(
            StridedAnchors(strides, made.anchor_scale, made.ratios),
            RPNHead(made.width, len(made.ratios)),
            fg_iou_thresh=made.rpn_match[1],
            bg_iou_thresh=made.rpn_match[0],
            batch_size_per_image=made.rpn_batch,
            positive_fraction=made.rpn_positive,
            pre_nms_top_n=dict(zip(modes, made.rpn_candidates, strict=True)),
            post_nms_top_n=dict(zip(modes, made.rpn_proposals, strict=True)),
            nms_thresh=made.rpn_nms,
        )
        self.regions = RoIHeads(
            roi_align(strides, made.pool, made.samples, made.canonical),
            TwoMLPHead(made.width * made.pool**2, made.hidden),
            FastRCNNPredictor(made.hidden, len(labels.classes) + 1),
            fg_iou_thresh=made.roi_match,
            bg_iou_thresh=made.roi_match,
            batch_size_per_image=made.roi_batch,
            positive_fraction=made.roi_positive,
            bbox_reg_weights=None,
            score_thresh=made.min_score,
            nms_thresh=made.nms,
            detections_per_img=made.most,
        )

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> NeckOutputs:
        """The neck's levels for images of ``size`` = (h, w) pixels."""
        levels = pyramid.levels() if self.use_attention else pyramid.features
        neck = self.neck(OrderedDict((str(s), levels[s]) for s in self.strides))
        # coordinates need the precision, whatever the convolutions ran in
        return NeckOutputs(OrderedDict((k, x.float()) for k, x in neck.items()), size)

    def loss(self, raw: NeckOutputs, targets: list[dict[str, Tensor]]) -> Tensor:
        """Sum of :meth:`losses`."""
        return torch.stack([*self.losses(raw, targets).values()]).sum()

    def losses(self, raw: NeckOutputs, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The four losses of Faster R-CNN by torchvision's names, against ``boxes (n, 4)``, ``labels (n,)``,
        ``difficult (n,)`` and ``visible (n,)`` of each image; an image without objects has ``n = 0``. Which anchors and
        proposals are trained on is drawn from the global generator.
        """
        counted = [self._trained_on(target) for target in targets]
        with self._mode(raw, training=True) as images:
            proposals, rpn = self.rpn(images, raw.levels, counted)
            _, regions = self.regions(raw.levels, proposals, images.image_sizes, counted)
        return {**rpn, **regions}

    def anchors(self, raw: NeckOutputs) -> Anchors:
        """What the first stage says of every anchor."""
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        with self._mode(raw, training=False) as images:
            scores, moves = concat_box_prediction_layers(*self.rpn.head([*raw.levels.values()]))
        count = len(images.image_sizes)
        return Anchors(scores.view(count, -1), moves.view(count, -1, 4))

    def proposals(self, raw: NeckOutputs, anchors: Anchors) -> list[Tensor]:
        """The boxes ``(m, 4)`` in pixels that a prediction would classify in each image, best first."""
        rpn: Any = self.rpn
        levels = [*raw.levels.values()]
        counts = [x[0, 0].numel() * len(self.settings.ratios) for x in levels]
        with self._mode(raw, training=False) as images, torch.no_grad():
            places = rpn.anchor_generator(images, levels)
            boxes = rpn.box_coder.decode(anchors.moves.detach().flatten(0, 1), places)
            boxes = boxes.view(anchors.moves.shape)
            found, _ = rpn.filter_proposals(boxes, anchors.objectness, images.image_sizes, counts)
        return list(found)

    def classify(self, raw: NeckOutputs, boxes: Sequence[Tensor]) -> Regions:
        """What the second stage says of boxes ``(m, 4)`` of each image, one image behind another."""
        branch: Any = self.regions
        with self._mode(raw, training=False) as images:
            pooled = branch.box_roi_pool(raw.levels, list(boxes), images.image_sizes)
            logits, moves = branch.box_predictor(branch.box_head(pooled))
        return Regions(logits, moves.view(*logits.shape, 4))

    def probe(self, outputs: NeckOutputs) -> Tensor:
        """A scalar that depends on every parameter, on as many regions as are trained on but without choosing them: for
        counting operations on tensors without data."""
        levels, made = list(outputs.levels.values()), self.settings
        rpn: Any = self.rpn
        branch: Any = self.regions
        scores, moves = rpn.head(levels)
        regions = levels[0].new_empty(made.roi_batch * len(levels[0]), made.width, made.pool, made.pool)
        regions.requires_grad_(torch.is_grad_enabled())
        found = branch.box_predictor(branch.box_head(regions))
        return torch.stack([x.sum() for x in (*scores, *moves, *found)]).sum()

    @contextmanager
    def _mode(self, raw: NeckOutputs, *, training: bool) -> Iterator[Any]:
        """torchvision's record of the images' sizes, while its parts run in full precision and choose between loss and
        detections by their mode, on which nothing else in them depends."""
        from torchvision.models.detection.image_list import ImageList

        first = next(iter(raw.levels.values()))
        parts = {part: part.training for part in (self.rpn, self.regions)}
        for part in parts:
            part.train(training)
        try:
            with torch.autocast(first.device.type, enabled=False):
                yield ImageList(first, [raw.size] * len(first))
        finally:
            for part, before in parts.items():
                part.train(before)

    def _trained_on(self, target: dict[str, Tensor]) -> dict[str, Tensor]:
        """Boxes and labels of the objects that are trained on; torchvision's class 0 is the background."""
        kept = target["visible"] >= self.settings.min_visible
        if not self.settings.difficult:
            kept &= ~target["difficult"]
        return {"boxes": target["boxes"][kept].float(), "labels": target["labels"][kept] + 1}

    @torch.no_grad()
    def predict(self, raw: NeckOutputs) -> list[Detections]:
        """Detections in each image, best first, in pixels of the images that were given to the backbone."""
        with self._mode(raw, training=False) as images:
            proposals, _ = self.rpn(images, raw.levels)
            found, _ = self.regions(raw.levels, proposals, images.image_sizes)
        return [Detections.sorted(f["boxes"], f["labels"] - 1, f["scores"]) for f in found]

    def graph_outputs(self, raw: NeckOutputs) -> dict[str, Tensor]:
        """What :meth:`predict` returns for a single image, as tensors in a graph that can be exported: ``boxes (n,
        4)``, ``labels (n,)`` and ``scores (n,)``, best first."""
        from tadp_da.heads.detection.graph import classify, pool, propose

        levels = [*raw.levels.values()]
        branch: Any = self.regions
        with self._mode(raw, training=False) as images:
            anchors = self.rpn.anchor_generator(images, levels)[0]
            proposals = propose(self.rpn, levels, anchors, raw.size)
            pooled = pool(branch.box_roi_pool, levels, proposals)
            logits, moves = branch.box_predictor(branch.box_head(pooled))
            boxes, scores, labels = classify(branch, logits, moves, proposals, raw.size)
        return {"boxes": boxes, "labels": labels, "scores": scores}


def _refuse_others(labels: LabelSpace, strides: tuple[int, ...]) -> None:
    if labels.task != FasterRCNN.task or not labels.classes:
        raise UsageError(
            f"faster-rcnn cannot read {labels.task} labels of {len(labels.classes)} classes",
            fix="give detection labels (boxes) with at least one class",
        )
    if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)) or strides[0].bit_count() != 1:
        raise UsageError(
            f"faster-rcnn needs strides that are powers of two, each twice the one before; found {strides}",
            fix="choose a backbone with such levels",
        )
