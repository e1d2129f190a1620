"""Records of the history: a line for each."""

from __future__ import annotations

from llm_magic.history import Record
from llm_magic.records import Records
from llm_magic.views.safe import escape_text, show_controls

SHOWN_CHARACTERS = 70


def render_text(value: Records) -> str:
    """Number, time, model, question and answer, the newest last, as a terminal reads."""
    lines = []
    for record in reversed(value.records):
        question, answer = _shorten(record.question), _shorten(record.answer)
        lines += [f"{record.number:>5}  {record.at[:16].replace('T', ' ')}  {question}", f"{'':>25}{answer}"]
    return "\n".join([*map(show_controls, lines), f"[{_describe(value)}]"])


def render_html(value: Records) -> str:
    """The same as a table without script, the newest first."""
    rows = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape_text(cell)}</td>' for cell in _cells(record)) + "</tr>"
        for record in value.records
    )
    head = "<tr><th></th><th>when</th><th>model</th><th>asked</th><th>answered</th></tr>"
    return f"<table>{head}{rows}</table><div>{escape_text(_describe(value))}</div>"


def _cells(record: Record) -> tuple[str, ...]:
    asked = f"{record.verb} {record.question}".strip()
    return str(record.number), record.at[:16].replace("T", " "), record.model, _shorten(asked), _shorten(record.answer)


def _describe(value: Records) -> str:
    found = f" with {value.term!r}" if value.term else ""
    if not value.records:
        return f"nothing is remembered{found}"
    noun = "record" if len(value) == 1 else "records"
    return f"{len(value)} {noun}{found}; %llm history N shows one, %llm replay N runs it again"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"
