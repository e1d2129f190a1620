"""Models: the figures of one, and the list of those that have a name."""

from __future__ import annotations

import os
from pathlib import Path

from llm_magic.generation import ModelInfo, ModelTable
from llm_magic.views.safe import escape_text, show_controls


def info_rows(value: ModelInfo) -> list[tuple[str, str]]:
    """What is told of a model, in its order."""
    heads = f"{value.heads} query, {value.kv_heads} key/value"
    rows = [
        ("model", value.name),
        ("architecture", f"{value.architecture}, {'answers' if value.is_chat else 'continues texts'}"),
        ("parameters", f"{value.parameters:,}"),
        ("shape", f"{value.layers} layers of width {value.width}, heads: {heads}"),
        ("vocabulary", f"{value.vocabulary_tokens:,} tokens"),
        ("context", f"{value.context_tokens:,} tokens"),
        ("format", f"{value.format}, {value.file_bytes / 1e6:,.0f} MB on disk"),
        ("memory", f"{value.weights_bytes / 1e6:,.0f} MB weights, {value.cache_bytes / 1e6:,.0f} MB prefix cache"),
        ("device", value.device),
        ("file", _shorten(value.path)),
    ]
    if value.sha256:
        rows.append(("SHA-256", value.sha256))
    return rows + [("license", value.license)] if value.license else rows


def _shorten(path: str) -> str:
    """A path with `~` for the user's home, whose name has no place in a shared notebook."""
    home = str(Path.home())
    return "~" + path[len(home) :] if path.startswith(home + os.sep) else path


def render_info_text(value: ModelInfo) -> str:
    return "\n".join(show_controls(f"{name:<13} {text}") for name, text in info_rows(value))


def render_info_html(value: ModelInfo) -> str:
    return _table([(f"<b>{escape_text(name)}</b>", escape_text(text)) for name, text in info_rows(value)])


def render_models_text(value: ModelTable) -> str:
    width = max(len(model.name) for model in value.models)
    return "\n".join(show_controls(f"{m.name:<{width}}  {m.where:<12} {m.note}".rstrip()) for m in value.models)


def render_models_html(value: ModelTable) -> str:
    return _table([tuple(map(escape_text, (m.name, m.where, m.note))) for m in value.models])


def _table(rows: list[tuple[str, ...]]) -> str:
    cells = ("".join(f'<td style="text-align:left">{cell}</td>' for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
