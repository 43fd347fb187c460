"""Cache keys: all that latents of images and embeddings of prompts depend on."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from packaging.version import Version
from torch import Tensor, nn

from tadp_da.concept import digest_tensors
from tadp_da.errors import DataError
from tadp_da.images import open_image, opened
from tadp_da.storage.cache import open_cache
from tadp_da.storage.files import digest, file_digest

if TYPE_CHECKING:
    from tadp_da.run import Run

Code = Callable[..., Any] | ModuleType
_LIBRARIES = ("tadp-da", "torch", "torchvision", "diffusers", "transformers", "tokenizers", "Pillow", "numpy")
#: Of a configuration: where it came from, not what it does.
_NO_MATTER = ("transformers_version", "architectures", "dtype")


@functools.cache
def libraries() -> str:
    """The libraries' major versions; the minor ones too of those that have not reached 1."""
    known = {name: Version(importlib.metadata.version(name)).release for name in _LIBRARIES}
    return " ".join(
        f"{name}-{'.'.join(map(str, version[: 1 if version[0] else 2]))}" for name, version in known.items()
    )


def code_of(*code: Code) -> str:
    """A version of functions and modules that nobody has to remember to raise: the hash of their source."""
    return _code(tuple(inspect.unwrap(part) if callable(part) else part for part in code))


@functools.cache
def _code(code: tuple[Code, ...]) -> str:
    sources = "\n".join(inspect.getsource(part) for part in code)
    return hashlib.blake2b(sources.encode(), digest_size=8).hexdigest()


def weights_of(module: nn.Module) -> str:
    """blake2b of every tensor of a module as it is now, whole. Two cores take a second for a GiB: ask once per set of
    images. It is not memoized, because a module may change."""

    def some(items: Sequence[tuple[str, Tensor]]) -> bytes:
        found = [hashlib.blake2b(digest_size=16) for _ in items]
        for one, item in zip(found, items, strict=True):
            digest_tensors(one, dict([item]))
        return b"".join(one.digest() for one in found)

    tensors = sorted(module.state_dict().items())
    # hashlib lets go of the interpreter lock
    with ThreadPoolExecutor() as pool:
        parts = pool.map(some, [tensors[i : i + 32] for i in range(0, len(tensors), 32)])
        return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()


def tokenizer_of(tokenizer: Any) -> str:
    """The hash of a tokenizer's vocabulary and rules, learned words included, and of what it pads with."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # one in Python, or of sentencepiece: its class is its rules
        known = {"class": type(tokenizer).__qualname__, "words": tokenizer.get_vocab()}
    else:  # without how the last call padded and cut, which every call says anew
        rules = json.loads(backend.to_str())
        known = {name: value for name, value in rules.items() if name not in ("padding", "truncation")}
    return _hash([known, getattr(tokenizer, "pad_token", None)])


def content_of(path: Path) -> str:
    """The hash of an image file's bytes, to be taken before it is opened.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        return file_digest(path)
    except OSError as error:
        raise DataError(
            f"an image cannot be read ({error.strerror})", where=path, fix="check the data root"
        ) from None


def image_key(backbone: Any, *code: Code) -> dict[str, Any]:
    """What latents of a file depend on, besides its bytes and how the caller frames it.

    Args:
        backbone: gives its own part, :meth:`tadp_da.backbones.Backbone.image_key`.
        code: all functions or modules between the opened image and the backbone.
    """
    return {"decode": "EXIF turned, RGB", "code": code_of(open_image, opened, *code), **backbone.image_key()}


def embeddings(backbone: Any, prompts: Sequence[str], run: Run) -> Tensor:
    """Embeddings of different prompts ``(n, t, d)`` on the CPU, from the cache where they are known.

    Each is encoded by itself, because kernels round by the size of the batch: so it depends on nothing but itself.

    Args:
        backbone: its text encoder must be frozen while the table is in use. One that reads no text needs no cache.
        prompts: at least one.
        run: for a progress bar.
    """
    if not backbone.reads_text:
        return backbone.encode_text(prompts)
    cache, facts = open_cache(), backbone.text_key()
    found, known = [], cache.counts.found
    with torch.no_grad(), run.progress(len(prompts), "encoding prompts") as advance:
        for prompt in prompts:

            def make(prompt: str = prompt) -> dict[str, Tensor]:
                return {"text": backbone.encode_text([prompt])[0].cpu()}

            found.append(cache.get_or_create("text", facts | {"prompt": prompt}, make)["text"])
            advance(f"{cache.counts.found - known} from the cache")
    return torch.stack(found)


def mean_embeddings(backbone: Any, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """One embedding per name ``(k, d)`` on the CPU: the mean over templates of that of a prompt's end mark (VPD).

    Args:
        backbone: reads text; its text encoder must be frozen while the embeddings are in use.
        names: of classes or scenes, as prompts say them.
        templates: prompts with ``{}`` for the name.
    """
    cache, facts = open_cache(), backbone.text_key() | {"templates": list(templates)}

    @torch.no_grad()
    def embedded(name: str) -> dict[str, Tensor]:
        prompts = [template.format(name) for template in templates]
        ends = torch.tensor([backbone.count_tokens(prompt) + 1 for prompt in prompts])
        text = backbone.encode_text(prompts)
        return {"text": text[torch.arange(len(prompts)), ends.to(text.device)].mean(0).cpu()}

    def known(name: str) -> Tensor:
        return cache.get_or_create("text", facts | {"class": name}, lambda: embedded(name))["text"]

    return torch.stack([known(name) for name in names])


def class_tokens(backbone: Any, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """The embeddings ``(t, d)`` of all tokens of each name in the first template, the begin mark before them."""
    prompts = [templates[0].format(name) for name in names]
    with torch.no_grad():
        text = [
            backbone.encode_text([p])[0, 1 - (not i) : 1 + backbone.count_tokens(p)].cpu()
            for i, p in enumerate(prompts)
        ]
    return torch.cat(text)


def environment_key(module: Any) -> dict[str, str]:
    """Kernels of another kind of device round otherwise."""
    return {
        "dtype": str(module.dtype).removeprefix("torch."),
        "device": module.device.type,
        "libraries": libraries(),
    }


def config_key(part: Any) -> str:
    """The hash of the class and the configuration of a model or scheduler of diffusers or transformers, without where
    it came from. Defaults are left out, so that an option that a later version adds changes nothing."""
    config = part.config
    if hasattr(config, "to_diff_dict"):
        known = config.to_diff_dict()
    else:
        defaults = inspect.signature(type(part).__init__).parameters
        known = {k: v for k, v in config.items() if k not in defaults or not _same(v, defaults[k].default)}
    kept = {k: v for k, v in known.items() if not k.startswith("_") and k not in _NO_MATTER}
    return _hash([type(part).__name__, kept])


def _same(value: Any, default: Any) -> bool:
    listed = list(default) if isinstance(default, tuple) else default  # a tuple is saved as a list
    return bool((list(value) if isinstance(value, tuple) else value) == listed)


def base_key(module: nn.Module, tokenizer: Any = None, noise: Any = None) -> str:
    """The fingerprint of a base: every tensor, the configuration of its parts, the ids of words, and how it is noised.

    Args:
        module: a backbone; the parts are its children that have a configuration.
        tokenizer: if it has one.
        noise: what the forward process depends on, as JSON values.
    """
    configs = {name: config_key(part) for name, part in module.named_children() if hasattr(part, "config")}
    words = "" if tokenizer is None else tokenizer_of(tokenizer)
    return digest(json.dumps([weights_of(module), configs, words, noise]).encode())


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
