"""The embedded default: a world drawn on the fly, and a small Stable Diffusion and BLIP-2 pretrained on it."""

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
"""Folder of the embedded models: ``stable-diffusion`` (diffusers pipeline) and ``blip2`` (transformers)."""
