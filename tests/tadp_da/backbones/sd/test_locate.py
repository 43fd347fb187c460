"""Aliases, mirrors, pins and the cache, against a hub of the test's own on this machine."""

from __future__ import annotations

import http.server
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

from tadp_da.backbones.sd.locate import PIPELINE, locate
from tadp_da.backbones.stable_diffusion import StableDiffusion
from tadp_da.errors import EnvironmentSetupError
from tadp_da.storage import hub as _hub
from tadp_da.storage.hub import DIFFUSION, Files, Source, has_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the test's hub holds, and what it was asked."""

    def __init__(self) -> None:
        self.repos: dict[str, Path] = {}
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        parts = unquote(path.partition("?")[0]).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        if repo not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        folder = self.repos[repo]
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        names = [p.relative_to(folder).as_posix() for p in files]
        if api and "tree" in parts:
            rows = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": f"{i:040x}"}
                for i, (name, path) in enumerate(zip(names, files, strict=True))
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(rows).encode()
        if api:
            facts = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            return 200, {"Content-Type": "application/json"}, json.dumps(facts).encode()
        name = "/".join(parts[4:])
        if name not in names:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return (
            200,
            {"ETag": f'"{names.index(name):040x}"', "X-Repo-Commit": COMMIT},
            (folder / name).read_bytes(),
        )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    holding = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = holding.answer(self.path)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _point_at(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)
    yield holding
    server.shutdown()
    server.server_close()


def _point_at(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> tuple[Source, ...]:
    found = (Source("gone/sd", COMMIT), Source("here/sd", COMMIT), Source("loose/sd"))
    monkeypatch.setattr(_hub, "DIFFUSION", {"sd": found})
    monkeypatch.setattr("tadp_da.backbones.sd.locate.DIFFUSION", {"sd": found})
    return found


def test_mirrors_are_tried_in_order_and_the_cache_before_all(
    hub, mirrors, tiny_pipeline, caplog, monkeypatch
):
    hub.repos["here/sd"] = tiny_pipeline
    found = locate("sd")
    assert (found.repo, found.commit) == ("here/sd", COMMIT)
    assert found.origin == f"here/sd@{COMMIT}"
    assert StableDiffusion.from_pretrained("sd").origin == found.origin
    assert caplog.messages == []  # pinned
    asked = len(hub.asked)
    assert sum("gone/sd" in path for path in hub.asked) == 1
    assert locate("sd") == found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("sd") == found
    assert len(hub.asked) == asked  # nobody was asked again


def test_only_what_is_needed_is_fetched(hub, mirrors, tiny_pipeline, tmp_path):
    hub.repos["here/sd"] = Path(shutil.copytree(tiny_pipeline, tmp_path / "full"))
    for name in ("v1.ckpt", "v1.safetensors", "unet/diffusion_pytorch_model.bin", "unet/x.fp16.safetensors",
                 "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors"):  # fmt: skip
        (tmp_path / "full" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "full" / name).write_bytes(b"x")
    folder = locate("sd").path
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.safetensors")) == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert not list(folder.rglob("*.ckpt")) + list(folder.rglob("*.bin"))


def test_what_is_not_pinned_is_warned_of_and_its_commit_kept(hub, mirrors, tiny_pipeline, caplog):
    hub.repos["loose/sd"] = tiny_pipeline
    with caplog.at_level(logging.WARNING):
        found = locate("sd")
    assert found.origin == f"loose/sd@{COMMIT}"
    assert len(caplog.messages) == 1
    assert "not pinned" in caplog.messages[0]
    assert f"loose/sd@{COMMIT}" in caplog.messages[0]
    caplog.clear()
    assert locate(f"loose/sd@{COMMIT}") == found
    assert locate("loose/sd", COMMIT) == found
    assert caplog.messages == []
    assert locate("loose/sd").commit == COMMIT
    assert len(caplog.messages) == 1


def test_a_half_finished_download_is_finished(hub, mirrors, tiny_pipeline):
    hub.repos["here/sd"] = tiny_pipeline
    folder = locate("sd").path
    lost = folder / "vae" / "diffusion_pytorch_model.safetensors"
    lost.unlink()
    assert not PIPELINE.complete(folder)
    assert locate("sd").path == folder
    assert lost.exists()


def test_a_mirror_without_safetensors_is_passed_over(hub, mirrors, tiny_pipeline, tmp_path):
    pickled = Path(shutil.copytree(tiny_pipeline, tmp_path / "pickled"))
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").rename(
        pickled / "unet" / "diffusion_pytorch_model.bin"
    )
    hub.repos |= {"gone/sd": pickled, "here/sd": tiny_pipeline}
    assert locate("sd").repo == "here/sd"
    del hub.repos["here/sd"]
    with pytest.raises(EnvironmentSetupError, match="all of its safetensors weights"):
        locate("gone/sd@main")


