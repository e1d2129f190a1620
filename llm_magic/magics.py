"""What the user types: `%llm` and `%%llm` are read, carried out and shown."""

from __future__ import annotations

import dataclasses
import re
import secrets
import sys
from typing import Any

from IPython.core.error import UsageError
from IPython.core.inputtransformer2 import cell_magic
from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand
from traitlets import Bool, Float, Int, List, Unicode

import llm_magic.widgets  # noqa: F401  the values get their faces
from llm_magic import templates
from llm_magic.completion import complete
from llm_magic.errors import LLMError
from llm_magic.generation import Sampling
from llm_magic.grammar import PROBS, SAMPLES, SAMPLING_OPTIONS, Command, read_command
from llm_magic.inputs import call_prompts
from llm_magic.interpolate import interpolate
from llm_magic.notebook import Notebook
from llm_magic.progress import follow_steps
from llm_magic.records import describe_result, open_history
from llm_magic.screens import NotebookScreen, QuietScreen, Screen, TerminalScreen
from llm_magic.verbs import VERBS
from llm_magic.verbs.generate import run_prompt
from llm_magic.verbs.help import describe_all

_DEFAULTS = Sampling()
_IPYTHONS = re.compile(r"exit|quit|open|get_ipython|In|Out|_{1,3}|_i{1,3}|_[iod]h|_i\d+")  # names of its own
_STEERING = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens", "seed"]


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
    stop = List(Unicode(), help="Texts that end a generation.").tag(config=True)
    seed = Int(_DEFAULTS.seed, help="The same seed gives the same tokens.").tag(config=True)
    fresh_seed = Bool(False, help="Take another seed for each prompt.").tag(config=True)
    samples = Int(1, help="Show so many answers side by side.").tag(config=True)
    stream = Bool(True, help="Show answers while they are made.").tag(config=True)
    live = Bool(True, help="Stream into a live view where a notebook's page is there.").tag(config=True)
    history = Bool(True, help="Keep prompts and answers in a file of yours: %llm history.").tag(config=True)
    probs = Bool(False, help="Add a table of each token's probability to every answer.").tag(config=True)

    def __init__(self, shell):
        super().__init__(shell=shell)
        self.notebook = Notebook(controls=self)
        self._is_history_lost = False
        self.observe(lambda change: self.notebook.steer(change["name"], change["new"]), _STEERING)

    @needs_local_scope
    @no_var_expand
    @line_cell_magic
    def llm(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None):
        notebook = self.notebook
        if notebook.was_interrupted:  # one interrupt ends a loop of prompts: the one that it hit keeps its text
            raise KeyboardInterrupt("the generation before was interrupted")
        notebook.shown, before = None, notebook.latest
        try:
            command = (
                read_command(line, cell, VERBS) if line.strip() or cell is not None else Command(VERBS["help"], "")
            )
            return self._carry_out(command, self._namespace(local_ns or {}))
        except LLMError as error:
            raise UsageError(str(error)) from None
        finally:
            if notebook.latest is not before:
                self.shell.user_ns["_llm"] = notebook.latest
                self._record(line if cell is None else f"{line}\n{cell}", notebook.latest)

    def _carry_out(self, command: Command, namespace: dict[str, Any]):
        """Run a command with the notebook's defaults, its names filled in; binds and returns its result."""
        options, saved = dict(command.options), None
        if "template" in options:
            saved = templates.load(options.pop("template"))
            text = "\n\n".join(filter(None, [saved.text, command.text]))
            options = saved.options | options
            command = Command(command.verb or VERBS.get(saved.verb), text, options, command.notes)
        verb, given = command.verb or VERBS["ask"], dict(options)
        self._take_defaults()
        if not self.stream:
            options.setdefault("no_stream", True)
        if self.probs and PROBS in verb.options:
            options.setdefault("probs", True)
        if self.samples > 1 and SAMPLES in verb.options and not {"choices", "insert"} & set(options):
            options.setdefault("samples", self.samples)
        text, put_in = command.text, ()
        if not options.get("raw"):
            text, put_in = interpolate(text, namespace)
            if "system" in options:
                options["system"], more = interpolate(options["system"], namespace)
                put_in = tuple(dict.fromkeys((*put_in, *more)))
        if saved is not None:
            templates.check_filled(saved, put_in)
        typed = dataclasses.replace(command, options=given)
        notes = command.notes + ((f"put in: {', '.join(put_in)}",) if put_in else ())
        run = command.verb.run if command.verb else run_prompt
        command = Command(command.verb, text, options, notes, namespace)
        result = run(self.notebook, command, self._screen(options.get("quiet", False)))
        self.model = self.notebook.default_model or ""
        if verb.run is run_prompt:
            self.notebook.latest_command, self.notebook.latest_put_in = typed, put_in
        if (name := options.get("out")) is not None:
            self.shell.user_ns[name] = result
        self.notebook.shown = result
        return result

    def _namespace(self, local_ns: dict[str, Any]) -> dict[str, Any]:
        """The user's variables, without what IPython put among them (`exit`, `open`, …) but for cells, as they were
        typed, and their results; and the last error."""
        shell, nothing = self.shell, object()
        error = {} if self.notebook.error is None else {"Err": self.notebook.error}
        cells = {"In": shell.history_manager.input_hist_raw, "Out": shell.user_ns.get("Out", {})}
        variables = shell.user_ns | local_ns  # `user_ns_hidden` also has what a startup file made
        hidden = {name for name in variables if _IPYTHONS.fullmatch(name)}
        own = {
            name: value
            for name, value in variables.items()
            if name not in hidden or shell.user_ns_hidden.get(name, nothing) is not value
        }
        return error | cells | own

    def begin_cell(self, info=None) -> None:
        """A cell runs; a notebook's page tells which."""
        kernel = getattr(self.shell, "kernel", None)
        metadata = kernel.get_parent("shell").get("metadata", {}) if kernel is not None else {}
        self.notebook.begin_cell(metadata.get("cellId"))

    def end_cell(self, result=None) -> None:
        """A cell has run; what it failed with is the last error, but for what was no more than mistyped."""
        error = getattr(result, "error_in_exec", None) or getattr(result, "error_before_exec", None)
        if error is not None and not isinstance(error, UsageError | KeyboardInterrupt):
            self.notebook.error, self.notebook.error_cell = error, getattr(result.info, "raw_cell", None)

    def _record(self, question: str, result: Any) -> None:
        """Keep a result in the history; that it cannot be kept is said once, and ends nothing."""
        if not self.history or self._is_history_lost:
            return
        llm = self.notebook.models.get(self.notebook.find_model(getattr(result, "model", "")))
        try:
            for fields in describe_result(result, question.strip(), "", llm.info.sha256 if llm else None):
                open_history().add(**fields)
        except LLMError as error:
            self._is_history_lost = True
            print(f"[the history is not kept: {error}]", file=sys.stderr)

    def _take_defaults(self) -> None:
        self.notebook.default_model = self.model or None
        self.notebook.system = self.system or None
        self.notebook.keeps_history = self.history
        names = [option.name for option in SAMPLING_OPTIONS]
        self.notebook.default_sampling = {name: getattr(self, name) for name in names}
        if self.fresh_seed:
            self.notebook.default_sampling["seed"] = secrets.randbelow(2**31)

    def _screen(self, is_quiet: bool) -> Screen:
        kernel = getattr(self.shell, "kernel", None)
        if kernel is None:
            screen = TerminalScreen()
        else:  # a notebook's page says more of a cell than a program that runs it and has nobody to see a widget
            has_page = bool(kernel.get_parent("shell").get("metadata"))
            screen = NotebookScreen(is_live=self.live and has_page)
        return QuietScreen(screen) if is_quiet else screen


