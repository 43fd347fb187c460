"""Model cards, and what reaches a hub: a local server that speaks as much of its interface as an upload needs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import ModelCard

from tadp_da.concept import Concept
from tadp_da.errors import ArtifactError, EnvironmentSetupError, UsageError
from tadp_da.model_card import card, write_card
from tadp_da.provenance import write_provenance


class Hub(ThreadingHTTPServer):
    """Keeps the files of every commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.repos: list[dict[str, Any]] = []
        self.refuses = False


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses:
            self.answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.server.repos.append(json.loads(body))
            self.answer({"url": f"{self.server.address}/ann/{json.loads(body)['name']}"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self.answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
                    ]
                }
            )
        else:
            assert "/commit/" in self.path
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(
                {
                    "commitUrl": f"{self.server.address}/ann/dusk/commit/1",
                    "commitOid": "1",
                    "pullRequestUrl": None,
                }
            )

    def answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def concept(folder: Path, origin: str | None) -> Path:
    Concept(
        word="<dusk>",
        domain="dusk",
        backbone="b",
        method="textual-inversion",
        rows=torch.ones(1, 4),
        settings={},
    ).save(folder)
    write_provenance(folder, origin, {"abc": "/home/ann/photos/1.png"})
    write_card(folder)
    return folder


@pytest.mark.parametrize(
    ("origin", "licence", "base"),
    [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5@451f", "creativeml-openrail-m", True),
        ("someone/else@1234", "other", True),
        (None, "other", False),
    ],
)
def test_the_front_matter_says_base_and_licence(
    tmp_path: Path, origin: str | None, licence: str, base: bool
) -> None:
    made = ModelCard.load(concept(tmp_path / "dusk", origin) / "README.md")
    assert made.data.license == licence
    assert made.data.base_model == ((origin or "").partition("@")[0] if base else None)
    assert "`<dusk>`" in made.text
    assert "/home/ann" not in made.text


def test_the_licence_of_a_local_base_is_that_of_its_own_card(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/README.md").write_text("---\nlicense: mit\n---\n# base\n")
    made = ModelCard.load(concept(tmp_path / "dusk", str(tmp_path / "base")) / "README.md")
    assert made.data.license == "mit"


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="neither"):
        card(tmp_path)


def test_an_upload_is_one_commit_without_what_is_of_this_machine(
    tmp_path: Path, hub: Hub, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = concept(tmp_path / "dusk", "/home/ann/clients/sd15")
    (folder / "manifest.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    assert command("push", folder, "ann/dusk") == 0
    assert f"{hub.address}/ann/dusk/commit/1" in capsys.readouterr().out.replace("\n", "")
    assert [(made["name"], made["visibility"]) for made in hub.repos] == [("dusk", "private")]
    assert set(hub.files) == {"README.md", "concept.json", "learned_embeds.safetensors", "provenance.json"}
    assert b"/home/ann" not in b"".join(hub.files.values())
    known = json.loads(hub.files["provenance.json"])
    assert (known["images"], known["base"]) == ({"abc": "1.png"}, "sd15")
    assert b"hf download ann/dusk --local-dir dusk" in hub.files["README.md"]
    down = tmp_path / "down"
    for name, content in hub.files.items():
        (down / name).parent.mkdir(exist_ok=True)
        (down / name).write_bytes(content)
    assert Concept.load(down).fingerprint == Concept.load(folder).fingerprint


def test_what_the_hub_refuses_is_an_error_that_helps(tmp_path: Path, hub: Hub) -> None:
    from tadp_da.model_card import push

    folder = concept(tmp_path / "dusk", None)
    with pytest.raises(UsageError, match="no name on the hub"):
        push(folder, "not/a/name")
    hub.refuses = True
    with pytest.raises(EnvironmentSetupError, match="upload to the hub failed") as caught:
        push(folder, "ann/dusk")
    assert "hf auth login" in str(caught.value)


@pytest.mark.parametrize(("rows", "strategy"), [(True, "textual-inversion"), (False, "dreambooth")])
def test_a_card_names_a_strategy_that_exists(tmp_path: Path, rows: bool, strategy: str) -> None:
    Concept(
        word="<dusk>",
        domain="dusk",
        backbone="b",
        method="imported",
        rows=torch.ones(1, 4) if rows else None,
        settings={},
    ).save(tmp_path / "dusk")
    write_provenance(tmp_path / "dusk", None, {})
    assert f'strategy="{strategy}"' in card(tmp_path / "dusk")
