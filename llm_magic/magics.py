"""What the user types: `%llm` and `%%llm` are read, carried out and shown."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError
from IPython.core.inputtransformer2 import cell_magic
from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand
from traitlets import Bool, Float, Int, Unicode

import llm_magic.views  # noqa: F401  the values get their faces
from llm_magic.completion import complete
from llm_magic.errors import LLMError
from llm_magic.generation import Distribution, Generation, Prompt, Sampling, Score
from llm_magic.grammar import Command, read_command
from llm_magic.inputs import call_prompts
from llm_magic.interpolate import interpolate
from llm_magic.notebook import Notebook
from llm_magic.screens import NotebookScreen, QuietScreen, Screen, TerminalScreen
from llm_magic.verbs import VERBS
from llm_magic.verbs.generate import run_prompt
from llm_magic.verbs.help import describe_all

_DEFAULTS = Sampling()


@magics_class
class LLMMagics(Magics):
    """Defaults of `%llm`, for one notebook or, in a profile, for all."""

    model = Unicode("", help="A name, a .gguf file or a folder; empty for the default model.").tag(config=True)
    system = Unicode("", help="The system text of answers; empty for the model's own.").tag(config=True)
    temperature = Float(_DEFAULTS.temperature, help="0 takes the best token always.").tag(config=True)
    top_k = Int(_DEFAULTS.top_k, help="Keep the k best tokens; 0 is off.").tag(config=True)
    top_p = Float(_DEFAULTS.top_p, help="Keep the best tokens that reach p together; 1 is off.").tag(config=True)
    min_p = Float(_DEFAULTS.min_p, help="Drop tokens less likely than p times the best; 0 is off.").tag(config=True)
    repetition_penalty = Float(_DEFAULTS.repetition_penalty, help="Above 1 avoids what occurs.").tag(config=True)
    max_tokens = Int(_DEFAULTS.max_tokens, help="End after so many tokens.").tag(config=True)
    seed = Int(_DEFAULTS.seed, help="The same seed gives the same tokens.").tag(config=True)
    stream = Bool(True, help="Show answers while they are made.").tag(config=True)
    probs = Bool(False, help="Add a table of each token's probability to every answer.").tag(config=True)

    def __init__(self, shell):
        super().__init__(shell=shell)
        self.notebook = Notebook()
        self._was_interrupted = False  # in the running cell

    @needs_local_scope
    @no_var_expand
    @line_cell_magic
    def llm(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None):
        namespace = self.shell.user_ns | (local_ns or {})
        if self._was_interrupted:  # one interrupt ends a loop of prompts: the one that it hit keeps its text
            raise KeyboardInterrupt("the generation before was interrupted")
        self.notebook.shown = None
        try:
            result = self._carry_out(
                read_command(line, cell, VERBS), namespace, is_empty=not line.strip() and cell is None
            )
        except LLMError as error:
            raise UsageError(str(error)) from None
        return result

    def _carry_out(self, command: Command, namespace: dict[str, Any], is_empty: bool):
        self._take_defaults()
        if is_empty:
            command = Command(VERBS["help"], "")
        options = dict(command.options)
        if not self.stream:
            options.setdefault("no_stream", True)
        if self.probs and "probs" in {option.name for option in (command.verb or VERBS["ask"]).options}:
            options.setdefault("probs", True)
        text, put_in = command.text, ()
        if not options.get("raw"):
            text, put_in = interpolate(text, namespace)
        notes = command.notes + ((f"put in: {', '.join(put_in)}",) if put_in else ())
        screen = self._screen(options.get("quiet", False))
        run = command.verb.run if command.verb else run_prompt
        result = run(self.notebook, Command(command.verb, text, options, notes), screen)
        self.model = self.notebook.default_model or ""
        return self._keep(result, options)

    def _keep(self, result, options: dict[str, Any]):
        """Bind the result where the user wants it, and remember that it was shown."""
        if isinstance(result, Generation) and result.finish_reason == "interrupted":
            self._was_interrupted = True
        if isinstance(result, (Generation, Score, Distribution)):
            self.shell.user_ns["_llm"] = result
        if (name := options.get("out")) is not None:
            self.shell.user_ns[name] = result
        if options.get("quiet") and not isinstance(result, Prompt):
            return result
        self.notebook.shown = result
        return result

    def begin_cell(self, info=None) -> None:
        """What is remembered of a cell ends with it."""
        self.notebook.shown, self._was_interrupted = None, False

    def _take_defaults(self) -> None:
        self.notebook.default_model = self.model or None
        self.notebook.system = self.system or None
        self.notebook.defaults = Sampling(
            repetition_penalty=self.repetition_penalty,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            max_tokens=self.max_tokens,
            seed=self.seed,
        )

    def _screen(self, is_quiet: bool) -> Screen:
        has_kernel = getattr(self.shell, "kernel", None) is not None
        screen = NotebookScreen() if has_kernel else TerminalScreen()
        return QuietScreen(screen) if is_quiet else screen


LLMMagics.llm.__doc__ = describe_all(VERBS)


class Hooks:
    """What the extension puts into a shell, and takes out again."""

    def __init__(self, shell):
        self.shell = shell
        self.magics = LLMMagics(shell)

    def install(self) -> None:
        shell = self.shell
        shell.register_magics(self.magics)
        shell.configurables.append(self.magics)
        transforms = shell.input_transformer_manager.line_transforms
        transforms.insert(transforms.index(cell_magic) + 1, call_prompts)
        shell.display_trap.hook = self.display
        shell.events.register("pre_run_cell", self.magics.begin_cell)
        for word in ("%llm", "%%llm"):
            shell.set_hook("complete_command", self.complete, str_key=word)

    def remove(self) -> None:
        shell = self.shell
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop("llm", None)
        shell.configurables.remove(self.magics)
        shell.input_transformer_manager.line_transforms.remove(call_prompts)
        shell.display_trap.hook = shell.displayhook
        shell.events.unregister("pre_run_cell", self.magics.begin_cell)
        self.magics.notebook.unload()

    def display(self, result=None) -> None:
        """IPython's display hook, but for a result that its cell has just shown: that is only kept as `Out[n]`."""
        hook = self.shell.displayhook
        if result is None or result is not self.magics.notebook.shown:
            hook(result)
        elif not hook.quiet():
            hook.check_for_underscore()
            hook.update_user_ns(result)
            hook.fill_exec_result(result)

    def complete(self, shell, event) -> list[str]:
        """Candidates for Tab, as IPython's completer hook gives them."""
        from llm_magic.weights import store

        line = event.text_until_cursor if hasattr(event, "text_until_cursor") else event.line
        return complete(line.lstrip(), VERBS, store.local_names())


_HOOKS = "_llm_magic_hooks"


def load(shell) -> None:
    """Put the magic into a shell; a second time changes nothing."""
    if getattr(shell, _HOOKS, None) is None:
        hooks = Hooks(shell)
        hooks.install()
        setattr(shell, _HOOKS, hooks)


def unload(shell) -> None:
    """Take the magic out again, and free its models."""
    hooks = getattr(shell, _HOOKS, None)
    if hooks is not None:
        hooks.remove()
        setattr(shell, _HOOKS, None)
