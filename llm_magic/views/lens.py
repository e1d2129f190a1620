"""The logit lens: what each layer would say, as a table of layers and positions."""

from __future__ import annotations

from llm_magic.study.values import Lens
from llm_magic.views.answer import percent, render_lines
from llm_magic.views.safe import escape_text, show_controls, show_spaces

SHOWN_POSITIONS = 12
_RGB = "70,130,220"
_HINT = "Each cell: what the layer would say behind the token above; bold: the target; tinted by probability."


def render_text(value: Lens) -> str:
    """The last position, a line for each layer, the last layer first."""
    column = len(value.positions) - 1
    texts = [show_spaces(row[column]) for row in value.top_texts]
    width = max(map(len, [*texts, "says"]))
    head = f"{'layer':>5}  {'says':<{width}} {'p':>8} {'KL':>7}  rank of {show_spaces(value.targets[column])}"
    lines = [f"behind {show_spaces(value.pieces[column])}", head]
    for layer in range(value.n_layers, -1, -1):
        p, kl = value.top_logprobs[layer, column, 0].exp().item(), value.kl[layer, column].item()
        rank = int(value.ranks[layer, column])
        lines.append(f"{layer:>5}  {texts[layer]:<{width}} {percent(p):>8} {kl:>7.2f}  {rank:,}")
    return "\n".join(show_controls(line) for line in [*lines, f"[{_status(value)}]"])


def render_html(value: Lens) -> str:
    """A table without script: the last positions as columns, layers as rows, tinted by how sure each layer is."""
    columns = range(max(0, len(value.positions) - SHOWN_POSITIONS), len(value.positions))
    head = "".join(f"<th><code>{escape_text(show_spaces(value.pieces[column]))}</code></th>" for column in columns)
    rows = []
    for layer in range(value.n_layers, -1, -1):
        name = {0: "embeddings", value.n_layers: f"{layer}: the output"}.get(layer, str(layer))
        cells = "".join(_render_cell(value, layer, column) for column in columns)
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    return f"<table><tr><th>layer</th>{head}</tr>{''.join(rows)}</table>{render_lines([_status(value), _HINT])}"


def _render_cell(value: Lens, layer: int, column: int) -> str:
    p, kl = value.top_logprobs[layer, column, 0].exp().item(), value.kl[layer, column].item()
    said, target = show_spaces(value.top_texts[layer][column]), show_spaces(value.targets[column])
    rank, chance = int(value.ranks[layer, column]), value.logprobs[layer, column].exp().item()
    title = f"{said}  {percent(p)}\nKL to the output {kl:.2f} nats\n{target}: rank {rank:,}, {percent(chance)}"
    weight = ";font-weight:bold" if rank == 1 else ""
    style = f"text-align:left;white-space:nowrap;background:rgba({_RGB},{0.6 * p:.2f}){weight}"
    return f'<td title="{escape_text(title)}" style="{style}">{escape_text(said)}</td>'


def _status(value: Lens) -> str:
    target, settled = show_spaces(value.targets[-1]), _settled_at(value, len(value.positions) - 1)
    where = "is not the output" if settled is None else f"leads from layer {settled} on"
    return f"{value.model} · {value.n_layers} layers · behind the last token, {target} {where}"


def _settled_at(value: Lens, column: int) -> int | None:
    """From which layer on the target stays the most likely token; None where it is not in the end."""
    layer = value.n_layers
    if int(value.ranks[layer, column]) != 1:
        return None
    while layer > 0 and int(value.ranks[layer - 1, column]) == 1:
        layer -= 1
    return layer
