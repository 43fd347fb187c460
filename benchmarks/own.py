"""Your own data: single stages on folders, and the whole figure as a table of strategies."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from adapt import FineTuning
from benchmarks.evaluate import Evaluation, Report, digests, refuse_overlap
from benchmarks.evaluate import evaluate as score
from benchmarks.pipeline import adapted
from benchmarks.places import digest
from benchmarks.recipe import Benchmark, Recipe, build_settings, read_benchmark
from benchmarks.stages import Stages, learned_from, require_said, write_provenance
from tadp_da.backbones import DEFAULT, load_backbone
from tadp_da.captions.captioner import Captioner, caption_images
from tadp_da.captions.files import CaptionFile
from tadp_da.captions.flags import fallback_caption, notes
from tadp_da.captions.rewrite import Rewrite
from tadp_da.concept import Concept
from tadp_da.distributed.processes import is_main
from tadp_da.domains.checks.preflight import preflight
from tadp_da.domains.formats.folder import folder_domain
from tadp_da.errors import DataError, UsageError
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.storage.artifacts import get_or_create
from tadp_da.storage.files import file_digest, write_json
from tadp_da.types import DomainDescription, LabelSpace, Unlabeled
from tadp_da.visualize import overlay, save_mask

Captions = Mapping[str, str]
SHOWN = 24
"""Target images whose predictions a whole figure shows."""
_log = logging.getLogger(__name__)


def captions_for(
    images: Unlabeled,
    file: Path | None,
    captioner: str,
    run: Run,
    fallback: str = "",
    classes: tuple[str, ...] = (),
) -> Captions:
    """Captions from a file, or made by the captioner into the run's folder (a half-done file is finished).

    Args:
        images: what the captions are of.
        file: the file, or None.
        captioner: which captioner, where there is no file; one must be named then.
        run: folder, device.
        fallback: ``"class-names"`` names all classes for an image that the file lacks; else that is an error.
        classes: their names.
    """
    if file is None:
        if not captioner:
            raise UsageError(
                f"the images of {images.domain!r} have no captions, and the model does not say who wrote those that it "
                "was trained on",
                fix="give --captions FILE, or name a captioner: --captioner blip2-opt-2.7b",
            )
        seen = digest("\n".join(sorted(file_digest(path) for path in images.paths)).encode())
        file = (
            run.folder / f"captions-{images.domain}-{seen[:12]}.json"
        )  # another folder may have the same name
        run.folder.mkdir(parents=True, exist_ok=True)
        caption_images(images, Captioner.from_pretrained(captioner, device=run.torch_device), file, run)
    found = CaptionFile.read(file).lookup(images, fallback_caption(fallback, classes))
    if odd := notes(found):
        _log.warning("%s: %s", file, "; ".join(odd))
    return found


def adapt_own(
    *,
    images: Path,
    masks: Path,
    classes: tuple[str, ...],
    concept: Path | None,
    strategy: str,
    description: DomainDescription,
    captions: Path | None,
    captioner: str,
    model: str,
    preset: str,
    sets: tuple[str, ...],
    run: Run,
    fallback: str = "",
) -> Path:
    """Stage 2 on folders; the run's folder becomes the model, once per inputs. Settings start from the preset."""
    folders = {"name": images.name, "images": images, "masks": masks, "classes": classes}
    base = _settings_of(preset, folders)
    learned = Concept.load(concept) if concept else None
    rewrite = Rewrite(
        strategy=strategy,
        target_description=description,
        word=learned.prompt_word if learned else None,
        classes=classes,
    )
    known = learned_from(concept) if concept else {}
    if learned:
        require_said(learned, rewrite)
    backbone = load_backbone(DEFAULT, model, base.backbone)
    if learned:
        backbone.load_concept(learned)
    tuning: FineTuning = build_settings(FineTuning, base.as_json()["adapt"], sets)
    inputs = {k: base.as_json()[k] for k in ("head", "viewing", "backbone")} | _facts(run)
    inputs |= {"settings": TypeAdapter(FineTuning).dump_python(tuning, mode="json")}
    inputs |= {"data": contents(images, masks), "classes": classes, "model": backbone.fingerprint}
    inputs |= {"concept": learned.fingerprint} if learned else {}
    inputs |= {"rewrite": TypeAdapter(Rewrite).dump_python(rewrite, mode="json"), "fallback": fallback}
    inputs |= {"captions": captions_digest(captions) if captions else captioner}

    def make(folder: Path) -> None:
        here, head = run.inside(folder), base.head
        domain = folder_domain(images.name, images=images, masks=masks, classes=classes)
        domain = preflight(domain, images, ["train"], here)
        labels = LabelSpace(task="segmentation", classes=classes)
        settings: dict[str, Any] = {"rewrite": rewrite, "viewing": base.viewing, "seed": run.seed}
        settings["captioner"] = captioner
        perception = PerceptionModel.assemble(backbone, head.name, labels, **settings, **head.settings)
        texts = captions_for(domain.unlabeled(images, "train"), captions, captioner, here, fallback, classes)
        seen = known | digests(domain.unlabeled(images, "train"))
        tuned = tuning(perception, domain.labeled(images, "train", texts), rewrite.source, here)
        if is_main():
            tuned.save(folder)
            write_provenance(folder, backbone, seen)

    return get_or_create(run.folder, inputs, make, lambda place: place, may_change=("settings.steps",))


