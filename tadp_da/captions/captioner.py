"""Captions by an image-to-text model: BLIP-2 as in TADP, or any other that transformers loads.

    captioner = Captioner.from_pretrained("mini", CaptionerSettings(), device=run.torch_device)
    report = caption_images(images, captioner, Path("captions.json"), run)

TADP generates captions greedily, without a text prompt, with ``Salesforce/blip2-opt-2.7b`` in half precision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings_dataclass
from safetensors import SafetensorError

from tadp_da.captions.files import CaptionEntry, CaptionFile
from tadp_da.captions.flags import notes
from tadp_da.captions.loading import Quantization, load, locate, quiet
from tadp_da.distributed.processes import all_gather_object, broadcast, count, is_main, rank, wait
from tadp_da.errors import ArtifactError, EnvironmentSetupError, UsageError
from tadp_da.run import Run
from tadp_da.settings import Effect
from tadp_da.storage.files import locked, storing, write_json
from tadp_da.training.signals import asked, held, interrupted

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from tadp_da.types import Unlabeled


@settings_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CaptionerSettings:
    """How captions are generated.

    Attributes:
        batch: images per batch; changes speed and memory, not captions.
        max_new_tokens: longest caption in tokens.
        min_new_tokens: shortest caption in tokens; TADP's cross-domain captions use 0.
        dtype: precision of the weights; ``"auto"`` is half precision on CUDA and full elsewhere.
        quantization: weights of the linear layers in 8 (LLM.int8) or 4 bits (NF4) by bitsandbytes, half or a quarter of
            the memory of fp16; the rest keeps ``dtype``. Captions differ slightly from those of the full model.
    """

    batch: Annotated[int, Field(ge=1), Effect.SPEED] = 16
    max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 40
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    quantization: Quantization = "none"

    def __post_init__(self) -> None:
        if self.min_new_tokens > self.max_new_tokens:
            raise UsageError(
                f"min_new_tokens {self.min_new_tokens} is above max_new_tokens {self.max_new_tokens}",
                fix="raise max_new_tokens or lower min_new_tokens",
            )


@dataclass(frozen=True)
class Captioner:
    """An image-to-text model that generates captions.

    Attributes:
        name: name, path or hub id that it was loaded from.
        model: the transformers model, in evaluation mode.
        processor: its image and text processor.
        settings: how captions are generated.
        origin: ``owner/name@commit`` on the hub; None for a folder.
    """

    name: str
    model: Any
    processor: Any
    settings: CaptionerSettings
    origin: str | None = None

    @classmethod
    def from_pretrained(
        cls, name: str | Path, settings: CaptionerSettings | None = None, device: torch.device | str = "cpu"
    ) -> Captioner:
        """Load ``"mini"`` (the embedded one), a model folder, an alias such as ``"blip2-opt-2.7b"`` or a model of the
        Hugging Face hub, ``owner/name`` or ``owner/name@revision``. Only safetensors are read, and no code is run.

        Raises:
            EnvironmentSetupError: if there is no such model, it cannot be reached, it is not an image-to-text model, or
                quantization is requested without bitsandbytes.
            UsageError: if captions of ``max_new_tokens`` do not fit the model.
        """
        import torch

        settings = settings or CaptionerSettings()
        half = torch.device(device).type == "cuda"
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = dtypes[("fp16" if half else "fp32") if settings.dtype == "auto" else settings.dtype]
        found = locate(name)
        try:
            model, processor = load(found.path, dtype, settings.quantization, device)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise EnvironmentSetupError(
                f"cannot load the captioner: {str(error).strip().splitlines()[0]}",
                where=found.path,
                fix="give a folder with an image-to-text model in safetensors, a hub id such as "
                "Salesforce/blip2-opt-2.7b (with network), or mini",
            ) from error
        captioner = cls(str(name), model, processor, settings, found.origin)
        captioner._check_room()
        if settings.quantization != "none":
            _ = captioner.fingerprint  # now, because bitsandbytes repacks 4-bit tensors on first use
        return captioner

    def _check_room(self) -> None:
        config, longest = self.model.config, self.settings.max_new_tokens
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        used = getattr(config, "num_query_tokens", 0) + 1
        if positions is not None and used + longest > positions:
            raise UsageError(
                f"captions of up to {longest} tokens do not fit the captioner {self.name!r}",
                fix=f"set max_new_tokens to {positions - used} or less",
            )

    @cached_property
    def fingerprint(self) -> str:
        """blake2b over image processing, generation config, tokenizer and every tensor of the model; computed once."""
        from tadp_da.fingerprints import tokenizer_of, weights_of

        digest = hashlib.blake2b(digest_size=16)
        for part in (self.model.config, self.model.generation_config, self.processor.image_processor):
            known = {
                k: v for k, v in part.to_dict().items() if k not in ("_name_or_path", "transformers_version")
            }
            digest.update(json.dumps(known, sort_keys=True, default=str).encode())
        tokenizer = self.processor.tokenizer
        tidied = getattr(tokenizer, "clean_up_tokenization_spaces", None)
        digest.update(f"{tokenizer_of(tokenizer)} {tidied} {weights_of(self.model)}".encode())
        return digest.hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that a caption depends on besides the image; batch size and device are not part of it."""
        idle = {"batch", "dtype"} | ({"quantization"} if self.settings.quantization == "none" else set())
        kept = {k: v for k, v in asdict(self.settings).items() if k not in idle}
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {"model": self.origin or self.name, "fingerprint": self.fingerprint, "dtype": dtype, **kept}

    def __call__(self, images: Sequence[Image]) -> list[str]:
        """One caption per image, greedy, without a text prompt."""
        import torch

        with torch.inference_mode(), quiet():
            pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
            tokens = self.model.generate(
                pixel_values=pixels.to(self.model.device, self.model.dtype),
                max_new_tokens=self.settings.max_new_tokens,
                min_new_tokens=self.settings.min_new_tokens,
                do_sample=False,
                num_beams=1,
            )
        texts = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]


