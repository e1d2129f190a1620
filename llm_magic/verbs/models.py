"""Models: which there are, fetching, loading, looking at one, and freeing their memory."""

from __future__ import annotations

from llm_magic.generation import KnownModel, ModelInfo, ModelTable
from llm_magic.grammar import MODEL, OUT, QUIET, TAKES_MODEL, TAKES_NOTHING, Command, Verb
from llm_magic.notebook import Notebook
from llm_magic.screens import Screen


def models(notebook: Notebook, command: Command, screen: Screen) -> ModelTable:
    """The models that have a name, and where they are."""
    from llm_magic.weights import store

    rows = []
    for name in dict.fromkeys([*store.local_names(), *filter(None, notebook.models)]):
        is_default = name == store.DEFAULT
        is_loaded = name in notebook.models or (is_default and "" in notebook.models)
        is_here = not is_default or store.default_path().is_file()
        where = "loaded" if is_loaded else "here" if is_here else "to be fetched"
        rows.append(KnownModel(name, where, f"{store.DEFAULT_MODEL.note} (the default)" if is_default else ""))
    table = ModelTable(tuple(rows))
    screen.show(table, ("-m also takes a .gguf file or a folder; %llm pull OWNER/NAME fetches from a model hub",))
    return table


def pull(notebook: Notebook, command: Command, screen: Screen) -> None:
    """Fetch a model by its name."""
    from llm_magic.weights import store

    found = screen.track(f"fetching {command.text or store.DEFAULT}", store.fetch(command.text or None))
    screen.say(f"{found.name} is here: {found.path}")


def load(notebook: Notebook, command: Command, screen: Screen) -> ModelInfo:
    """Load a model, and use it from now on."""
    llm = notebook.model(command.text or None, screen.track)
    notebook.default_model = command.text or notebook.default_model
    screen.show(llm.info)
    return llm.info


def info(notebook: Notebook, command: Command, screen: Screen) -> ModelInfo:
    """The figures of a model."""
    value = notebook.model(command.options.get("model"), screen.track).info
    screen.show(value)
    return value


def unload(notebook: Notebook, command: Command, screen: Screen) -> None:
    """Free the memory of all models."""
    names = notebook.unload()
    screen.say(f"unloaded {', '.join(names)}" if names else "no model is loaded")


VERBS = (
    Verb("models", TAKES_NOTHING, "the models that have a name, and where they are", models, (OUT, QUIET)),
    Verb("pull", TAKES_MODEL, "fetch a model: the default, or OWNER/NAME of a model hub", pull, (QUIET,)),
    Verb("load", TAKES_MODEL, "load a model, and use it from now on", load, (OUT, QUIET)),
    Verb("info", TAKES_NOTHING, "parameters, memory, format and file of a model", info, (MODEL, OUT, QUIET)),
    Verb("unload", TAKES_NOTHING, "free the memory of all models", unload, (QUIET,)),
)
