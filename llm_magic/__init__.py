"""A language model inside the notebook kernel: generate, see every probability, look inside it, teach it."""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["LLM", "GenerationInterrupted", "LLMError", "Sampling", "load"]

_HOMES = {
    "LLM": "llm_magic.llm",
    "GenerationInterrupted": "llm_magic.errors",
    "LLMError": "llm_magic.errors",
    "Sampling": "llm_magic.generation",
    "load": "llm_magic.llm",
}


def __getattr__(name: str):
    """`load` and the rest come when they are asked for: importing the package loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module("llm_magic.widgets")  # the values get their faces
    return getattr(import_module(_HOMES[name]), name)


def load_ipython_extension(shell) -> None:
    """`%load_ext llm_magic`"""
    import_module("llm_magic.magics").load(shell)


def unload_ipython_extension(shell) -> None:
    """`%unload_ext llm_magic`"""
    import_module("llm_magic.magics").unload(shell)