@dataclass(frozen=True)
class CaptionReport:
    """How many images there were, how many captions were generated now, how many were taken from the cache (the others
    existed), and what is unusual about the captions (:func:`tadp_da.captions.flags.notes`)."""

    total: int
    made: int
    cached: int
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a terminal."""
        counts = [f"{self.made} captions generated", f"{self.total - self.made - self.cached} existed"]
        counts[1:1] = [f"{self.cached} from the cache"] if self.cached else []
        done = not (self.made or self.cached)
        return [f"{self.total} images: {'already complete' if done else ', '.join(counts)}", *self.notes]


def caption_images(
    images: Unlabeled, captioner: Captioner, out: Path, run: Run, *, save_every: int = 8
) -> CaptionReport:
    """Caption images into a file, resuming where an earlier call stopped.

    The file has the format of :mod:`tadp_da.captions.files`, keyed by relative path; ``<name>.meta.json`` beside it
    records the captioner. It is written atomically every ``save_every`` batches, on errors, and when a signal stops
    the work after a batch. A lock admits one command at a time; several processes of one run share the batches, and
    the result equals that of one process.

    Raises:
        UsageError: if ``out`` was written by another captioner.
        ArtifactError: if it is unknown which captioner wrote it.
        DataError: if an image or the unfinished file cannot be read.
        EnvironmentSetupError: if the file cannot be written.
        InterruptedRunError: after a signal, once the captions of the batch are saved.
    """
    with storing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out.with_name(f".{out.name}.lock"), out.name) if is_main() else nullcontext():
            return _caption(images, captioner, out, run, save_every)


def _caption(images: Unlabeled, captioner: Captioner, out: Path, run: Run, save_every: int) -> CaptionReport:
    from tadp_da.captions.cached import CachedCaptioner

    entries = broadcast(_begin, out, captioner)
    todo = [i for i in range(len(images)) if images.key(i) not in entries]
    batch = captioner.settings.batch
    batches = [todo[start : start + batch] for start in range(0, len(todo), batch)]
    saved, cached = len(entries), CachedCaptioner(captioner)
    known_before = cached.cache.counts.found

    def caption(chosen: Sequence[int]) -> tuple[list[str], bool]:
        return (cached(images, chosen) if chosen else []), asked()

    with held(), run.progress(len(todo), "captions") as advance:
        try:
            for number, first in enumerate(range(0, len(batches), count()), 1):
                together = batches[first : first + count()]
                mine = together[rank()] if rank() < len(together) else ()
                found = all_gather_object(caption, mine)
                # the last processes may have no batch
                for chosen, (captions, _) in zip(together, found, strict=False):
                    for i, text in zip(chosen, captions, strict=True):
                        entries[images.key(i)] = CaptionEntry((text,))
                        advance(text[:40])
                if number % save_every == 0 and is_main():
                    CaptionFile(out, entries).write()
                    saved = len(entries)
                if any(stop for _, stop in found):
                    raise interrupted()
        finally:
            if is_main() and (len(entries) > saved or not out.exists()):
                CaptionFile(out, entries).write()
        wait()
        if not out.exists():  # another process has its own folder where the main one writes an artifact
            CaptionFile(out, entries).write()
    texts = {key: entries[key].caption for key in map(images.key, range(len(images)))}
    known = sum(all_gather_object(lambda: cached.cache.counts.found - known_before))
    return CaptionReport(len(images), len(todo) - known, known, tuple(notes(texts)))


def _begin(out: Path, captioner: Captioner) -> dict[str, CaptionEntry]:
    """The existing entries, after checking which captioner wrote them."""
    meta, facts = out.with_name(f"{out.stem}.meta.json"), captioner.facts
    again = f"choose another --out, or delete {out.name} and {meta.name}"
    if meta.exists():
        try:
            known = dict(json.loads(meta.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            what = f"cannot read the captioner's record: {error}"
            raise ArtifactError(what, where=meta, fix=again) from error
        # the name is for people: a model folder that was moved is the same captioner
        changed = sorted(k for k in facts | known if k != "model" and facts.get(k) != known.get(k))
        if changed:
            differences = ", ".join(f"{k}: {known.get(k)!r} there, {facts.get(k)!r} here" for k in changed)
            what = f"the captions were generated by another captioner ({differences})"
            raise UsageError(what, where=out, fix=again)
    elif out.exists():
        what = f"the caption file exists without {meta.name}, which records the captioner"
        raise ArtifactError(what, where=out, fix=again)
    else:
        write_json(meta, facts)
    return dict(CaptionFile.read(out).entries) if out.exists() else {}
