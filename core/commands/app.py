"""`genzoo app`: models to play with, on a page of this machine (`genzoo.app` builds it)."""

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from socket import SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket

from genzoo.arguments import MODEL, add_allow, allowed, found
from genzoo.zoo import hub

EXAMPLE = "genzoo app"
SAYS = "draw, and see what models make of it (extra app)"

#: models of the same data that each answer within a moment
DEFAULT = tuple(f"digits/{name}" for name in ("vae", "ae", "gan", "made", "pixelcnn", "ddpm", "flow-matching"))


def add_arguments(parser: ArgumentParser) -> None:
    """Which models, and where the page is."""
    parser.add_argument("models", nargs="*", default=[], help=f"of data of one shape, each {MODEL}")
    parser.add_argument("--port", type=int, default=7860, help="where the page is (default: 7860)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others on the network in (default: nobody)")
    add_allow(parser)


def run(given: Namespace) -> None:
    """Opens a page on which one draws, and sees every model score, reconstruct and complete it, side by side."""
    if not 1 <= given.port < 2**16:
        raise ValueError(f"--port {given.port}: give one from 1 to 65535")
    try:  # Gradio would search among ports, and speak of options of its own
        family, kind, _, _, place = getaddrinfo(given.host.strip("[]"), given.port, type=SOCK_STREAM)[0]
        with socket(family, kind) as free:
            free.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            free.bind(place)
    except OSError as error:
        raise ValueError(f"--host {given.host} --port {given.port} cannot be taken: {error.strerror}") from None
    if find_spec("gradio") is None:
        raise ModuleNotFoundError("the app takes Gradio, which is not installed: pip install 'genzoo[app]'")
    from genzoo.app import STYLE, build
    from genzoo.app.answers import Shown

    named = given.models or DEFAULT
    models = [Shown(name, hub.load_found(found(name), allow=allowed(given))) for name in named]
    page = build(models)
    page.launch(
        server_name=given.host,
        server_port=given.port,
        css=STYLE,
        quiet=True,
        prevent_thread_lock=True,
        show_error=True,  # in its own words, on the page, where it can be mended
    )
    print(f"open {page.local_url} (Ctrl+C ends it)", flush=True)  # into a log, too, while it runs
    page.block_thread()
