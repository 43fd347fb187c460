"""Detections of one image as a graph of tensors, for export: what torchvision's two stages do between their networks,
without choices by size, which a traced graph cannot hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms, roi_align
from torchvision.ops.boxes import remove_small_boxes


def best_of_each(
    boxes: Tensor, scores: Tensor, groups: Tensor, overlap: float, most: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes ``(n, 4)`` within an image of ``size``, scores and groups that are left when of two boxes of a group that
    overlap only the better is kept; best first, at most so many."""
    # boxes of different groups are moved apart, as in torchvision's batched_nms, but by what no image can hold, because
    # there may be no box
    apart = boxes + (groups.to(boxes) * (size[0] + size[1]))[:, None]
    kept = nms(apart, scores, overlap)[:most]
    return boxes[kept], scores[kept], groups[kept]


def propose(rpn: Any, levels: list[Tensor], anchors: Tensor, size: tuple[int, int]) -> Tensor:
    """Proposals ``(m, 4)`` in pixels of the first stage for one image, best first.

    Args:
        rpn: torchvision's ``RegionProposalNetwork``.
        levels: of the neck, ``(1, c, u, v)``.
        anchors: ``(n, 4)``, levels behind one another.
        size: height and width of the image.
    """
    chosen = []
    first: Any = 0
    for level, (scores, moves) in enumerate(zip(*rpn.head(levels), strict=True)):
        scores = scores.permute(0, 2, 3, 1).flatten()
        shape = (1, -1, 4, *moves.shape[-2:])
        moves = moves.reshape(shape).permute(0, 3, 4, 1, 2).reshape(-1, 4)
        count = scores.shape[0]
        best, at = scores.topk(torch.sym_min(count, rpn.pre_nms_top_n()))
        boxes = rpn.box_coder.decode_single(moves[at], anchors[first : first + count][at])
        first = first + count
        chosen.append((boxes, best, torch.full_like(best, level)))
    boxes, scores, numbers = (torch.cat(part) for part in zip(*chosen, strict=True))
    boxes = clip_boxes_to_image(boxes, size)
    large = remove_small_boxes(boxes, rpn.min_size)
    return best_of_each(
        boxes[large], scores[large], numbers[large], rpn.nms_thresh, rpn.post_nms_top_n(), size
    )[0]


def pool(pooler: Any, levels: list[Tensor], proposals: Tensor) -> Tensor:
    """Features ``(m, c, p, p)`` of proposals ``(m, 4)`` of one image, each from the level of its size.

    Args:
        pooler: torchvision's ``MultiScaleRoIAlign`` with scales.
        levels: of the neck, ``(1, c, u, v)``.
        proposals: in pixels.
    """
    regions = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], dim=1)
    own = pooler.map_levels([proposals])
    side, samples = pooler.output_size, pooler.sampling_ratio
    pooled = proposals.new_zeros(proposals.shape[0], levels[0].shape[1], *side)
    for level, (x, scale) in enumerate(zip(levels, pooler.scales, strict=True)):
        at = torch.where(own == level)[0]
        pooled = pooled.index_put((at,), roi_align(x, regions[at], side, scale, samples))
    return pooled


def classify(regions: Any, logits: Tensor, moves: Tensor, proposals: Tensor, size: tuple[int, int]) -> Any:
    """Boxes ``(n, 4)`` in pixels, class ids from 0 and scores of one image, best first.

    Args:
        regions: torchvision's ``RoIHeads``.
        logits, moves: outputs of the second stage for the proposals, ``(m, k + 1)`` and ``(m, 4 * (k + 1))``.
        proposals: ``(m, 4)``.
        size: height and width of the image.
    """
    kinds = logits.shape[-1]
    boxes = regions.box_coder.decode_single(moves, proposals).reshape(-1, kinds, 4)
    boxes = clip_boxes_to_image(boxes, size)[:, 1:].reshape(-1, 4)
    scores = logits.softmax(-1)[:, 1:]
    labels = torch.arange(kinds - 1, device=logits.device).expand_as(scores).reshape(-1)
    scores = scores.reshape(-1)
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = torch.where((scores > regions.score_thresh) & (sides >= 1e-2).all(1))[0]
    return best_of_each(
        boxes[kept], scores[kept], labels[kept], regions.nms_thresh, regions.detections_per_img, size
    )