def _settings_of(preset: str, folders: Mapping[str, Any]) -> Recipe:
    rows = read_benchmark(preset, base={"source": folders, "target": folders}, kind="presets").rows
    if "null" not in rows:
        raise UsageError(
            f"the preset has no row 'null' to take the settings from, only {', '.join(rows)}",
            where=preset,
            fix="add the row: null: {strategy: null}",
        )
    return rows["null"]


def captions_digest(file: Path) -> str:
    """Digest of a caption file that can be read."""
    CaptionFile.read(file)
    return file_digest(file)


def contents(*folders: Path) -> str:
    """One digest over the names and bytes of all files in these folders, hidden ones aside."""
    files = [(p.relative_to(folder), p) for folder in folders for p in sorted(folder.rglob("[!.]*"))]
    parts = [f"{name}:{file_digest(p)}" for name, p in files if p.is_file() and "/." not in f"/{name}"]
    return digest("\n".join(parts).encode())


def _facts(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in ("seed", "precision", "skip_bad")}


def evaluate_own(
    model: Path,
    images: Path,
    masks: Path,
    captions: Path | None,
    captioner: str,
    run: Run,
    fallback: str = "",
) -> Evaluation:
    """Stage 3 on folders; the run's folder becomes the report, once per inputs.

    Raises:
        DataError: when the model has learned from test images, unless the run allows it.
    """
    inputs = {"model": contents(model), "data": contents(images, masks), "fallback": fallback} | _facts(run)
    inputs |= {"captions": captions_digest(captions) if captions else captioner}

    def make(folder: Path) -> None:
        here = run.inside(folder)
        perception = PerceptionModel.load(model, device=run.torch_device)
        labels = perception.labels
        tests, truths = {"test": images}, {"test": masks}
        domain = folder_domain(
            images.name, images=tests, masks=truths, classes=labels.classes, ignore=labels.ignore
        )
        domain = preflight(domain, images, ["test"], here)
        if not run.allow_overlap:
            refuse_overlap(learned_from(model), domain.unlabeled(images, "test"))
        texts = captions_for(
            domain.unlabeled(images, "test"),
            captions,
            captioner or perception.captioner,
            here,
            fallback,
            labels.classes,
        )
        found = score(
            perception,
            domain.labeled(images, "test", texts),
            perception.prompt,
            here,
            pictures=folder / "target",
            decisions=here.unfinished / "target",
        )
        Report(source=None, target=found).save(folder)

    found = get_or_create(run.folder, inputs, make, Report.load).target
    assert found is not None
    return found


