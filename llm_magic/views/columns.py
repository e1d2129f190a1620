"""Several generations side by side."""

from __future__ import annotations

from collections.abc import Sequence

from llm_magic.generation import Generation, Prompt, Samples, Token
from llm_magic.views import answer
from llm_magic.views.safe import escape_text

# columns that wrap where the page is narrow
_FRAME = "display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start"
_COLUMN = "flex:1 1 16em;min-width:0"
_NAME = "font-size:smaller;opacity:0.7"

Run = tuple[Prompt, Sequence[Token]]


def name_sample(generation: Generation) -> str:
    """A sample's heading."""
    return f"sample {generation.sample}"


def describe_samples(samples: Samples) -> str:
    """Their speed together: they were decoded at the same time."""
    n_tokens, seconds = sum(len(g.tokens) for g in samples), max(g.decode_ms for g in samples) / 1000
    return f"{len(samples)} samples · {n_tokens} tokens" + (
        f" · {n_tokens / seconds:.0f} tokens/s together" if seconds else ""
    )


def render_text(samples: Samples, notes: Sequence[str] = ()) -> str:
    """One below the other, each under its heading."""
    parts = [f"{name_sample(g)}\n{answer.render_text(g)}" for g in samples]
    return "\n".join([*parts, *(f"[{answer.show_controls(note)}]" for note in (describe_samples(samples), *notes))])


def render_html(samples: Samples, notes: Sequence[str] = ()) -> str:
    """HTML without script: a column for each."""
    columns = [(name_sample(g), answer.render_html(g)) for g in samples]
    return render_columns(columns) + answer.render_lines([describe_samples(samples), *notes])


def render_running_text(runs: Sequence[Run]) -> str:
    """What there is while they stream."""
    texts = ["".join(token.text for token in tokens) for _, tokens in runs]
    return "\n".join(f"sample {i}\n{answer.show_controls(text)}" for i, text in enumerate(texts))


def render_running_html(runs: Sequence[Run]) -> str:
    """The same in columns."""
    return render_columns([(f"sample {i}", answer.render_running_html(*run)) for i, run in enumerate(runs)])


def render_columns(columns: Sequence[tuple[str, str]]) -> str:
    """Headings and what stands below them, side by side."""
    cells = [
        f'<div style="{_COLUMN}"><div style="{_NAME}">{escape_text(name)}</div>{html}</div>' for name, html in columns
    ]
    return f'<div style="{_FRAME}">{"".join(cells)}</div>'
