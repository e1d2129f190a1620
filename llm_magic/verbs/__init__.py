"""What can be asked of `%llm`, a theme a file: each verb is a row with its words, its options and its function."""

from llm_magic.grammar import Verb
from llm_magic.verbs import complete, generate, help, inside, keep, look, models, see, tasks

_ALL = (
    *generate.VERBS,
    *tasks.VERBS,
    *keep.VERBS,
    *see.VERBS,
    *look.VERBS,
    *inside.VERBS,
    *models.VERBS,
    *complete.VERBS,
    help.RESET,
)
VERBS: dict[str, Verb] = {verb.name: verb for verb in _ALL}
VERBS["help"] = help.make_help(VERBS)
