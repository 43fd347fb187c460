"""From what a user writes (a folder, a file, a hub id, an alias) to what is on disk."""

from __future__ import annotations

from pathlib import Path

from tadp_da.errors import EnvironmentSetupError
from tadp_da.storage import hub as _hub
from tadp_da.storage.hub import DIFFUSION, HALF, Files, Found, has_weights
from tadp_da.storage.tensors import refuse_pickle

#: Name of the weights of each part in the diffusers format.
_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
_CONFIGURATION = ["model_index.json", "*/*.json", "tokenizer/*.txt"]
_UNWANTED = [HALF, "*non_ema*", "safety_checker/*", "feature_extractor/*"]


def _has_configuration(folder: Path) -> bool:
    places = ("model_index.json", "scheduler/scheduler_config.json", *(f"{p}/config.json" for p in _WEIGHTS))
    vocabulary = any((folder / "tokenizer" / name).exists() for name in ("vocab.json", "tokenizer.json"))
    return vocabulary and all((folder / place).exists() for place in places)


def _is_whole(folder: Path) -> bool:
    return _has_configuration(folder) and all(has_weights(folder / part, s) for part, s in _WEIGHTS.items())


PIPELINE = Files(
    marker="model_index.json",
    wanted=[*_CONFIGURATION, *(f"{part}/*.safetensors" for part in _WEIGHTS)],
    unwanted=_UNWANTED,
    complete=_is_whole,
    option="--model",
)
#: What a single-file checkpoint lacks: sizes, vocabulary and noise schedule; about two megabytes.
CONFIGURATION = Files(
    marker="model_index.json",
    wanted=_CONFIGURATION,
    unwanted=_UNWANTED,
    complete=_has_configuration,
    option="--model",
)


def locate(model: str, revision: str | None = None) -> Found:
    """Where a diffusers pipeline, or an original single-file checkpoint, is.

    Args:
        model: a folder; a ``.safetensors`` file; the alias ``"mini"`` for the embedded default or one of
            :data:`tadp_da.storage.hub.DIFFUSION`; or an id on the Hugging Face hub, ``owner/name`` or
            ``owner/name@revision``, whose files are fetched once (safetensors only).
        revision: commit, tag or branch on the hub; pin it for results that can be repeated.

    Raises:
        EnvironmentSetupError: when there is no such model here and none can be fetched.
        ArtifactError: for a pickle.
    """
    if model == "mini":
        return Found(mini_folder())
    path = Path(model).expanduser()
    refuse_pickle(path, "v1-5-pruned-emaonly.safetensors")
    if path.is_file() and path.suffix.lower() == ".safetensors":
        return Found(path)
    what = "a folder with a diffusers pipeline (or an original checkpoint in .safetensors, or 'mini')"
    return _hub.locate(model, PIPELINE, DIFFUSION, what, revision)


def mini_folder() -> Path:
    """Folder of the embedded model."""
    from tadp_da.mini import WEIGHTS

    folder = WEIGHTS / "stable-diffusion"
    if not (folder / "model_index.json").exists():
        raise EnvironmentSetupError(
            "the embedded Stable Diffusion is missing from this installation",
            where=folder,
            fix="install the package again, or make the weights: python -m tadp_da.mini.pretrain",
        )
    return folder
