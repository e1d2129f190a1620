"""Attention: every head as a thumbnail, one head large."""

from __future__ import annotations

from llm_magic.study.values import Attention
from llm_magic.views.answer import percent, render_lines
from llm_magic.views.png import render_png
from llm_magic.views.safe import escape_text, show_controls, show_spaces

THUMBNAIL = 24  # cells of a thumbnail's side, each the strongest of its tokens
GAP = 2
LABELLED_TOKENS = 24  # up to so many tokens a head is a table with their texts
LARGE_PX = 480


def render_text(value: Attention) -> str:
    """A line for each layer: where its heads look, as a mean."""
    lines = [f"{'layer':>5} {'first token':>12} {'the one before':>15} {'itself':>9}  head that looks elsewhere most"]
    for layer, heads in enumerate(value.measure_shares().tolist()):
        first, before, own = (sum(shares[i] for shares in heads) / len(heads) for i in range(3))
        elsewhere = [1 - sum(shares) for shares in heads]
        best = max(range(len(heads)), key=elsewhere.__getitem__)
        means = f"{percent(first):>12} {percent(before):>15} {percent(own):>9}"
        lines.append(f"{layer:>5} {means}  {best} ({percent(elsewhere[best])})")
    return "\n".join([*lines, show_controls(f"[{_status(value)}]")])


def render_html(value: Attention) -> str:
    """Thumbnails without script, layers as rows and heads as columns, then one head large."""
    layer, head = value.shown or _find_interesting(value)
    parts = [
        '<div style="display:flex;flex-wrap:wrap;gap:1.5em;align-items:flex-start">',
        f"<div>{_render_overview(value)}</div><div>{_render_head(value, layer, head)}</div></div>",
    ]
    return "".join(parts) + render_lines([_status(value), _hint(value)])


def _find_interesting(value: Attention) -> tuple[int, int]:
    """The head that looks elsewhere most: not at the first token, the one before, or itself."""
    elsewhere = [[1 - sum(shares) for shares in heads] for heads in value.measure_shares().tolist()]
    return max(
        ((layer, head) for layer in range(value.n_layers) for head in range(value.n_heads)),
        key=lambda place: elsewhere[place[0]][place[1]],
    )


def _render_overview(value: Attention) -> str:
    rows: list[bytes] = []
    for layer in range(value.n_layers):
        heads = [_shrink(weights) for weights in value.heads(layer)]
        rows += [bytes(GAP).join(lines) for lines in zip(*heads, strict=True)]
        rows += [bytes(len(rows[-1]))] * GAP
    described = f"{value.n_layers} layers as rows, {value.n_heads} heads as columns, each head's weights as a square"
    side = (len(rows[0]) - GAP * (value.n_heads - 1)) // value.n_heads
    return render_png(rows, described, len(rows[0]) * max(1, round(THUMBNAIL / side)))


def _shrink(weights) -> list[bytes]:
    """(T, T) to rows of at most THUMBNAIL bytes: of each cell the strongest weight, its square root as a byte."""
    n = weights.shape[-1]
    step = -(-n // THUMBNAIL)
    side = -(-n // step)
    padded = weights.new_zeros(side * step, side * step)
    padded[:n, :n] = weights
    strongest = padded.view(side, step, side, step).amax((1, 3))
    return _to_bytes(strongest)


def _to_bytes(weights) -> list[bytes]:
    return [bytes(row) for row in (255 * weights.sqrt()).round().int().tolist()]


def _render_head(value: Attention, layer: int, head: int) -> str:
    weights, n = value.head(layer, head), len(value.pieces)
    title = f"<div>layer {layer}, head {head} (key head {head * value.n_kv_heads // value.n_heads})</div>"
    if n > LABELLED_TOKENS:
        described = f"layer {layer}, head {head}: a row is a token that looks, a column one that is looked at"
        return title + render_png(_to_bytes(weights), described, LARGE_PX)
    names = [escape_text(show_spaces(piece)) for piece in value.pieces]
    columns = "".join(f'<th style="writing-mode:vertical-rl">{name}</th>' for name in names)
    rows = [
        f"<tr><th>{names[i]}</th>"
        + "".join(_render_weight(names[i], names[j], weight) for j, weight in enumerate(row[: i + 1]))
        + "</tr>"
        for i, row in enumerate(weights.tolist())
    ]
    return f"{title}<table><tr><th></th>{columns}</tr>{''.join(rows)}</table>"


def _render_weight(one: str, other: str, weight: float) -> str:
    style = f"background:rgba(70,130,220,{weight**0.5:.2f});min-width:1.2em"
    return f'<td title="{one} looks at {other}: {percent(weight)}" style="{style}"></td>'


def _status(value: Attention) -> str:
    return (
        f"{value.model} · {len(value.pieces)} tokens · {value.n_layers} layers of {value.n_heads} heads, "
        f"{value.n_kv_heads} of keys · {(value.queries.nbytes + value.keys.nbytes) / 1e6:,.0f} MB kept"
    )


def _hint(value: Attention) -> str:
    return "Rows look, columns are looked at; what comes later is masked. It tells where information moved, not why."
