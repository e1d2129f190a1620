"""Models of a Hugging Face hub: the commit and the hashes of the first pull are kept, and checked ever after.

Only safetensors, GGUF and the JSON files beside them are fetched: no pickle, no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path

from llm_magic.errors import DownloadError, ModelFileError, ModelNotFound, nearest
from llm_magic.weights.watch import run_watched

_NAME = re.compile(r"[\w.-]+/[\w.-]+(/[\w./-]+\.gguf)?")
WANTED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
    "model.safetensors.index.json",
)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_DOWNLOAD = (
    "import sys; from huggingface_hub import snapshot_download, utils; utils.disable_progress_bars();"
    "print(snapshot_download(sys.argv[1], revision=sys.argv[2], allow_patterns=sys.argv[3:]))"
)


def is_hub_name(text: str) -> bool:
    """Whether a name is OWNER/NAME, or OWNER/NAME/FILE.gguf.

    >>> is_hub_name("HuggingFaceTB/SmolLM2-360M-Instruct"), is_hub_name("./model.gguf"), is_hub_name("smollm2")
    (True, False, False)
    """
    is_file = text.endswith(".gguf") and text.count("/") < 2
    return bool(_NAME.fullmatch(text)) and not text.startswith(".") and not is_file


def pull(name: str, cache: Path) -> Generator[float, None, Path]:
    """Fetch a model, at the commit of its first pull where there was one. Yields the share that is done.

    Returns the folder, or the `.gguf` file where the name has one.
    """
    import huggingface_hub
    from huggingface_hub import errors as hub_errors

    repository, file = _split(name)
    pin = _read_pin(name, cache)
    try:
        info = huggingface_hub.HfApi(endpoint=_endpoint()).model_info(
            repository, revision=pin.get("commit"), files_metadata=True, timeout=30
        )
    except hub_errors.GatedRepoError:
        raise DownloadError(
            f"the model {repository!r} asks for an agreement", "accept it on its page, then: hf auth login"
        ) from None
    except hub_errors.RepositoryNotFoundError:
        raise ModelNotFound(f"the hub has no model {repository!r}", "check the owner and the name") from None
    except Exception as error:  # whichever HTTP library the hub's client uses: no network
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise DownloadError(f"the hub does not answer ({reason})", "check the network, or give a model file") from None
    sizes = {s.rfilename: s.size or 0 for s in info.siblings}
    wanted = [f for f in sizes if (f == file if file else f in WANTED or _SHARD.fullmatch(f))]
    _check_wanted(repository, file, wanted, list(sizes))
    folder = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _DOWNLOAD, repository, info.sha, *wanted]
    status, said = yield from run_watched(command, dict(os.environ), folder, sum(sizes[f] for f in wanted))
    if status:
        raise DownloadError(f"fetching {name} failed ({said[-1][:200] if said else status})", "try again: it goes on")
    snapshot = Path(said[-1])
    expected = {s.rfilename: s.lfs.sha256 for s in info.siblings if s.lfs} | pin.get("sha256", {})
    hashes = {f: hash_file(snapshot / f) for f in wanted}
    for f, digest in hashes.items():
        if expected.get(f, digest) != digest:
            raise DownloadError(
                f"the file {f!r} of {name} has another SHA-256 than the hub tells", "delete it and pull again"
            )
    _write_pin(
        name, cache, {"commit": info.sha, "sha256": hashes, "seen": _stamps(snapshot, wanted), "path": str(snapshot)}
    )
    return snapshot / file if file else snapshot


def find(name: str, cache: Path) -> Path | None:
    """The place of a pulled model, if it is as it was pulled; a file that changed is hashed again."""
    pin = _read_pin(name, cache)
    snapshot = Path(pin.get("path", ""))
    if not pin or not snapshot.is_dir():
        return None
    stamps = _stamps(snapshot, pin["sha256"])
    for file, digest in pin["sha256"].items():
        if stamps[file] is None:
            return None
        if stamps[file] != pin["seen"].get(file) and hash_file(snapshot / file) != digest:
            raise ModelFileError(
                f"{snapshot / file} is not what was pulled: its SHA-256 changed", f"delete it, then: %llm pull {name}"
            )
    _, file = _split(name)
    return snapshot / file if file else snapshot


def pulled_names(cache: Path) -> list[str]:
    """Names of the models that were pulled."""
    return sorted(_read_json(path).get("name", "") for path in (cache / "pins").glob("*.json"))


def _endpoint() -> str | None:
    """The hub's address: HF_ENDPOINT, or the client's own default."""
    return os.environ.get("HF_ENDPOINT")


def _split(name: str) -> tuple[str, str | None]:
    owner, repository, *rest = name.split("/", 2)
    return f"{owner}/{repository}", rest[0] if rest else None


def _check_wanted(repository: str, file: str | None, wanted: list[str], there: list[str]) -> None:
    if file and not wanted:
        ggufs = [f for f in there if f.endswith(".gguf")]
        raise ModelNotFound(f"{repository} has no file {file!r}", f"the nearest are {nearest(file, ggufs or there)}")
    if not file and not any(f.endswith(".safetensors") for f in wanted):
        ggufs = [f"{repository}/{f}" for f in there if f.endswith(".gguf")]
        fix = f"pull one of its files: {', '.join(ggufs[:3])}" if ggufs else "only safetensors and GGUF are read"
        raise ModelNotFound(f"{repository} has no safetensors", fix)


def _pin_path(name: str, cache: Path) -> Path:
    return cache / "pins" / f"{name.replace('/', '--')}.json"


def _read_pin(name: str, cache: Path) -> dict:
    return _read_json(_pin_path(name, cache))


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_pin(name: str, cache: Path, pin: dict) -> None:
    path = _pin_path(name, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"name": name, **pin}, indent=1), encoding="utf-8")
    os.replace(partial, path)


def _stamps(folder: Path, files) -> dict[str, list[int] | None]:
    """Size and time of each file: while they stay, so does the hash."""
    stamps: dict[str, list[int] | None] = {}
    for file in files:
        try:
            status = (folder / file).stat()
            stamps[file] = [status.st_size, status.st_mtime_ns]
        except OSError:
            stamps[file] = None
    return stamps


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
