"""Notebooks in a real browser: what a user sees of them, and what the page did meanwhile.

Playwright is imported when a browser is launched: this module imports without it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from .server import Server

ARTEFACTS = Path(__file__).parent / "artefacts"
UIS = ("lab", "notebook")
TIMEOUT_S = 120  # of anything on a page: busy machines are slow, and only a failure waits so long
POLLING_MS = 50  # Playwright's own choice, every frame, keeps the browser drawing while a model runs
LIGHT, DARK, HIGH_CONTRAST = "JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"

_CHROMIUM_OPTIONS = (
    # names resolve nowhere: page.route() would block the network too, but switches the HTTP cache off
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--disable-gpu",
    "--disable-sync",
    "--mute-audio",
)
_LOCAL_URL = re.compile(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|(data|blob|about|file):")
_NOTEBOOK_7_NOISE = ("reading 'schema'", "filebrowser:open-path")  # errors of Notebook 7.6's own

# Of an asynchronous function Playwright's wait_for_function takes the first result, whatever it is: none of these is.
_HAS_NOTEBOOK = """() => {
    const widget = window.jupyterapp?.shell.currentWidget;
    return widget?.context?.isReady && widget.isRevealed && document.querySelector('.jp-Notebook .jp-Cell');
}"""
_HAS_KERNEL = """() => {
    const session = window.jupyterapp.shell.currentWidget.sessionContext, kernel = session.session?.kernel;
    return session.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
# A cell is marked as running only a while after its command was given: the commands are counted as well.
_RUN = """([command, index]) => {
    const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
    if (index !== null) {
        notebook.deselectAll();
        notebook.activeCellIndex = index;
    }
    window.commandsUnderWay = (window.commandsUnderWay ?? 0) + 1;
    app.commands.execute(command).finally(() => window.commandsUnderWay--);
}"""
_IS_IDLE = """() => {
    const widget = window.jupyterapp.shell.currentWidget;
    return !window.commandsUnderWay
        && widget.sessionContext.session?.kernel?.status === 'idle'
        && !widget.content.widgets.some(cell => cell.model.executionState === 'running');
}"""
_PAINT = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
_SAVE = "() => window.jupyterapp.shell.currentWidget.context.save()"
_EXECUTE = "async ([command, options]) => { await window.jupyterapp.commands.execute(command, options) }"


def find_chromium() -> str | None:
    """The browser on the PATH, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def launch_chromium(executable: str) -> Iterator[Any]:
    """A headless browser. While it is open, an asyncio loop runs in this thread: leave it before other tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(_CHROMIUM_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Traffic:
    """WebSocket frames between the page and its kernels, since the page was opened."""

    received_frames: int = 0
    received_bytes: int = 0
    sent_frames: int = 0
    sent_bytes: int = 0

    def watch(self, socket) -> None:
        if "/channels" in socket.url:  # a kernel's, not the server's events
            socket.on("framereceived", self._count_received)
            socket.on("framesent", self._count_sent)

    def _count_received(self, payload: str | bytes) -> None:
        self.received_frames += 1
        self.received_bytes += len(payload)

    def _count_sent(self, payload: str | bytes) -> None:
        self.sent_frames += 1
        self.sent_bytes += len(payload)


class Tab:
    """One page in a fresh browser context, and what it logged and asked for. `page` is Playwright's.

    `context` goes to Playwright's new_context: viewport, color_scheme, reduced_motion, forced_colors, …
    """

    noise: Sequence[str] = ()

    def __init__(self, browser, **context):
        context = {"viewport": {"width": 1280, "height": 900}} | context
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT_S * 1000)
        self.console: list[tuple[str, str]] = []
        self.page_errors: list[str] = []
        self.offsite: list[str] = []
        self.traffic = Traffic()
        self.page.on("console", lambda message: self.console.append((message.type, message.text)))
        self.page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        self.context.on("request", lambda request: self._note_url(request.url))
        self.page.on("websocket", lambda socket: self._note_url(socket.url))
        self.page.on("websocket", self.traffic.watch)

    def _note_url(self, url: str) -> None:
        if not _LOCAL_URL.match(url):
            self.offsite.append(url)

    def screenshot(self, name: str) -> Path:
        """A picture of what is in sight, `name`.png among the artefacts."""
        ARTEFACTS.mkdir(exist_ok=True)
        path = ARTEFACTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def complaints(self) -> list[str]:
        """What must not happen: errors on the console or uncaught, and requests to other machines."""
        errors = [f"console: {text}" for kind, text in self.console if kind == "error"]
        errors += [f"uncaught: {text}" for text in self.page_errors]
        known = [e for e in errors if any(noise in e for noise in self.noise)]
        return [e for e in errors if e not in known] + [f"off-site: {url}" for url in self.offsite]

    def assert_clean(self) -> None:
        complaints = self.complaints()
        assert not complaints, "\n".join(complaints)

    def close(self) -> None:
        self.context.close()


def open_file(browser, path: Path, **context) -> Tab:
    """A local file, as someone without a network sees it; what it would have fetched is in `offsite`."""
    tab = Tab(browser, offline=True, **context)
    tab.page.goto(path.resolve().as_uri())
    return tab


class Page(Tab):
    """A notebook in JupyterLab (`ui` "lab") or Notebook 7 ("notebook")."""

    def __init__(self, browser, server: Server, path: Path, ui: str = "lab", **context):
        super().__init__(browser, **context)
        self.server, self.path, self.ui = server, path, ui
        self.noise = _NOTEBOOK_7_NOISE if ui == "notebook" else ()

    def open(self, *, has_kernel: bool = True, theme: str = LIGHT) -> None:
        """Show the notebook and start its kernel.

        With `has_kernel` False, it must name a kernel that the server lacks: "No Kernel" is chosen for it.
        """
        # always written: a page before may have left another theme
        self.server.write_setting("@jupyterlab/apputils-extension:themes", {"theme": theme})
        name, token = self.path.relative_to(self.server.root).as_posix(), self.server.token
        address = {
            "lab": f"/lab/tree/{name}?reset&token={token}",  # reset: without the notebooks of the page before
            "notebook": f"/notebooks/{name}?token={token}",
        }[self.ui]
        self.page.goto(self.server.url + address, wait_until="domcontentloaded")
        self.page.wait_for_function(_HAS_NOTEBOOK, polling=POLLING_MS)
        if has_kernel:
            self.page.wait_for_function(_HAS_KERNEL, polling=POLLING_MS)
        else:
            self.page.locator(".jp-Dialog .jp-mod-reject", has_text="No Kernel").click()
            self.page.locator(".jp-Dialog").wait_for(state="detached")
        self._wait_for_theme(theme)

    def execute(self, command: str, **options) -> None:
        """Run a command of JupyterLab's to its end."""
        self.page.evaluate(_EXECUTE, [command, options])

    def run_cell(self, index: int, wait: bool = True, timeout_s: float = TIMEOUT_S) -> None:
        self._run("notebook:run-cell", index, wait, timeout_s)

    def run_all(self, wait: bool = True, timeout_s: float = TIMEOUT_S) -> None:
        self._run("notebook:run-all-cells", None, wait, timeout_s)

    def _run(self, command: str, index: int | None, wait: bool, timeout_s: float) -> None:
        self.page.evaluate(_RUN, [command, index])
        if wait:
            self.wait_idle(timeout_s)

    def wait_idle(self, timeout_s: float = TIMEOUT_S) -> None:
        """Until all cells have run and their outputs are painted."""
        self.page.wait_for_function(_IS_IDLE, timeout=timeout_s * 1000, polling=POLLING_MS)
        self.page.evaluate(_PAINT)

    def outputs(self, index: int):
        """A locator of one cell's outputs."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-OutputArea-output")

    def outputs_text(self, index: int | None = None) -> list[str]:
        """The outputs' text as it is seen: of one cell, or of all."""
        every = self.page.locator(".jp-Notebook .jp-OutputArea-output")
        texts = (every if index is None else self.outputs(index)).all_inner_texts()
        return [text.rstrip("\n") for text in texts]  # what was printed ends with one

    def set_theme(self, theme: str) -> None:
        """Change the theme while the page is open."""
        self.execute("apputils:change-theme", theme=theme)
        self._wait_for_theme(theme)

    def _wait_for_theme(self, theme: str) -> None:
        self.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)

    def save(self) -> None:
        """Save the notebook; it is written when this returns."""
        self.page.evaluate(_SAVE)

    def read_notebook(self) -> nbformat.NotebookNode:
        """The notebook as it was saved last."""
        return nbformat.read(self.path, as_version=4)