def predict_own(
    model: Path,
    images: Path,
    attention: tuple[str, ...],
    text: str | None,
    captions: Path | None,
    captioner: str,
    run: Run,
    fallback: str = "",
) -> int:
    """Overlays, decisions (index masks, or objects as JSON) and attention maps of an image or a folder of images; how
    many images were seen."""
    perception = PerceptionModel.load(model, device=run.torch_device)
    if images.is_dir():
        domain = preflight(folder_domain(images.name, images=images), images, ["unlabeled"], run)
        pictures = domain.unlabeled(images)
    elif images.is_file():
        pictures = Unlabeled(domain=images.stem, root=images.parent, paths=(images,))
    else:
        raise DataError("there is no such image or folder", where=images, fix="check the path")
    texts = (
        {pictures.key(i): text for i in range(len(pictures))}
        if text is not None
        else captions_for(
            pictures, captions, captioner or perception.captioner, run, fallback, perception.labels.classes
        )
    )
    prompts: dict[str, str] = {}
    with run.progress(len(pictures), "predicting") as advance:
        for index in range(len(pictures)):
            key, image = pictures.key(index), pictures[index]
            prompts[key] = prompt = perception.prompt(texts[key])
            decision = perception.predict(image, prompt)
            stem = _stem(key)
            _keep_decision(perception, image, decision, run.folder, stem)
            _attention(perception, image, prompt, attention, run.folder / "attention", stem)
            advance(key)
    if lost := [w for w in attention if not any(perception.says(prompt, w) for prompt in prompts.values())]:
        _log.warning("no prompt says %s: there is no attention map of it", " or ".join(map(repr, lost)))
    (run.folder / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n", encoding="utf-8")
    return len(pictures)


def _stem(key: str) -> str:
    """A file name for an image: those of two folders may be called alike."""
    return Path(key).with_suffix("").as_posix().replace("/", "__")


def _keep_decision(model: PerceptionModel, image: Any, decision: Any, folder: Path, stem: str) -> None:
    picture = model.head.paint(decision, (image.height, image.width))
    told = model.head.tell(decision)
    kept = folder / ("masks" if told is None else "objects")
    for place in (folder / "overlays", kept):
        place.mkdir(parents=True, exist_ok=True)
    overlay(image, picture, model.labels).save(folder / "overlays" / f"{stem}.png")
    if told is None:
        save_mask(picture, model.labels, kept / f"{stem}.png")
    else:
        write_json(kept / f"{stem}.json", told)


def _attention(
    model: PerceptionModel, image: Any, prompt: str, words: tuple[str, ...], folder: Path, stem: str
) -> None:
    """Heat maps of the words that stand in this image's prompt; others have no map for it."""
    import matplotlib as mpl

    present = [word for word in words if model.says(prompt, word)]
    if not present:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for word, heat in model.attention(image, present, prompt).items():
        shown = mpl.colormaps["inferno"]((heat - heat.min()) / max(float(np.ptp(heat)), 1e-8))[..., :3]
        picture = Image.fromarray((255 * shown).astype(np.uint8))
        Image.blend(image.convert("RGB"), picture, 0.6).save(folder / f"{stem}-{word.strip('<>')}.png")


def custom_benchmark(
    *,
    strategies: tuple[str, ...],
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    model: str,
    captioner: str,
    preset: str,
    sets: tuple[str, ...],
) -> Benchmark:
    """The table of ``tadp-da run``: the named rows of a preset, on the user's folders."""
    base = {
        "source": {k: v for k, v in source.items() if v is not None},
        "target": {k: v for k, v in target.items() if v is not None},
        "model": model,
        "captioner": captioner,
    }
    table = read_benchmark(preset, sets, base=base, kind="presets")
    return Benchmark(name="own", claim="Your own data.", rows=table.only(strategies).rows, order=strategies)


def show_predictions(table: Benchmark, seed: int, run: Run, most: int = SHOWN) -> Path:
    """Overlays of every row on the first unlabelled target images, for targets that have no labels to score by."""
    for name, recipe in table.rows.items():
        stages = Stages(recipe, run.with_seed(seed), Path())
        _, model = adapted(stages)
        images = stages.target.images("unlabeled")
        texts = stages.captions(stages.target, "unlabeled")
        folder = run.folder / "predictions" / name
        shutil.rmtree(folder, ignore_errors=True)  # of other images, perhaps
        folder.mkdir(parents=True)
        model.to(run.torch_device)
        for index in range(min(most, len(images))):
            image, key = images[index], images.key(index)
            decision = model.predict(image, caption=texts[key])
            picture = model.head.paint(decision, (image.height, image.width))
            overlay(image, picture, model.labels).save(folder / f"{_stem(key)}.png")
    return run.folder / "predictions"
