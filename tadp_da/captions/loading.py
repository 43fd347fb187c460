"""Loading an image-to-text model from the cache, the hub or a folder, in a given precision."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.storage.files import folder_digest
from tadp_da.storage.hub import CAPTIONERS, Files, Found, fetch, has_weights, is_id, weights_variant
from tadp_da.storage.pretrained import quiet as _quiet
from tadp_da.storage.pretrained import require_unquantized

if TYPE_CHECKING:
    import torch

Quantization = Literal["none", "int8", "nf4"]

_FILES = Files(
    marker="config.json",
    wanted=["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"],
    unwanted=["*/*"],
    complete=lambda folder: _has_processor(folder) and has_weights(folder),
    option="--captioner",
)


def _has_processor(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("preprocessor_config.json", "processor_config.json"))


def locate(name: str | Path) -> Found:
    """Locate a captioner: ``"mini"``, a folder, one of :data:`tadp_da.storage.hub.CAPTIONERS` or a hub id.

    Raises:
        EnvironmentSetupError: if it is neither local nor can be fetched.
    """
    from tadp_da.mini import WEIGHTS

    if str(name) == "mini":
        return Found(WEIGHTS / "blip2")
    folder = Path(name).expanduser()
    if folder.exists() or not is_id(str(name), CAPTIONERS):
        return Found(folder)
    return fetch(str(name), _FILES, CAPTIONERS)


def identity(name: str) -> str:
    """What a captioner is, as an input of artifacts: a repository of the hub, or the content of a folder."""
    if name == "mini" or Path(name).expanduser().exists():
        return folder_digest(locate(name).path)
    return CAPTIONERS[name][0].repo if name in CAPTIONERS else name


def load(
    folder: Path, dtype: torch.dtype, quantization: Quantization, device: torch.device | str
) -> tuple[Any, Any]:
    """Model in evaluation mode on its device, and processor. Only safetensors are read; no code of the model is run.

    Raises:
        ArtifactError: if its weights were stored quantized.
        EnvironmentSetupError: if quantization is requested without bitsandbytes.
        UsageError: if this CPU cannot run the model in 4 bits.
        OSError, ValueError, KeyError: if this is not an image-to-text model.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    require_unquantized(folder)
    options = _quantized(quantization, dtype, device)
    safe = {"trust_remote_code": False, "local_files_only": True}
    with quiet():
        processor = AutoProcessor.from_pretrained(folder, **safe)
        model = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            variant=weights_variant(folder) or None,
            use_safetensors=True,
            **safe,
            **options,
        )
    if quantization == "nf4" and str(device) == "cpu":
        _check_blocks(model)
    # A quantized model is placed on its device while it is loaded, and refuses to()
    return (model if options else model.to(device)).eval(), processor


def _quantized(quantization: Quantization, dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    if quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise EnvironmentSetupError(
            f"quantization {quantization} requires the package bitsandbytes, which is not installed",
            where="quantization",
            fix="pip install 'tadp-da[gpu]', or choose quantization: none",
        )
    from transformers import BitsAndBytesConfig

    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    config = BitsAndBytesConfig(**({"load_in_8bit": True} if quantization == "int8" else four))
    return {"quantization_config": config, "device_map": {"": device}}


def _check_blocks(model: Any) -> None:
    """4-bit kernels of CPUs with AVX512-BF16 need multiples of 32 outputs, and would only fail at the first image."""
    for name, layer in model.named_modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False) and layer.out_features % 32:
            raise UsageError(
                f"the captioner's layer {name} has {layer.out_features} outputs; on this CPU 4-bit layers must have a "
                "multiple of 32",
                where="quantization",
                fix="choose quantization: int8 or none, or caption on a GPU",
            )


@contextmanager
def quiet() -> Iterator[None]:
    """:func:`tadp_da.storage.pretrained.quiet`, without the warnings of bitsandbytes too."""
    casts = logging.getLogger("bitsandbytes")  # one line for every layer and token whose input is cast
    with ExitStack() as undo:
        undo.callback(casts.setLevel, casts.level)
        casts.setLevel(logging.ERROR)
        undo.enter_context(_quiet())
        yield
