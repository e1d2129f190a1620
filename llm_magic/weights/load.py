"""A file or a folder on disk to a decoder and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from llm_magic.engine.config import ModelConfig
from llm_magic.engine.linear import Weight, dense_dtype, native_kernels
from llm_magic.engine.model import Decoder, build_decoder
from llm_magic.errors import ModelFileError
from llm_magic.text.chat import ChatTemplate, template_from_folder
from llm_magic.text.tokenizer import Tokenizer, read_json, tokenizer_from_folder, tokenizer_from_gguf
from llm_magic.weights import names
from llm_magic.weights.gguf import read_gguf
from llm_magic.weights.quants import read_tensor
from llm_magic.weights.safetensors import SafetensorsFolder

Loading = Generator[float, None, "LoadedModel"]  # yields the share that is done, from 0 to 1


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """All that generation needs of a model. `format` names how most of its weights are stored."""

    name: str
    path: Path
    decoder: Decoder
    tokenizer: Tokenizer
    template: ChatTemplate | None
    format: str
    file_bytes: int
    license: str | None


def choose_device() -> torch.device:
    """CUDA where there is one, else the CPU. Apple's GPU lacks fp64, which sampling uses: not chosen yet."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(path: Path, name: str, device: torch.device | str | None = None) -> Loading:
    """Load a `.gguf` file, or a folder with `config.json` and safetensors."""
    device = choose_device() if device is None else torch.device(device)
    return (yield from (_load_folder if path.is_dir() else _load_gguf)(path, name, device))


def _load_gguf(path: Path, name: str, device: torch.device) -> Loading:
    file = read_gguf(path)
    with metadata_errors(path):
        tokenizer = tokenizer_from_gguf(file.metadata)
    stored = {names.hf_name_of(entry.name): entry for entry in file.tensors.values()}
    small = {n: read_tensor(file, e) for n, e in stored.items() if len(e.shape) == 1 or "embed_tokens" in n}
    others = dict.fromkeys(n for n in stored if n not in small)
    with metadata_errors(path):
        config = names.config_from_gguf(file.metadata, small | others)
    is_permuted = names.architecture_of(file.metadata["general.architecture"]).is_permuted

    def read(tensor_name: str) -> Weight:
        weight = small[tensor_name] if tensor_name in small else read_tensor(file, stored[tensor_name])
        part = tensor_name.rsplit(".", 2)[-2]
        if is_permuted and part in ("q_proj", "k_proj"):
            weight = names.unpermute_heads(weight, config.n_heads if part == "q_proj" else config.n_kv_heads)
        return as_computed(weight, device)

    shapes = {n: e.shape for n, e in stored.items()}
    decoder = yield from _build(config, _LazyWeights(shapes, read), device, tokenizer)
    counts: dict[str, int] = {}
    for entry in file.tensors.values():
        counts[entry.type.name] = counts.get(entry.type.name, 0) + entry.n_bytes
    special = {i: t for t, i in tokenizer.special.items()}
    source = file.metadata.get("tokenizer.chat_template")
    template = None
    if isinstance(source, str):
        with metadata_errors(path):
            ids = [file.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("bos", "eos")]
            template = ChatTemplate(source, *(special.get(i, "") for i in ids))
    license_name = file.metadata.get("general.license")
    return LoadedModel(
        name=name,
        path=path,
        decoder=decoder,
        tokenizer=tokenizer,
        template=template,
        format=f"GGUF {max(counts, key=counts.get)}",
        file_bytes=path.stat().st_size,
        license=license_name if isinstance(license_name, str) else None,
    )


def _load_folder(path: Path, name: str, device: torch.device) -> Loading:
    if not (path / "config.json").is_file():
        raise ModelFileError(f"{path} has no config.json", "give a folder with config.json and safetensors, or a .gguf")
    tokenizer = tokenizer_from_folder(path)
    with SafetensorsFolder(path) as folder:
        with metadata_errors(path):
            config = names.config_from_hf(read_json(path / "config.json"), folder.shapes)
        weights = _LazyWeights(folder.shapes, lambda n: as_computed(folder.read(n), device))
        decoder = yield from _build(config, weights, device, tokenizer)
    return LoadedModel(
        name=name,
        path=path,
        decoder=decoder,
        tokenizer=tokenizer,
        template=template_from_folder(path),
        format=f"safetensors {folder.format}",
        file_bytes=folder.n_bytes,
        license=None,
    )


@contextmanager
def metadata_errors(path: Path) -> Iterator[None]:
    """A file's metadata may hold anything: what stumbles over it is the file's fault, and said in one line."""
    try:
        yield
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ModelFileError(
            f"the metadata of {path} is not consistent ({type(error).__name__}: {error})", "fetch the model again"
        ) from None


def as_computed(weight: Weight, device: torch.device) -> Weight:
    """Dense weights in a precision that the device computes in: our kernels take all; PyTorch on a CPU lacks fp16."""
    if not isinstance(weight, torch.Tensor) or device.type != "cpu" or native_kernels(device) is not None:
        return weight
    is_fast = weight.dtype == torch.bfloat16 and dense_dtype(device) == torch.bfloat16
    return weight if is_fast else weight.float()


class _LazyWeights(Mapping):
    """Weights read when the decoder asks for them, so that no second copy of the file stands in memory."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Weight]):
        self.shapes, self._read = shapes, read

    def __getitem__(self, name: str) -> Weight:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def _build(
    config: ModelConfig, weights: _LazyWeights, device: torch.device, tokenizer: Tokenizer
) -> Generator[float, None, Decoder]:
    names.check_shapes(config, weights.shapes)
    if tokenizer.vocabulary_tokens > config.vocabulary_tokens:
        raise ModelFileError(
            f"the tokenizer has {tokenizer.vocabulary_tokens:,} tokens and the model {config.vocabulary_tokens:,}",
            "the files do not belong together; fetch the model again",
        )
    return (yield from build_decoder(config, weights, device))
