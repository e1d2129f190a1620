"""Given answers weighed: a bar for each choice, whole answers ranked and tinted, a text made in parts."""

from __future__ import annotations

from llm_magic.choices import Choices, Ranking
from llm_magic.tasks import Parts
from llm_magic.views import answer
from llm_magic.views.answer import percent, render_lines
from llm_magic.views.bars import render_bar_html, render_bar_text
from llm_magic.views.safe import escape_text, show_controls, show_spaces


def render_choices_text(value: Choices) -> str:
    """A line for each choice, the most likely first."""
    width = max(len(show_spaces(choice.text)) for choice in value.choices)
    lines = [
        f"  {percent(choice.probability):>8}  {show_spaces(choice.text):<{width}}  "
        f"{render_bar_text(choice.probability)}".rstrip()
        for choice in value.ranked
    ]
    return "\n".join([*lines, f"[{show_controls(_status(value))}]"])


def render_choices_html(value: Choices) -> str:
    """A table without script, with what each choice's probability is among all texts."""
    rows = []
    for choice in value.ranked:
        tokens = f"{len(choice.ids)} token{'s' if len(choice.ids) > 1 else ''}"
        rows.append(
            f'<tr><td style="text-align:left"><code>{escape_text(show_spaces(choice.text))}</code></td>'
            f"<td>{percent(choice.probability)}</td><td>{render_bar_html(choice.probability)}</td>"
            f"<td>{percent(choice.free_probability)}</td><td>{tokens}</td></tr>"
        )
    head = "<tr><th>choice</th><th>p</th><th></th><th>free p</th><th></th></tr>"
    return f"<table>{head}{''.join(rows)}</table>{render_lines([_status(value)])}"


def _status(value: Choices) -> str:
    free = f"the model itself would begin with one of them at {percent(value.free_probability)}"
    return f"{value.model} · {value.label}: {percent(value.probability)} of these {len(value.choices)} · {free}"


def render_ranking_text(value: Ranking) -> str:
    """The answers, the most likely first, each with its figures."""
    lines = []
    for number, score in enumerate(value.scores, 1):
        lines += [f"{number}. {show_controls(score.text)}", f"   [{_figures(score)}]"]
    return "\n".join(lines)


def render_ranking_html(value: Ranking) -> str:
    """The same, each answer tinted token by token."""
    rows = "".join(
        f'<li style="{answer.STYLE}">{"".join(map(answer.render_token, score.tokens))}'
        f"{render_lines([_figures(score)])}</li>"
        for score in value.scores
    )
    return f"<div>{escape_text(value.question)}</div><ol>{rows}</ol>"


def _figures(score) -> str:
    n_tokens = len(score.tokens)
    return f"logprob {score.total_logprob:.2f} · {n_tokens} tokens · perplexity {score.perplexity:.2f}"


def render_parts_text(value: Parts) -> str:
    """The text as a whole, and how it was made."""
    return f"{show_controls(value.text)}\n[{show_controls(_made(value))}]"


def render_parts_html(value: Parts) -> str:
    """The same, tinted token by token."""
    spans = []
    for before, generation in zip(value.separators, value.generations, strict=True):
        spans.append(escape_text(before) + "".join(map(answer.render_token, generation.tokens)))
    return f'<div style="{answer.STYLE}">{"".join(spans)}</div>{render_lines([_made(value)])}'


def _made(value: Parts) -> str:
    n_tokens = sum(len(generation.tokens) for generation in value.generations)
    n_cut = sum(generation.finish_reason == "length" for generation in value.generations)
    cut = f" · {n_cut} cut at the length limit" if n_cut else ""
    return f"{value.generations[0].model} · {len(value)} parts, {n_tokens:,} tokens{cut}"