LLMMagics.llm.__doc__ = describe_all(VERBS)


BRANCH_TARGET = "llm_magic.branch"  # of pages' comms
_COMPLETED = ("%llm", "%%llm")
_ASSIGNED = r"[^%]*=\s*%llm\s"  # x = %llm …


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
        if sys.displayhook is shell.displayhook:  # the cell that loads the extension is running
            sys.displayhook = self.display
        shell.events.register("pre_run_cell", self.magics.begin_cell)
        shell.events.register("post_run_cell", self.magics.end_cell)
        for word in _COMPLETED:
            shell.set_hook("complete_command", self.complete, str_key=word)
        shell.set_hook("complete_command", self.complete, re_key=_ASSIGNED)
        if kernel := getattr(shell, "kernel", None):
            kernel.comm_manager.register_target(BRANCH_TARGET, self.open_branch)
        self.magics.notebook.ghost = self._make_ghost()

    def remove(self) -> None:
        shell = self.shell
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop("llm", None)
        transforms = shell.input_transformer_manager.line_transforms
        for held, item in ((shell.configurables, self.magics), (transforms, call_prompts)):
            if item in held:
                held.remove(item)
        for word in _COMPLETED:
            shell.strdispatchers["complete_command"].strs.pop(word, None)
        shell.strdispatchers["complete_command"].regexs.pop(_ASSIGNED, None)
        shell.display_trap.hook = shell.displayhook
        if sys.displayhook == self.display:
            sys.displayhook = shell.displayhook
        shell.events.unregister("pre_run_cell", self.magics.begin_cell)
        shell.events.unregister("post_run_cell", self.magics.end_cell)
        if kernel := getattr(shell, "kernel", None):
            kernel.comm_manager.unregister_target(BRANCH_TARGET, self.open_branch)
        if self.magics.notebook.ghost is not None:
            self.magics.notebook.ghost.remove()
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

    def _make_ghost(self) -> Any:
        """Ghost text for this kind of shell, switched off; None where there can be none."""
        if kernel := getattr(self.shell, "kernel", None):
            from llm_magic.ghost.page import PageGhost

            return PageGhost(kernel, self.suggest)
        if getattr(self.shell, "pt_app", None):
            from llm_magic.ghost.terminal import TerminalGhost

            return TerminalGhost(self.shell, self.suggest)
        return None

    def suggest(self, request, is_wanted):
        """Ghost text of the notebook's model."""
        from llm_magic.ghost.suggest import suggest  # here, since it brings torch

        notebook = self.magics.notebook
        notebook.default_model = self.magics.model or None
        llm = notebook.model(None, lambda label, steps: follow_steps(label, steps, lambda *_: None, lambda _: None))
        return suggest(llm, request, is_wanted)

    def open_branch(self, comm, message) -> None:
        """A page asks to go on from a saved answer."""
        from llm_magic.widgets.saved import open_branch  # here, since it brings ipywidgets

        open_branch(comm, message)

    def complete(self, shell, event) -> list[str]:
        """Candidates for Tab, as IPython's completer hook gives them."""
        from llm_magic.weights import store

        line = event.text_until_cursor
        return complete(line[line.index("%") :], VERBS, store.local_names())


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
