"""A language model inside the notebook kernel: generate, see every probability, look inside it, teach it."""

import warnings
from importlib import import_module

__version__ = "0.1.0"
__all__ = ["LLM", "LLMError", "Sampling", "load"]

_HOMES = {"load": "llm", "LLM": "llm", "LLMError": "errors", "Sampling": "generation"}


def __getattr__(name: str):
    """`load` and the rest come when they are asked for: importing the package loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():
        # torch says so on its import where numpy is not installed, which nothing here needs
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        import_module("llm_magic.views")
        return getattr(import_module(f"llm_magic.{_HOMES[name]}"), name)


def load_ipython_extension(shell) -> None:
    """`%load_ext llm_magic`"""
    import_module("llm_magic.magics").load(shell)


def unload_ipython_extension(shell) -> None:
    """`%unload_ext llm_magic`"""
    import_module("llm_magic.magics").unload(shell)
