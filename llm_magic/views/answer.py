"""A generation or a score: its text tinted token by token, alternatives on hover, a line of figures below."""

from __future__ import annotations

from collections.abc import Sequence

from llm_magic.generation import Generation, Prompt, Score, Token
from llm_magic.views.heat import tint_ansi, tint_style
from llm_magic.views.safe import escape_lines, escape_text, show_controls, show_spaces

TITLE_ALTERNATIVES = 5
STYLE = "white-space:pre-wrap;line-height:1.6"
STATUS_STYLE = "font-size:85%;opacity:0.75;margin-top:4px"
CONTINUED_CHARACTERS = 500
_WRONG = "border-bottom:2px dashed rgba(211,47,47,1)"
ENDINGS = {"stop": "", "length": "stopped at the length limit", "interrupted": "interrupted"}


def status_parts(value: Generation | Score, is_running: bool = False) -> list[str]:
    """The figures of the line below an answer."""
    if isinstance(value, Score):
        return [
            value.model,
            f"{len(value.tokens):,} tokens",
            f"perplexity {value.perplexity:.2f}" if value.perplexity else "nothing to score",
            f"logprob {value.total_logprob:.2f}",
        ]
    s, rate = value.sampling, value.tokens_per_second
    parts = [value.model, f"{len(value.tokens):,} tokens"]
    if rate:
        parts.append(f"{rate:.0f} tokens/s")
    parts.append(f"seed {s.seed}")
    parts.append(f"context {value.context_used:,} of {value.prompt.context_tokens:,}")
    parts.append(describe_sampling(value))
    if is_running:
        return parts if value.tokens else [value.model, f"reading {len(value.prompt.ids):,} tokens"]
    ending = ENDINGS[value.finish_reason]
    if value.prompt.form is not None:
        kind = value.prompt.form.kind
        parts.append(f"{kind}: complete" if value.finish_reason == "stop" else f"{kind}: cut off, no value")
    if ending and value.finish_reason == "interrupted":
        ending += ": %llm continue goes on"
    return [*parts, ending] if ending else parts


def status_lines(value: Generation | Score, notes: Sequence[str] = ()) -> list[str]:
    """The line of figures, a line for each problem of code, and the notes."""
    return [" · ".join(status_parts(value)), *problem_lines(value), *notes]


def problem_lines(value: Generation | Score) -> list[str]:
    """What was found wrong with code, a line each."""
    return [f"line {problem.line}: {problem.text}" for problem in getattr(value, "problems", ())]


def find_marked(value: Generation | Score) -> dict[int, str]:
    """The tokens of code that is wrong, by their indexes, and what is wrong."""
    marked: dict[int, str] = {}
    for problem in getattr(value, "problems", ()):
        at = 0
        for index, token in enumerate(value.tokens):
            if at < max(problem.end, problem.start + 1) and problem.start < at + len(token.text):
                marked[index] = f"{marked[index]}; {problem.text}" if index in marked else problem.text
            at += len(token.text)
    return marked


def describe_sampling(value: Generation) -> str:
    """The settings that shape the choice, those that are off left out."""
    s = value.sampling
    if s.temperature == 0:
        parts = ["greedy"]
    else:
        parts = [f"temperature {s.temperature:g}"]
        parts += [f"top-k {s.top_k}"] * (s.top_k > 0) + [f"top-p {s.top_p:g}"] * (s.top_p < 1)
        parts += [f"min-p {s.min_p:g}"] * (s.min_p > 0)
    return ", ".join(parts + [f"repetition penalty {s.repetition_penalty:g}"] * (s.repetition_penalty != 1))


def continued_text(prompt: Prompt) -> str:
    """What a raw continuation goes on from, its end where it is long; empty for an answer."""
    if prompt.mode != "text":
        return ""
    return prompt.text if len(prompt.text) <= CONTINUED_CHARACTERS else "…" + prompt.text[-CONTINUED_CHARACTERS:]


def render_text(value: Generation | Score, notes: Sequence[str] = ()) -> str:
    """Plain text: the answer (behind the text that it continues), and its line of figures."""
    before = continued_text(value.prompt) if isinstance(value, Generation) else ""
    return f"{show_controls(before + value.text)}\n{render_status(value, notes)}"


def render_status(value: Generation | Score, notes: Sequence[str] = ()) -> str:
    """The line of figures, then a line for each note."""
    return "\n".join(show_controls(f"[{line}]") for line in status_lines(value, notes))


def render_ansi(token: Token) -> str:
    """One token for a terminal, tinted."""
    return tint_ansi(show_controls(token.text), token.probability)


def render_plain(token: Token) -> str:
    """One token for a terminal without colours."""
    return show_controls(token.text)


def render_html(value: Generation | Score, notes: Sequence[str] = ()) -> str:
    """HTML without script: tokens tinted, alternatives in each one's title."""
    marked = find_marked(value)
    spans = "".join(render_token(token, marked.get(index, "")) for index, token in enumerate(value.tokens))
    if isinstance(value, Generation):
        spans = _render_continued(value.prompt) + spans + (_render_end(value.end) if value.end else "")
    return f'<div style="{STYLE}">{spans}</div>{render_lines(status_lines(value, notes))}'


