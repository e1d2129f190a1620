"""Ready-made prompts: explain, mend, summarise, translate; and long texts cut so that each part fits."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_magic import templates
from llm_magic.errors import OptionError
from llm_magic.faces import Shown
from llm_magic.interpolate import interpolate
from llm_magic.options import PromptOptions

if TYPE_CHECKING:
    from llm_magic.generation import Generation

SUMMARY_PART_TOKENS = 1200  # small models lose the thread of longer ones
SUMMARY_TOKENS = 120  # of each part, where a text goes through several passes
TRANSLATION_PART_TOKENS = 200
MAX_PASSES = 8

CountTokens = Callable[[str], int]


def ask_summary(text: str) -> str:
    return f"Summarize the following text in a few sentences.\n\n{text}"


def ask_translation(text: str, language: str) -> str:
    return f"Translate the following text to {language}. Answer with the translation and nothing else.\n\n{text}"


def ask_explanation(text: str, is_code: bool) -> str:
    """Of code, of a failure (code and its traceback), or of anything else."""
    if is_code:
        return f"Explain what the following Python code does.\n\n{_fence(text, 'python')}"
    return f"Explain the following in simple words.\n\n{text}"


def ask_why(code: str | None, failure: str) -> str:
    """Why code failed."""
    before = f"The following Python code fails.\n\n{_fence(code, 'python')}\n\n" if code else ""
    return f"{before}The error is:\n\n{_fence(failure)}\n\nExplain what the error means and how to correct it."


def ask_correction(code: str, failure: str | None) -> str:
    """The code again, without its mistakes."""
    reason = f"The error is:\n\n{_fence(failure)}\n\n" if failure else ""
    return (
        f"The following Python code has a mistake.\n\n{_fence(code, 'python')}\n\n{reason}"
        "Write the whole code again with the mistake corrected."
    )


def is_code(text: str) -> bool:
    """Whether a text is Python code rather than prose: it parses, and says more than a name.

    >>> is_code("print(1)"), is_code("Summer is warm."), is_code("recursion")
    (True, False, False)
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    plain = (ast.Name, ast.Constant, ast.Tuple, ast.Attribute)
    return any(not (isinstance(one, ast.Expr) and isinstance(one.value, plain)) for one in tree.body)


def _fence(text: str, language: str = "") -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


def read_saved(name: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A saved prompt (`%llm template`) with values in its holes, and its options as keywords of a prompt.

    Raises for a hole that gets no value. What belongs to a notebook is left out: chats, what is given, how it is shown.
    """
    saved = templates.load(name)
    text, put_in = interpolate(saved.text, values)
    options = {key: value for key, value in saved.options.items() if key in PromptOptions.__annotations__}
    options.pop("given", None)
    if "system" in options:
        options["system"], more = interpolate(options["system"], values)
        put_in = (*put_in, *more)
    templates.check_filled(saved, put_in)
    return text, ({"mode": saved.verb} if saved.verb else {}) | options


# where a text is best cut: between paragraphs, lines, sentences, words; else anywhere
_SEAMS = (r"(?<=\n)(?=[ \t]*\n)", r"(?<=\n)", r"(?<=[.!?…。！？])(?=\s)", r"(?<=\s)(?=\S)", r"(?<=.)(?=.)")


def split_text(text: str, limit_tokens: int, count_tokens: CountTokens) -> list[str]:
    """Parts of at most so many tokens each, cut where the sense allows; joined, they are the text.

    >>> split_text("One two. Three four.", 3, lambda text: len(text.split()))
    ['One two.', ' Three four.']
    """
    if limit_tokens < 1:
        raise OptionError(f"a part may have {limit_tokens} tokens", "leave room for at least one")
    return _split(text, limit_tokens, count_tokens, 0)


def _split(text: str, limit_tokens: int, count_tokens: CountTokens, depth: int) -> list[str]:
    if not text or depth == len(_SEAMS) or count_tokens(text) <= limit_tokens:
        return [text] if text else []
    parts: list[str] = []
    filled = limit_tokens + 1  # of the last part; too many for anything to join it
    for piece in filter(None, re.split(_SEAMS[depth], text)):
        n_tokens = count_tokens(piece)
        if n_tokens > limit_tokens:
            parts += _split(piece, limit_tokens, count_tokens, depth + 1)
            filled = limit_tokens + 1
        elif filled + n_tokens <= limit_tokens:
            parts[-1] += piece
            filled += n_tokens
        else:
            parts.append(piece)
            filled = n_tokens
    return parts


@dataclass(frozen=True)
class Parts(Shown):
    """A text that was made in parts, one generation each."""

    generations: tuple[Generation, ...]
    separators: tuple[str, ...]  # what stands before each part

    @property
    def text(self) -> str:
        pairs = zip(self.separators, self.generations, strict=True)
        return "".join(before + generation.text.strip() for before, generation in pairs).strip()

    @property
    def model(self) -> str:
        return self.generations[0].model

    def __str__(self) -> str:
        return self.text

    def __len__(self) -> int:
        return len(self.generations)

    def __getitem__(self, index):
        return self.generations[index]


def separators_of(parts: Sequence[str]) -> tuple[str, ...]:
    """The white space that stood before each part; a space where there was none between two.

    >>> separators_of(["One.\\n", "\\nTwo.", " Three."])
    ('', '\\n\\n', ' ')
    """
    separators, behind = [], ""
    for index, part in enumerate(parts):
        before = behind + part[: len(part) - len(part.lstrip())]
        separators.append(before if before or not index else " ")
        behind = part[len(part.rstrip()) :]
    return tuple(separators)


def condense(
    text: str,
    room_tokens: int,
    count_tokens: CountTokens,
    summarize: Callable[[Sequence[str]], Generator[float, None, list[str]]],
) -> Generator[float, None, str]:
    """A text cut down until it fits into so many tokens: its parts are summarised, and these summaries again.

    Yields the share that is done of the running pass.
    """
    for _ in range(MAX_PASSES):
        if count_tokens(text) <= room_tokens:
            return text
        parts = split_text(text, min(room_tokens, SUMMARY_PART_TOKENS), count_tokens)
        summaries = yield from summarize(parts)
        shorter = "\n\n".join(summary.strip() for summary in summaries)
        if count_tokens(shorter) >= count_tokens(text):
            raise OptionError("the summaries are no shorter than the text", "give a model that answers briefly")
        text = shorter
    raise OptionError(f"the text is too long for {MAX_PASSES} passes", "give a part of it")
