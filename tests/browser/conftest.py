"""What the browser tests share: a browser, a server and another user's, and notebooks opened there.

Where something that they need is missing they are skipped, or fail if LLM_MAGIC_BROWSER is "required".
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest
from jupyter_core.paths import jupyter_path

from .harness import ARTEFACTS, LIGHT, UIS, Page, Tab, find_chromium, launch_chromium, open_file
from .server import DEFAULT_KERNEL, PLUGIN, Server

MISSING_KERNEL = "missing"
_REPORTS = pytest.StashKey[dict[str, pytest.TestReport]]()


def pytest_collection_modifyitems(items):
    """All tests of this folder carry the marks `browser` and `real`."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.real)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Let fixtures see whether their test failed."""
    report = yield
    item.stash.setdefault(_REPORTS, {})[report.when] = report
    return report


def skip(reason: str) -> None:
    """Without what a test needs it is skipped, except where it must not be."""
    if os.environ.get("LLM_MAGIC_BROWSER") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def need(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        skip(f"not installed: {', '.join(missing)}")


# Of the package, not of the session: Playwright's event loop would disturb IPython in the tests that follow.
@pytest.fixture(scope="package")
def chrome():
    """The browser, as Playwright drives it."""
    need("playwright")
    executable = find_chromium()
    if executable is None:
        skip("there is no Chromium on the PATH")
    with launch_chromium(executable) as browser:
        yield browser


@pytest.fixture(scope="package")
def server(real_path, tmp_path_factory):
    """The user's Jupyter server."""
    need("jupyterlab", "notebook", "ipykernel")
    with Server(tmp_path_factory.mktemp("user") / "home") as running:
        yield running


@pytest.fixture(scope="package")
def stranger(server, tmp_path_factory):
    """Another user's server: it trusts no notebook that comes from the first."""
    with Server(tmp_path_factory.mktemp("stranger") / "home") as running:
        yield running


@pytest.fixture(scope="package")
def server_with_plugin(real_path, tmp_path_factory):
    """The server of a user who has our JupyterLab extension."""
    need("jupyterlab", "notebook", "ipykernel")
    if not any((Path(path) / "labextensions" / PLUGIN).is_dir() for path in jupyter_path()):
        skip("the JupyterLab extension is not installed: pip install puts it into the environment")
    with Server(tmp_path_factory.mktemp("plugin") / "home", has_plugin=True) as running:
        yield running


@pytest.fixture(scope="package")
def stranger_with_plugin(server_with_plugin, tmp_path_factory):
    """Another user's server, with our extension too."""
    with Server(tmp_path_factory.mktemp("plugged-stranger") / "home", has_plugin=True) as running:
        yield running


@pytest.fixture
def kernel_with(server, request, tmp_path_factory):
    """`kernel_with(version)`: the name of a kernel with that ipykernel, which pip installs beside the environment's."""

    def add(version: str) -> str:
        cache = getattr(request.config, "cache", None)
        folder = cache.mkdir("browser") if cache else tmp_path_factory.getbasetemp()
        try:
            return server.add_kernel(f"ipykernel-{version}", version, Path(folder))
        except RuntimeError as error:
            skip(str(error))

    return add


class Notebooks:
    """Opens notebooks in one user interface, and remembers what is open. Call it with a list of cells."""

    def __init__(self, request, browser, server: Server, ui: str, stranger: str = "stranger"):
        self._request, self._browser, self.server, self.ui = request, browser, server, ui
        self._stranger = stranger
        self.tabs: list[Tab] = []
        self.servers = [server]

    def __call__(self, cells, *, kernel: str = DEFAULT_KERNEL, **options) -> Page:
        """A new notebook with these cells in a new page; `options`: theme, and those of Tab."""
        return self._open(self.server, self.server.add_notebook(cells, kernel), **options)

    def reopen(self, path: Path, **options) -> Page:
        """A notebook of the user's in a new page; with its kernel, if that runs still."""
        return self._open(self.server, path, **options)

    def open_as_stranger(self, path: Path, *, has_kernel: bool = True, **options) -> Page:
        """A copy of a saved notebook at another user's, who does not trust it; perhaps without a kernel for it."""
        stranger = self._request.getfixturevalue(self._stranger)
        if stranger not in self.servers:
            self.servers.append(stranger)
        copy = stranger.copy_notebook(path, DEFAULT_KERNEL if has_kernel else MISSING_KERNEL)
        return self._open(stranger, copy, has_kernel=has_kernel, **options)

    def open_html(self, path: Path, **context) -> Tab:
        """The notebook as nbconvert exports it to HTML, in a page without a network."""
        return self._keep(open_file(self._browser, self.server.export_html(path), **context))

    def _open(self, server: Server, path: Path, *, has_kernel: bool = True, theme: str = LIGHT, **context) -> Page:
        page = self._keep(Page(self._browser, server, path, self.ui, **context))
        page.open(has_kernel=has_kernel, theme=theme)
        return page

    def _keep(self, tab):
        self.tabs.append(tab)
        return tab

    def keep_evidence(self, name: str) -> None:
        """Pictures, consoles and server logs of a test that failed, among the artefacts."""
        ARTEFACTS.mkdir(exist_ok=True)
        for number, tab in enumerate(self.tabs):
            lines = [*(f"{kind}: {text}" for kind, text in tab.console), "", *tab.complaints()]
            try:
                tab.screenshot(f"{name}-{number}")
            except Exception as error:  # closed, or crashed: the rest is worth keeping all the same
                lines += ["", f"no screenshot: {error}"]
            (ARTEFACTS / f"{name}-{number}.console.txt").write_text("\n".join(lines), encoding="utf-8")
        for number, server in enumerate(self.servers):
            (ARTEFACTS / f"{name}-{number}.server.txt").write_text(server.read_log(), encoding="utf-8")

    def close(self) -> None:
        for tab in self.tabs:
            tab.close()
        for server in self.servers:
            server.kill_sessions()


@pytest.fixture(params=UIS)
def notebook(request, chrome, server):
    """Opens notebooks in JupyterLab and in Notebook 7 by turns, unless parametrised with one of them (indirect)."""
    yield from _open_notebooks(request, Notebooks(request, chrome, server, request.param))


@pytest.fixture(params=UIS)
def plugged(request, chrome, server_with_plugin):
    """The same where our JupyterLab extension is there."""
    yield from _open_notebooks(
        request, Notebooks(request, chrome, server_with_plugin, request.param, "stranger_with_plugin")
    )


def _open_notebooks(request, notebooks: Notebooks):
    yield notebooks
    try:
        if any(report.failed for report in request.node.stash.get(_REPORTS, {}).values()):
            notebooks.keep_evidence(re.sub(r"[^\w.-]+", "-", request.node.name).strip("-"))
    finally:
        notebooks.close()