def render_lines(lines: Sequence[str]) -> str:
    """Small print below a picture."""
    return f'<div style="{STATUS_STYLE}">{"<br>".join(map(escape_text, lines))}</div>' if lines else ""


def render_running_html(prompt: Prompt, tokens: Sequence[Token]) -> str:
    """What is there while it streams: tints, no alternatives, so that updates stay small."""
    spans = [_render_continued(prompt)]
    for token in tokens:
        style = tint_style(token.probability)
        spans.append(f'<span style="{style}">{escape_lines(token.text)}</span>' if style else escape_lines(token.text))
    return f'<div style="{STYLE}">{"".join(spans)}▏</div>'


def _render_continued(prompt: Prompt) -> str:
    text = continued_text(prompt)
    return f'<span style="opacity:0.6">{escape_lines(text)}</span>' if text else ""


def render_token(token: Token, problem: str = "") -> str:
    """One token: tinted, its alternatives in the title; underlined in red where code is wrong."""
    if not token.text:  # a part of a character that a later token completes
        return ""
    style = _WRONG if problem else tint_style(token.probability)
    style = f' style="{style}"' if style else ""
    title = f"{problem}\n{describe_token(token)}" if problem else describe_token(token)
    return f'<span title="{escape_text(title)}"{style}>{escape_lines(token.text)}</span>'


def _render_end(token: Token) -> str:
    return f'<span title="{escape_text(describe_token(token))}" style="opacity:0.5">■</span>'


def describe_token(token: Token) -> str:
    """A token and what else could have stood there, a line each."""
    name = show_spaces(token.text) if token.text else "end of turn"
    if token.logprob is None:
        return f"{name}  (nothing stands before it)"
    lines = [f"{name}  {percent(token.probability)}  rank {token.rank}  entropy {token.entropy:.2f} nats"]
    if token.constrained_probability is not None:
        lines.append(f"{percent(token.constrained_probability):>7}  of what the form allows")
    lines += [
        f"{percent(other.probability):>7}  {show_spaces(other.text)}"
        for other in token.alternatives[:TITLE_ALTERNATIVES]
    ]
    return "\n".join(lines)


def percent(probability: float) -> str:
    """
    >>> percent(0.7706), percent(0.00042), percent(1e-9)
    ('77.1 %', '0.04 %', '<0.01 %')
    """
    if probability >= 0.001:
        return f"{100 * probability:.1f} %"
    return f"{100 * probability:.2f} %" if probability >= 0.0001 else "<0.01 %"


def render_probabilities_text(value: Generation | Score) -> str:
    """A table with a row for each token: probability, rank, entropy and the best alternatives."""
    has_form = any(token.constrained_logprob is not None for token in value.tokens)
    lines = [f"{'token':<16}{'p':>9}{'in form':>9}"[: 34 if has_form else 25] + f"{'rank':>7}{'nats':>7}  alternatives"]
    for token in value.tokens:
        name = show_spaces(token.text or repr(token.bytes)[2:-1])
        if token.logprob is None:
            lines.append(f"{name:<16}{'–':>9}")
            continue
        others = "  ".join(
            f"{show_spaces(a.text)} {percent(a.probability)}" for a in token.alternatives[:TITLE_ALTERNATIVES]
        )
        allowed = token.constrained_probability
        inside = f"{'' if allowed is None else percent(allowed):>9}" if has_form else ""
        figures = f"{percent(token.probability):>9}{inside}{token.rank:>7}{token.entropy:>7.2f}"
        lines.append(f"{name:<16}{figures}  {others}")
    return "\n".join(lines)


def render_probabilities_html(value: Generation | Score) -> str:
    """The same as a table."""
    has_form = any(token.constrained_logprob is not None for token in value.tokens)
    rows = []
    for token in value.tokens:
        name = escape_text(show_spaces(token.text or repr(token.bytes)[2:-1]))
        if token.logprob is None:
            rows.append(f"<tr><td>{name}</td></tr>")
            continue
        others = " · ".join(
            f"{escape_text(show_spaces(a.text))} {percent(a.probability)}"
            for a in token.alternatives[:TITLE_ALTERNATIVES]
        )
        rows.append(
            f'<tr><td style="text-align:left;{tint_style(token.probability)}">{name}</td>'
            f'<td style="white-space:nowrap">{percent(token.probability)}</td>{_render_allowed(token, has_form)}'
            f'<td>{token.rank}</td><td>{token.entropy:.2f}</td><td style="text-align:left">{others}</td></tr>'
        )
    allowed = "<th>in form</th>" if has_form else ""
    head = f"<tr><th>token</th><th>p</th>{allowed}<th>rank</th><th>entropy, nats</th><th>alternatives</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _render_allowed(token: Token, has_form: bool) -> str:
    if not has_form:
        return ""
    probability = token.constrained_probability
    return f'<td style="white-space:nowrap">{"" if probability is None else percent(probability)}</td>'
