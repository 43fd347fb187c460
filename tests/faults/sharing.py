"""A process that shares a cache with others. Apart from the tests, so that it starts with few imports."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tadp_da.storage.cache import Cache
from tadp_da.storage.cache_file import Facts

KEYS = 24


def take_all(folder: Path, log: Path, meet: Any, dies: bool) -> None:
    """Ask for every entry at the same time as the other process, then for one more.

    Args:
        folder: of the cache.
        log: the keys of entries that are made here, one a line.
        meet: where the two processes wait for each other.
        dies: in the last entry, when it is written and not yet in its place; the other asks for it at that moment.
    """
    cache = Cache(folder, 10**9)

    def ask(key: int) -> None:
        def make() -> dict[str, torch.Tensor]:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{key}\n")
            return {"mean": torch.full((50_000,), float(key))}

        tensor = cache.get_or_create("latents", {"image": str(key)}, make)["mean"]
        assert tensor.shape == (50_000,)
        assert bool((tensor == key).all())

    def die(event: str, _: Any) -> None:
        if event == "os.rename":
            meet.wait()
            os.kill(os.getpid(), signal.SIGKILL)

    meet.wait()
    for key in range(KEYS):
        ask(key)
    if dies:
        sys.addaudithook(die)
    else:
        meet.wait()
    ask(KEYS)


def hang(folder: Path, asked: Sequence[Facts], begun: Any) -> None:
    """Begin to make entries and never end."""

    def make(_: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        begun.set()
        while True:
            time.sleep(60)

    Cache(folder, 10**9).get_or_create_many("latents", asked, make, sources=[None] * len(asked))
