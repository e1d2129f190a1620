"""A real Jupyter server on loopback, for one user, and the notebooks and kernels that it serves."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat

DEFAULT_KERNEL = "python3"
PLUGIN = "llm-magic"  # our JupyterLab extension
START_TIMEOUT_S = 120

_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    # cells that are out of sight have no DOM otherwise
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}


def private_environment(home: Path) -> dict[str, str]:
    """This process's environment, with a home of its own for Jupyter and IPython; the models' cache stays shared."""
    from llm_magic.folders import cache_folder

    theirs = ("JUPYTER", "IPYTHON", "JPY_", "XDG_", "PYTHONSTARTUP")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return kept | {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),  # holds the key that notebooks are signed with: trust ends here
        "JUPYTER_PATH": str(home / "share"),  # is searched before the environment's: our kernelspecs win
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "LLM_MAGIC_CACHE": str(cache_folder()),
    }


def install_ipykernel(version: str, folder: Path) -> Path:
    """Put a version of ipykernel, and nothing else, into a folder; RuntimeError with pip's words if that fails."""
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")  # half an installation is never taken for one
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(part)]
        try:
            subprocess.run([*pip, f"ipykernel=={version}"], capture_output=True, text=True, timeout=300, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            shutil.rmtree(part, ignore_errors=True)
            said = error.stderr if isinstance(error.stderr, str) else str(error)  # bytes, after a timeout
            raise RuntimeError(f"pip cannot install ipykernel {version}: {said.strip().splitlines()[-1]}") from None
        part.rename(folder)
    return folder


def write_notebook(path: Path, cells: Iterable[Any], kernel: str = DEFAULT_KERNEL) -> Path:
    """A notebook of code cells, a string each; cells that nbformat made are taken as they are."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": _name_kernel(kernel)})
    notebook.cells = [nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    nbformat.write(notebook, path)
    return path


def _name_kernel(name: str) -> dict[str, str]:
    return {"name": name, "display_name": name, "language": "python"}


class Server:
    """JupyterLab and Notebook 7 of this environment for one user, whose home is `home`; use it in a `with`.

    Without the plugin, pages are those of an environment that has none: Colab's, a hub's, an older one.
    """

    def __init__(self, home: Path, has_plugin: bool = False):
        self.home, self.root, self.log = home, home / "notebooks", home / "server.log"
        self.token = secrets.token_hex(16)
        self.environment = private_environment(home)
        self.root.mkdir(parents=True)
        self._write_kernelspec(DEFAULT_KERNEL, {})
        for plugin, values in _SETTINGS.items():
            self.write_setting(plugin, values)
        if not has_plugin:
            config = home / "config" / "labconfig" / "page_config.json"
            config.parent.mkdir(parents=True)
            config.write_text(json.dumps({"disabledExtensions": {PLUGIN: True}}))

    def __enter__(self) -> Server:
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
            "--JupyterNotebookApp.expose_app_in_browser=True", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0",
            f"--ServerApp.root_dir={self.root}", f"--IdentityProvider.token={self.token}",
            "--ServerApp.terminals_enabled=False", "--LabApp.extension_manager=readonly",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self.environment, cwd=self.root, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches pytest alone, which then stops the server
            )  # fmt: skip
        try:
            self.url = self._wait_until_ready()
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):  # where it died already
            self.kill_sessions()
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self) -> str:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            for file in (self.home / "runtime").glob("jpserver-*.json"):
                with contextlib.suppress(OSError, ValueError, KeyError):  # half written, or not yet listening
                    self.url = f"http://127.0.0.1:{json.loads(file.read_text())['port']}"
                    self.request("/api/status")
                    return self.url
            time.sleep(0.05)
        raise RuntimeError(f"the Jupyter server did not start: {self.read_log()}")

    def request(self, path: str, method: str = "GET") -> Any:
        """Ask the server's REST interface."""
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as reply:
            return json.loads(reply.read() or "null")

    def read_log(self, characters: int = 5000) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]

    def kill_sessions(self) -> None:
        """End every notebook's kernel."""
        for kind in ("sessions", "kernels"):
            for item in self.request(f"/api/{kind}"):
                with contextlib.suppress(urllib.error.HTTPError):  # it ended meanwhile
                    self.request(f"/api/{kind}/{item['id']}", "DELETE")

    def write_setting(self, plugin: str, values: dict[str, Any]) -> None:
        """A JupyterLab setting, for pages opened from now on."""
        package, _, name = plugin.partition(":")
        file = self.home / "settings" / package / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))

    def add_kernel(self, name: str, ipykernel_version: str, cache: Path) -> str:
        """A kernel of this environment but with that ipykernel, kept in the folder `cache`. Returns the name."""
        folder = install_ipykernel(ipykernel_version, cache / f"ipykernel-{ipykernel_version}")
        path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._write_kernelspec(name, {"PYTHONPATH": os.pathsep.join(path)})
        return name

    def _write_kernelspec(self, name: str, environment: dict[str, str]) -> None:
        folder = self.home / "share" / "kernels" / name
        folder.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": name, "language": "python", "env": environment}
        (folder / "kernel.json").write_text(json.dumps(spec))

    def add_notebook(self, cells: Iterable[Any], kernel: str = DEFAULT_KERNEL) -> Path:
        """A notebook under a name of its own: one of the same name as an earlier one would get its kernel."""
        return write_notebook(self._new_path(), cells, kernel)

    def copy_notebook(self, path: Path, kernel: str | None = None) -> Path:
        """Another user's notebook comes here, without its signature; it may ask for another kernel."""
        notebook = nbformat.read(path, as_version=4)
        if kernel is not None:
            notebook.metadata["kernelspec"] = _name_kernel(kernel)
            # else the only kernel of that language would start in the place of one that is missing
            notebook.metadata.pop("language_info", None)
        copy = self._new_path()
        nbformat.write(notebook, copy)
        return copy

    def _new_path(self) -> Path:
        return self.root / f"{uuid.uuid4().hex}.ipynb"

    def export_html(self, path: Path) -> Path:
        """`jupyter nbconvert --to html`. Returns the HTML file."""
        command = [sys.executable, "-m", "nbconvert", "--to", "html", str(path)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"nbconvert failed: {done.stderr}")
        return path.with_suffix(".html")
