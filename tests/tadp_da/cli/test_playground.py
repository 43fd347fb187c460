"""``tadp-da playground`` as a process of its own, used in a real browser: nothing leaves the machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tadp_da.backbones import load_backbone
from tests.tadp_da.backbones.tiny_dinov2 import save_tiny_dinov2
from tests.tadp_da.test_playground import assembled

needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed: extra [ui]")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    BROWSER is None or find_spec("playwright") is None, reason="no Chromium is on the PATH, or no playwright"
)
#: Runs the command and writes down every address outside this machine that Python connects to or looks up.
WATCHED = """
import sys

def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        address = args[0] if event == "socket.getaddrinfo" else args[1]
        host = address[0] if isinstance(address, tuple) else address
        if host not in (None, "127.0.0.1", "localhost"):
            print("FOREIGN", event, address, file=sys.stderr, flush=True)

sys.addaudithook(watch)
from tadp_da.cli import main
main()
"""


@contextmanager
def serving(log: Path, *words: object) -> Iterator[str]:
    """The address of a playground, which is interrupted at the end as by Ctrl+C."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    call = [sys.executable, "-c", WATCHED, "playground", *map(str, words), "--port", "0", "--device", "cpu"]
    with log.open("w") as errors:
        process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    try:
        said = process.stdout.readline() if process.stdout else ""
        assert said.startswith("http://127.0.0.1:"), log.read_text()
        yield said.split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0, log.read_text()
    finally:
        process.kill()
        process.communicate()
    assert "FOREIGN" not in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


def visit(browser: Any, address: str) -> Any:
    """A tab with the page, and the requests and console errors that it made."""
    tab = browser.new_page(viewport={"width": 1200, "height": 1000})
    tab.set_default_timeout(60_000)
    tab.requests, tab.complaints = [], []
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.on("console", lambda message: message.type == "error" and tab.complaints.append(message.text))
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.goto(address)
    return tab


def quiet(tab: Any, address: str) -> bool:
    """Whether the page asked for nothing but itself, and complained of nothing."""
    assert [url for url in tab.requests if not url.startswith((address, "data:", "blob:"))] == []
    assert tab.complaints == []
    return len(tab.requests) > 1


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (48, 80, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


@needs_gradio
@needs_browser
def test_two_prompts_side_by_side_and_a_word_that_is_clicked(
    backbone: Any, browser: Any, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    assembled(backbone, captioner="mini").save(tmp_path / "model")
    files = [picture(tmp_path / "images" / name, seed) for seed, name in enumerate(("a.png", "b.png"))]
    with serving(tmp_path / "log", tmp_path / "model", "--images", files[0].parent) as address:
        tab = visit(browser, address)
        caption, prompts = tab.get_by_label("Caption;"), tab.get_by_label("Prompt;")
        left, right = prompts.first, prompts.last
        expect(right).not_to_have_value("", timeout=60_000)
        assert caption.input_value() == left.input_value() == right.input_value()
        differences = tab.get_by_text("of the pixels differ")
        expect(differences).to_have_count(2, timeout=60_000)
        assert [text[:4] for text in differences.all_inner_texts()] == ["0.0%"] * 2
        left.fill("a dark night")
        left.press("Enter")
        expect(differences.first).not_to_contain_text("0.0%", timeout=60_000)
        assert differences.last.inner_text().startswith("0.0%"), "the other prompt is as it was"
        tab.get_by_label("dark", exact=True).check()
        expect(tab.get_by_text("Cross-attention of dark:")).to_be_visible(timeout=60_000)
        shown = tab.locator("img").count()
        before = caption.input_value()
        tab.locator("input[type=file]").first.set_input_files(files[1])
        expect(differences.first).to_contain_text("0.0%", timeout=60_000)
        expect(tab.locator("img")).to_have_count(shown - 1, timeout=60_000)
        assert left.input_value() == caption.input_value() != before
        assert quiet(tab, address)
        tab.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/x.png'}))")
        tab.wait_for_timeout(50)
        assert any("Content Security Policy" in text for text in tab.complaints)
        tab.close()


@needs_gradio
@needs_browser
def test_without_text_attention_captioner_or_folder_the_page_says_what_to_do(
    browser: Any, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    backbone = load_backbone("dinov2", str(save_tiny_dinov2(tmp_path / "dinov2")))
    assembled(backbone, "detection").save(tmp_path / "model")
    with serving(tmp_path / "log", tmp_path / "model") as address:
        tab = visit(browser, address)
        expect(tab.get_by_text("reads no text")).to_be_visible(timeout=60_000)
        expect(tab.get_by_text("no cross-attention")).to_be_visible()
        assert not tab.get_by_text("Cross-attention of a word").is_visible()
        tab.locator("input[type=file]").first.set_input_files(picture(tmp_path / "i/a.png", 0))
        expect(tab.get_by_text("type a caption")).to_be_visible(timeout=60_000)
        caption = tab.get_by_label("Caption;")
        caption.fill("a car <img src=x onerror=alert(1)>")
        caption.press("Enter")
        expect(tab.get_by_label("Prompt;").last).to_have_value(caption.input_value(), timeout=60_000)
        expect(tab.get_by_text("0.0% of the pixels differ")).to_have_count(2, timeout=60_000)
        assert quiet(tab, address)
        tab.close()
        rebound = urllib.request.Request(address, headers={"Host": "rebound.example"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(rebound)


@needs_gradio
def test_a_taken_port_and_a_folder_without_images_are_errors_with_advice(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command("playground", tmp_path, "--port", taken.getsockname()[1]) == 4
    assert "choose another --port" in capsys.readouterr().err
    assert command("playground", tmp_path, "--images", tmp_path, "--port", 0) == 3
    assert "put images there" in capsys.readouterr().err


def test_without_gradio_the_advice_is_the_extra(
    command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert command("playground", tmp_path) == 4
    assert "pip install 'tadp-da[ui]'" in capsys.readouterr().err
