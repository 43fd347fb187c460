"""From what a user writes (a folder, a hub id, an alias) to a folder on disk. The only place that knows the aliases."""

from __future__ import annotations

from pathlib import Path

from tadp_da.errors import EnvironmentFault

_COMPONENTS = ("unet", "vae", "text_encoder")
_WANTED = [
    "model_index.json",
    "*/*.json",
    "tokenizer/*.txt",
    *(f"{name}/*.safetensors" for name in _COMPONENTS),
]
_UNWANTED = ["*.fp16.*", "*non_ema*", "safety_checker/*", "feature_extractor/*"]


def locate(model: str, revision: str | None = None) -> Path:
    """Folder of a diffusers pipeline.

    Args:
        model: a folder, the alias ``"mini"`` for the embedded default, or an id on the Hugging Face hub, whose files
            are fetched once (safetensors only).
        revision: commit, tag or branch on the hub; pin it for results that can be repeated.

    Raises:
        EnvironmentFault: when there is no such model here and none can be fetched.
    """
    if model == "mini":
        from tadp_da.mini import WEIGHTS

        folder = WEIGHTS / "stable-diffusion"
        if not (folder / "model_index.json").exists():
            raise EnvironmentFault(
                "the embedded Stable Diffusion is missing from this installation",
                where=folder,
                fix="install the package again, or make the weights: python -m tadp_da.mini.pretrain",
            )
        return folder
    folder = Path(model).expanduser()
    if (folder / "model_index.json").exists():
        return folder
    if folder.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise EnvironmentFault(
            f"{model!r} is not a folder with a diffusers pipeline: it holds no model_index.json",
            where=folder,
            fix="give the folder that StableDiffusionPipeline.save_pretrained wrote, a hub id, or 'mini'",
        )
    return _fetch(model, revision)


def _fetch(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            model, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, etag_timeout=5
        )
    except Exception as error:  # the client's transport errors have no base in common with its own
        raise EnvironmentFault(
            f"cannot fetch {model!r} from the hub: {type(error).__name__}",
            where=f"https://huggingface.co/{model}" + (f" at {revision}" if revision else ""),
            fix=f"on a machine with network run: hf download {model} --local-dir FOLDER; copy FOLDER here and give its "
            "path as the model. Or use 'mini'",
        ) from error
    return Path(found)