def test_a_repository_with_half_precision_alone_is_fetched(hub, mirrors, tiny_pipeline, tmp_path):
    half = Path(shutil.copytree(tiny_pipeline, tmp_path / "half"))
    for file in half.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    hub.repos["here/sd"] = half
    found = locate("sd")
    assert found.repo == "here/sd"
    assert len(list(found.path.glob("*/*.fp16.safetensors"))) == 3
    assert locate("sd") == found


@pytest.mark.parametrize("gone", ["gone/sd", f"gone/sd@{COMMIT}", "loose/sd"])
def test_a_repository_that_is_gone_names_the_alias_with_its_mirrors(hub, mirrors, gone):
    with pytest.raises(EnvironmentSetupError, match=f"cannot fetch '{gone}'") as caught:
        locate(gone)
    assert caught.value.fix.startswith("use --model sd, which also tries the mirrors of this model. Or ")
    with pytest.raises(EnvironmentSetupError) as caught:
        locate("other/sd")
    assert "mirrors" not in caught.value.fix


def test_the_repository_of_stable_diffusion_that_was_withdrawn_names_its_alias(hub):
    with pytest.raises(EnvironmentSetupError) as caught:
        locate("runwayml/stable-diffusion-v1-5")
    assert "--model sd-1.5" in caught.value.fix


def test_when_all_mirrors_are_gone_the_error_says_what_to_fetch_and_where_to_put_it(
    hub, mirrors, monkeypatch
):
    with pytest.raises(
        EnvironmentSetupError, match="cannot fetch 'sd' from the hub: RepositoryNotFoundError"
    ) as caught:
        locate("sd")
    assert all(source.repo in caught.value.where for source in mirrors)
    assert f"hf download gone/sd --local-dir FOLDER --revision {COMMIT}" in caught.value.fix
    assert "--model FOLDER" in caught.value.fix
    assert caught.value.exit_code == 4
    assert len(hub.asked) == 3  # once each
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentSetupError, match="OfflineModeIsEnabled") as caught:
        locate("sd")
    assert "unset it where there is a network" in caught.value.fix
    assert len(hub.asked) == 3


def test_without_a_network_nothing_is_tried_twice(mirrors, tmp_path, monkeypatch, capfd):
    _point_at("http://127.0.0.1:9", tmp_path, monkeypatch)
    start = time.monotonic()
    with pytest.raises(EnvironmentSetupError, match="cannot fetch 'sd'") as caught:
        locate("sd")
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")
    assert "gone/sd" in caught.value.where
    assert "here/sd" not in caught.value.where  # the first that cannot be reached ends it


def test_the_table_is_pinned_where_it_matters():
    for alias, sources in DIFFUSION.items():
        assert sources[0].pinned, alias
        assert [s.pinned for s in sources] == sorted((s.pinned for s in sources), reverse=True), alias
    assert len(DIFFUSION["sd-1.5"]) > 2
    assert all(sources[0].pinned for sources in _hub.CAPTIONERS.values())


def test_an_unknown_alias_is_told_the_known_ones():
    with pytest.raises(EnvironmentSetupError, match=r"'sd-1\.6' is not a folder") as caught:
        locate("sd-1.6")
    assert "sd-1.5" in caught.value.fix
    assert "--model" in caught.value.fix


def test_weights_in_shards_are_whole_when_every_shard_is_there(tmp_path):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").touch()
    assert not has_weights(tmp_path)
    (tmp_path / "model-2.safetensors").touch()
    assert has_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[")
    assert not has_weights(tmp_path)
    assert isinstance(PIPELINE, Files)
