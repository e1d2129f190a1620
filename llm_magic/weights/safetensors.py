"""A Hugging Face folder's weights: one safetensors file, or shards named by an index."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from llm_magic.errors import ModelFileError
from llm_magic.text.tokenizer import read_json

_INDEX = "model.safetensors.index.json"
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class SafetensorsFolder:
    """The tensors of a folder, opened together and closed together; `shapes` by tensor name.

    Only safetensors are read: a pickle in the folder is left alone.
    """

    def __init__(self, path: Path):
        self.path = path
        self.files = _find_files(path)
        self.n_bytes = sum(file.stat().st_size for file in self.files)
        self._stack = ExitStack()

    def __enter__(self) -> SafetensorsFolder:
        from safetensors import SafetensorError, safe_open

        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file_of, dtypes = {}, {}
        try:
            for path in self.files:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
                for name in file.keys():
                    if name in self._file_of:
                        raise ModelFileError(
                            f"the tensor {name!r} stands in two files of {self.path}", "fetch it again"
                        )
                    entry = file.get_slice(name)
                    self._file_of[name], self.shapes[name] = file, tuple(entry.get_shape())
                    dtypes[entry.get_dtype()] = dtypes.get(entry.get_dtype(), 0) + 1
        except SafetensorError as error:
            self._stack.close()
            raise ModelFileError(f"{path} is damaged or incomplete ({error})", "fetch the file again") from None
        except BaseException:
            self._stack.close()
            raise
        self.format = max(dtypes, key=dtypes.get, default="")
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def read(self, name: str) -> Tensor:
        """One tensor, as it is stored."""
        tensor = self._file_of[name].get_tensor(name)
        if tensor.dtype not in _DTYPES.values():
            raise ModelFileError(
                f"the tensor {name!r} is of type {tensor.dtype}", f"use a model in one of {', '.join(_DTYPES)}"
            )
        return tensor


def _find_files(path: Path) -> list[Path]:
    single = path / "model.safetensors"
    if single.is_file():
        return [single]
    shards = read_json(path / _INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelFileError(
            f"{path} has neither model.safetensors nor {_INDEX}",
            "only safetensors are read, never pickles; fetch the model with its safetensors",
        )
    files = []
    for name in sorted(set(map(str, shards.values()))):
        file = path / name
        # an index is foreign text: a shard outside the folder is refused
        if Path(name).name != name:
            raise ModelFileError(
                f"{path / _INDEX} names the shard {name!r} outside its folder", "do not use this model"
            )
        if not file.is_file():
            raise ModelFileError(
                f"the shard {name!r} of {path} is missing", "fetch the model again, with all its files"
            )
        files.append(file)
    return files
