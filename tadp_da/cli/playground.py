"""The command ``tadp-da playground`` and its page; what the page shows is computed in :mod:`tadp_da.playground`.

The page is for this machine only: the server listens on 127.0.0.1, answers to no other name, and forbids the browser to
load anything from elsewhere. It is not started by gradio's ``launch``, which can share it and asks proxies for it.
"""

from __future__ import annotations

import html
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tadp_da.api_options import open_run
from tadp_da.cli.options import Captioner, Device, Precision, out
from tadp_da.errors import DataError, EnvironmentSetupError, TadpError
from tadp_da.images import open_image
from tadp_da.training.signals import Stop

if TYPE_CHECKING:
    from tadp_da.playground import Playground

_HOST = "127.0.0.1"
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
_IMAGE: dict[str, Any] = {
    "format": "png",
    "buttons": ["download", "fullscreen"],
    "height": 280,
    "min_width": 200,
}
# gradio enlarges no image; and both prompts stay at one height (a textbox of two lines is not submitted by Enter)
_STYLE = "img { width: 100%; height: 100%; object-fit: contain } textarea { min-height: 6em }"


def playground(
    model: Annotated[Path, typer.Argument(help="Model folder from `adapt`, `run` or `benchmark run`.")],
    images: Annotated[Path | None, typer.Option(help="Folder of images to choose from.")] = None,
    captioner: Captioner = "",
    device: Device = "auto",
    precision: Precision = "auto",
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 7860,
) -> None:
    """Try prompts in the browser: predictions, their difference from the null prompt's, attention of words.

    Example: `tadp-da playground runs/model --images dusk/images`
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported
    try:
        import gradio  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise EnvironmentSetupError(
            f"the playground needs a package that is not installed: {error.name}",
            fix="pip install 'tadp-da[ui]'",
        ) from None
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.playground import Playground
    from tadp_da.storage.listing import image_files

    try:
        listener = socket.create_server((_HOST, port))
    except OSError as error:
        raise EnvironmentSetupError(
            f"cannot listen on {_HOST}:{port}: {error.strerror}",
            fix="choose another --port, or 0 for a free one",
        ) from None
    files = {path.relative_to(images).as_posix(): path for path in image_files(images)} if images else {}
    if images and not files:
        raise DataError("there are no images", where=images, fix="put images there, or omit --images")
    run = open_run(".", {"device": device, "precision": precision})
    loaded = PerceptionModel.load(model, device=run.torch_device)
    server = uvicorn.Server(
        uvicorn.Config(
            _application(Playground(loaded, captioner, run.precision), files),
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
    )
    out.print(f"http://{_HOST}:{listener.getsockname()[1]} is open until Ctrl+C")
    with suppress(Stop):  # the server ends properly on a signal, and then passes it on
        server.run([listener])


def _application(play: Playground, images: Mapping[str, Path]) -> Any:
    """The page, under the rules that keep it on this machine."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    application = FastAPI(openapi_url=None)
    application.add_middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"])

    async def forbid_other_hosts(request: Any, proceed: Callable[[Any], Any]) -> Any:
        response = await proceed(request)
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    application.add_middleware(BaseHTTPMiddleware, dispatch=forbid_other_hosts)
    return gr.mount_gradio_app(
        application,
        _page(play, images),
        path="/",
        server_name=_HOST,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=_STYLE,
        footer_links=[],
        **dict.fromkeys(("run_history", "ssr_mode", "pwa", "mcp_server", "enable_monitoring"), False),
    )


def _page(play: Playground, images: Mapping[str, Path]) -> Any:
    """An image with its caption, and below them two prompts side by side."""
    import gradio as gr

    from tadp_da.playground import NULL

    def first() -> tuple[str, Any]:
        name, path = next(iter(images.items()))
        return name, open_image(path)

    with gr.Blocks(title="tadp_da playground", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        for limit in play.limits:
            gr.Markdown(f"**{limit}**")
        with gr.Row():
            image = gr.Image(
                label="Image",
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                **_IMAGE,
            )
            with gr.Column():
                name = gr.Dropdown(list(images), label="Image of the folder", visible=bool(images))
                caption = gr.Textbox(label="Caption; Enter writes both prompts", submit_btn="Write prompts")
        captioned = _on(image.change, lambda path: play.caption(Path(path)) if path else "", image, caption)
        with gr.Row():
            for strategy in (play.model.rewrite.strategy, NULL):
                with gr.Column():
                    _side(play, strategy, image, caption, (captioned.then, caption.submit))
        _on(name.input, lambda name: open_image(images[name]), name, image)
        if images:
            _on(page.load, first, None, [name, image])
    return page


def _side(
    play: Playground, name: str, image: Any, caption: Any, again: tuple[Callable[..., Any], ...]
) -> None:
    """One prompt and what the model makes of it, written and predicted ``again`` after these events."""
    import gradio as gr

    from tadp_da.playground import NULL

    has_attention = bool(play.model.backbone.spec.attention)
    strategy = gr.Dropdown(list(play.prompts("")), value=name, label="Strategy that writes the prompt")
    prompt = gr.Textbox(label="Prompt; Enter predicts", submit_btn="Predict")
    with gr.Row():
        prediction = gr.Image(label="Prediction", interactive=False, **_IMAGE)
        difference = gr.Image(label="Difference from null", interactive=False, **_IMAGE)
    changed, legend = gr.Markdown(), gr.HTML()
    word = gr.Radio([], label="Cross-attention of a word of the prompt", visible=has_attention)
    attention = gr.Image(label="Cross-attention", interactive=False, visible=has_attention, **_IMAGE)

    def predicted(path: str | None, caption: str, prompt: str) -> tuple[Any, ...]:
        if not path:
            return None, None, "", "", gr.Radio([], value=None), gr.Image(value=None)
        words = gr.Radio(play.words(prompt), value=None)
        found = play.compare(Path(path), prompt, play.prompts(caption)[NULL])
        told = f"{found.changed:.1%} of the pixels differ; white: drawn for the null prompt only."
        return found.prediction, found.difference, told, _legend(found.legend), words, gr.Image(value=None)

    def attended(path: str, prompt: str, word: str) -> Any:
        shown, low, high = play.attention(Path(path), prompt, word)
        return gr.Image(shown, label=f"Cross-attention of {word}: {low:.2%} (dark) to {high:.2%} (yellow)")

    results = [prediction, difference, changed, legend, word, attention]
    for event in (*again, strategy.input):
        written = _on(event, lambda text, name: play.prompts(text)[name], [caption, strategy], prompt)
        _on(written.then, predicted, [image, caption, prompt], results)
    _on(prompt.submit, predicted, [image, caption, prompt], results)
    _on(word.input, attended, [image, prompt, word], attention)


def _on(event: Callable[..., Any], handler: Callable[..., Any], inputs: Any, outputs: Any) -> Any:
    """Call a handler on an event, one at a time, because a model's passes share its hooks; its errors are shown."""
    import gradio as gr

    @wraps(handler)
    def run(*values: Any) -> Any:
        try:
            return handler(*values)
        except TadpError as error:
            said = "<br>".join(map(html.escape, error.lines()))
            raise gr.Error(said, duration=None, print_exception=False) from None

    return event(run, inputs, outputs, concurrency_id="model", concurrency_limit=1, api_visibility="private")


def _legend(colours: Mapping[str, tuple[int, int, int]]) -> str:
    return " ".join(
        f'<span style="white-space: nowrap"><span style="color: rgb{colour}">&#9632;</span> {html.escape(name)}</span>'
        for name, colour in colours.items()
    )
