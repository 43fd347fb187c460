"""Captioning in 8 and 4 bits by bitsandbytes, on a CPU, and where the captioner comes from."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tadp_da.captions.captioner import Captioner, CaptionerSettings, caption_images
from tadp_da.errors import EnvironmentSetupError, UsageError
from tadp_da.run import Run
from tadp_da.types import Unlabeled
from tests.tadp_da.captions.conftest import write_blip2

BITS = {"int8": 1, "nf4": 0.5}


def settings(quantization: str = "none") -> CaptionerSettings:
    return CaptionerSettings(batch=4, min_new_tokens=2, max_new_tokens=8, quantization=quantization)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for the blocks of bitsandbytes' kernels."""
    return write_blip2(tmp_path_factory.mktemp("wide"), width=64)


@pytest.mark.parametrize("quantization", BITS)
def test_quantized_captions_are_made_in_silence_and_signed(
    wide: Path,
    pictures: Unlabeled,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    quantization: str,
) -> None:
    pytest.importorskip("bitsandbytes")
    captioner = Captioner.from_pretrained(wide, settings(quantization))
    out, run = tmp_path / "captions.json", Run(folder=tmp_path / "run", quiet=True)
    assert captioner.facts["quantization"] == quantization
    assert caption_images(pictures[:6], captioner, out, run).made == 6
    again = Captioner.from_pretrained(
        wide, settings(quantization)
    )  # after use, and read again, it is the same
    assert captioner.facts == again.facts
    assert caption_images(pictures, captioner, out, run).made == 4
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn] == []
    with pytest.raises(UsageError, match="made by another captioner"):
        caption_images(pictures, Captioner.from_pretrained(wide, settings()), out, run)


@pytest.mark.parametrize("quantization", BITS)
def test_a_quantized_captioner_of_other_weights_is_another(
    wide: Path, tmp_path: Path, quantization: str
) -> None:
    pytest.importorskip("bitsandbytes")
    other = Path(shutil.copytree(wide, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    name = next(n for n, t in tensors.items() if n.endswith("decoder.layers.0.fc1.weight"))
    assert tensors[name].numel() > 4096
    tensors[name][-1, -1] *= -1  # no scale changes with it
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    prints = [Captioner.from_pretrained(p, settings(quantization)).fingerprint for p in (wide, wide, other)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("quantization", BITS)
def test_linear_layers_shrink_and_stay_near(wide: Path, quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    full = Captioner.from_pretrained(wide, settings()).model
    small = Captioner.from_pretrained(wide, settings(quantization)).model
    name = "language_model.model.decoder.layers.0.fc1"
    before, after = full.get_submodule(name), small.get_submodule(name)
    bytes_before = before.weight.nbytes
    assert after.weight.nbytes == bytes_before * BITS[quantization] / 4
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (after(x) - before(x)).norm() / before(x).norm()
    assert 0 < error < (0.03 if quantization == "int8" else 0.2)


def test_layers_that_this_cpu_cannot_run_in_4_bits_are_refused_before_the_first_image(blip2: Path) -> None:
    layers = pytest.importorskip("bitsandbytes").nn
    if not layers.Linear4bit(32, 32).support_avx512bf16_for_cpu:
        pytest.skip("this CPU has no kernel with such a limit")
    with pytest.raises(UsageError, match=r"has \d+ outputs; this CPU") as caught:
        Captioner.from_pretrained(blip2, settings("nf4"))
    assert "choose quantization: int8" in caught.value.fix


def test_without_bitsandbytes_the_extra_is_named(blip2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        EnvironmentSetupError, match="quantization nf4 needs the package bitsandbytes"
    ) as caught:
        Captioner.from_pretrained(blip2, settings("nf4"))
    assert "pip install 'tadp-da[gpu]'" in caught.value.fix
    assert Captioner.from_pretrained(blip2, settings()).model is not None


def test_an_alias_is_read_from_the_cache_and_signed_with_its_commit(
    blip2: Path, pictures: Unlabeled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "59a1ef6c1e5117b3f65523d1c6066825bcf315e3"
    snapshots = tmp_path / "models--Salesforce--blip2-opt-2.7b" / "snapshots"
    with pytest.raises(EnvironmentSetupError) as caught:
        Captioner.from_pretrained("blip2-opt-2.7b")
    assert "hf download Salesforce/blip2-opt-2.7b --local-dir FOLDER --revision 59a1ef6c" in caught.value.fix
    assert "--captioner FOLDER" in caught.value.fix
    snapshots.mkdir(parents=True)
    (snapshots / commit).symlink_to(blip2)
    captioner = Captioner.from_pretrained("blip2-opt-2.7b", settings())
    assert captioner.facts["model"] == f"Salesforce/blip2-opt-2.7b@{commit}"
    assert captioner(list(pictures[:1])) == Captioner.from_pretrained(blip2, settings())(list(pictures[:1]))


def test_code_of_the_models_own_is_never_run(blip2: Path, tmp_path: Path) -> None:
    import json

    folder = Path(shutil.copytree(blip2, tmp_path / "remote"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "strange",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own.py").write_text("import pathlib; pathlib.Path('ran').write_text('x')", encoding="utf-8")
    with pytest.raises(EnvironmentSetupError, match="cannot open the captioner"):
        Captioner.from_pretrained(folder)
    assert not Path("ran").exists()
