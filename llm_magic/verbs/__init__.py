"""What can be asked of `%llm`, a theme a file: each verb is a row with its words, its options and its function."""

from llm_magic.grammar import Verb
from llm_magic.verbs import generate, help, look, models, see

VERBS: dict[str, Verb] = {v.name: v for v in (*generate.VERBS, *see.VERBS, *look.VERBS, *models.VERBS, help.RESET)}
VERBS["help"] = help.make_help(VERBS)
