"""What Tab offers behind `%llm`: verbs, options, and names of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llm_magic.grammar import GENERATING, TAKES_MODEL, TAKES_SWITCH, TAKES_VERB, Verb

MODEL_FLAGS = ("-m", "--model")


def complete(line: str, verbs: Mapping[str, Verb], model_names: Iterable[str]) -> list[str]:
    """Candidates for the last word of a line that begins with `%llm` or `%%llm`, up to the cursor.

    >>> from llm_magic.verbs import VERBS
    >>> complete("%llm co", VERBS, [])
    ['code', 'continue', 'complete']
    """
    words = line.lstrip("%").split(" ")
    current, before = words[-1], [word for word in words[1:-1] if word]
    verb = verbs.get(before[0]) if before else None
    if before and before[-1] in MODEL_FLAGS:
        candidates = model_names
    elif current.startswith("-"):
        options = verb.options if verb else GENERATING
        candidates = [flag for option in options for flag in option.flags]
    elif not before:
        candidates = verbs
    elif verb and verb.takes == TAKES_MODEL and len(before) == 1:
        candidates = model_names
    elif verb and verb.takes == TAKES_VERB and len(before) == 1:
        candidates = verbs
    elif verb and verb.takes == TAKES_SWITCH and len(before) == 1:
        candidates = ("on", "off")
    else:
        return []
    return [candidate for candidate in candidates if candidate.startswith(current)]
