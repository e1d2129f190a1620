"""One tree of errors: each says what happened, with which value, and what to do."""

from llm_magic.visible import show_controls


class LLMError(Exception):
    """What a user can cause and cure; shown as one line, never as a traceback.

    >>> print(LLMError("top_p is 1.4", "give a value in (0, 1]"))
    top_p is 1.4: give a value in (0, 1]
    """

    def __init__(self, problem: str, fix: str = ""):
        self.problem, self.fix = problem, fix
        line = f"{problem}: {fix}" if fix else problem
        super().__init__(show_controls(" ".join(line.split())))


class OptionError(LLMError):
    """An option, verb or argument that cannot be used as given."""


class ModelNotFound(LLMError):
    """No model of that name here, and none that could be fetched."""


class ModelFileError(LLMError):
    """A weights file that is damaged, incomplete, or of a kind that is not read."""


class DownloadError(LLMError):
    """Fetching a model failed, or what came is not what was asked for."""


class ContextOverflow(LLMError):
    """The prompt has more tokens than the model's context."""


class TemplateError(LLMError):
    """The model's chat template cannot be used with these messages."""


class NumericError(LLMError):
    """The model's logits are not numbers; what was generated before is kept."""


class GenerationInterrupted(KeyboardInterrupt):
    """The user stopped a generation; what was there by then is in `generation`."""

    def __init__(self, generation, what: str = "generation interrupted"):
        self.generation = generation
        super().__init__(f"{what}: the partial result is in .generation")


def nearest(word: str, known, limit: int = 3) -> str:
    """The known words most like `word`, for the end of an error message.

    >>> nearest("temprature", ["temperature", "top-k", "seed"])
    'temperature'
    """
    import difflib

    known = list(dict.fromkeys(known))
    close = difflib.get_close_matches(word, known, limit, cutoff=0.5)
    return ", ".join(close or known[:limit])
