"""Messages to a prompt, through the model's own chat template, in Jinja's immutable sandbox.

A special token's text inside a message stays ordinary text: before the template sees a message,
a character that no message has is put into each such text; the tokenizer then recognises only
the special tokens that the template itself wrote, and takes the character out again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from llm_magic.errors import TemplateError
from llm_magic.generation import Message
from llm_magic.text.tokenizer import Tokenizer, check_text, choose_mark, read_json


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template's source, with the special texts it may name."""

    source: str
    bos_text: str = ""
    eos_text: str = ""


def render_chat(template: ChatTemplate, messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[str, str]:
    """The prompt that asks for the next answer, with special texts of the messages marked; and the mark."""
    for message in messages:
        check_text(message.content)
    mark = choose_mark(message.content for message in messages)
    plain = [{"role": m.role, "content": tokenizer.mark_special(m.content, mark)} for m in messages]
    try:
        text = _compile(template.source).render(
            messages=plain,
            add_generation_prompt=True,
            bos_token=template.bos_text,
            eos_token=template.eos_text,
            enable_thinking=False,
        )
    except TemplateError:
        raise
    except Exception as error:  # a template is foreign code: whatever it raises is its own fault
        raise TemplateError(f"the model's chat template fails on these messages ({error})", "use `text`") from None
    return text, mark


def template_from_folder(folder: Path) -> ChatTemplate | None:
    """From `chat_template.jinja` or `tokenizer_config.json`; None for a base model."""
    config = read_json(folder / "tokenizer_config.json")
    path = folder / "chat_template.jinja"
    source = path.read_text(encoding="utf-8") if path.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        return None
    return ChatTemplate(source, _text_of(config.get("bos_token")), _text_of(config.get("eos_token")))


def _text_of(token: object) -> str:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


@lru_cache(maxsize=8)
def _compile(source: str):
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message):
        raise TemplateError(f"the model's chat template refuses these messages ({message})")

    def to_json(value, indent=None, **_):
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)
