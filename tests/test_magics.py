"""The magic in a shell, on a tiny random model: what is shown, kept, refused, interrupted."""

from __future__ import annotations

import re
import signal

import pytest
from IPython.core.completer import provisionalcompleter

from llm_magic.errors import NumericError
from llm_magic.generation import Distribution, Generation, ModelInfo, Prompt, Score
from llm_magic.screens import TerminalScreen


def test_an_answer_is_shown_once_and_kept(shell):
    out, result = shell.run("%llm -T 1 hello there?")
    g = shell["_llm"]
    assert isinstance(g, Generation) and result.result is g and shell["_"] is g
    assert g.prompt.messages[-1].content == "hello there?"
    assert out.count(f"seed {g.seed}") == 1 and out.count("[tiny") == 1
    assert "Out[" not in out


def test_the_cell_that_loads_the_extension_shows_an_answer_once_too(shell, tiny_folder):
    shell.run("%unload_ext llm_magic")
    out, _ = shell.run(f"%load_ext llm_magic\n%config LLMMagics.model = {str(tiny_folder)!r}\n%llm -n 4 hello")
    assert out.count("· 4 tokens ·") == 1


def test_the_value_is_shown_when_it_is_asked_for_again(shell):
    shell.run("%llm hello")
    out, _ = shell.run("_llm")
    assert "[tiny" in out
    out, _ = shell.run("%llm again\n_llm.text; _llm")
    assert out.count("[tiny") == 1


def test_an_assigned_answer_is_shown_once(shell):
    out, result = shell.run("x = %llm hello")
    assert shell["x"] is shell["_llm"] and result.result is None and out.count("[tiny") == 1


@pytest.mark.parametrize("line", ["%llm --quiet hello", "x = %llm --quiet hello", "%llm next --quiet hello"])
def test_quiet_shows_nothing(shell, line):
    shell.run("%llm --quiet warm up")
    out, _ = shell.run(line)
    assert out == "" and shell["_llm"] is not None


def test_out_names_the_result(shell):
    shell.run("%llm -o answer --quiet hello")
    assert shell["answer"] is shell["_llm"]


def test_variables_are_put_in_and_told(shell):
    shell.run("name = 'Ada'; rows = [1, 2]")
    out, _ = shell.run("%llm hi {name}, {rows[1]} of {nothing}")
    assert shell["_llm"].prompt.messages[-1].content == "hi Ada, 2 of {nothing}"
    assert "put in: name, rows[1]" in out
    shell.run("%llm --raw hi {name}")
    assert shell["_llm"].prompt.messages[-1].content == "hi {name}"
    shell.run("%%llm\nbody {name}")
    assert shell["_llm"].prompt.messages[-1].content == "body Ada"


def test_local_variables_are_put_in_inside_a_function(shell):
    shell.run("def f(word):\n    %llm --quiet say {word}\n\nf('yes')")
    assert shell["_llm"].prompt.messages[-1].content == "say yes"


def test_options_change_one_call_and_config_all(shell):
    shell.run("%llm -T 1.5 --top-k 7 --seed 9 -n 3 --stop zz hello")
    s = shell["_llm"].sampling
    assert (s.temperature, s.top_k, s.seed, s.max_tokens, s.stop) == (1.5, 7, 9, 3, ("zz",))
    shell.run("%config LLMMagics.temperature = 0.9\n%config LLMMagics.system = 'Be kind.'")
    shell.run("%llm hello")
    assert shell["_llm"].sampling.temperature == 0.9 and shell["_llm"].sampling.seed == 0
    assert shell["_llm"].prompt.messages[0].content == "Be kind."
    shell.run("%llm -s 'Be brief.' hello")
    assert shell["_llm"].prompt.messages[0].content == "Be brief."


def test_a_default_out_of_range_is_told_when_it_is_used(shell):
    shell.run("%config LLMMagics.top_p = 3")
    out, _ = shell.run("%llm hello")
    assert "UsageError: top_p is 3" in out
    shell.run("%config LLMMagics.top_p = 0.9")


def test_a_conversation_goes_on(shell):
    shell.run("%llm --chat a -n 3 one")
    shell.run("%llm --chat b -n 3 uno")
    out, _ = shell.run("%llm --chat a -n 3 two")
    contents = [m.content for m in shell["_llm"].prompt.messages if m.role == "user"]
    assert contents == ["one", "two"] and "1 earlier turn is" in out
    shell.run("%llm -c -n 3 three")
    assert [m.content for m in shell["_llm"].prompt.messages if m.role == "user"] == ["one", "two", "three"]
    shell.run("%llm new")
    assert len(shell["_llm"].prompt.messages) == 1


def test_retry_and_continue_take_the_last_turns_place_in_the_conversation(shell):
    shell.run("%llm --chat a -T 2 -n 3 one")
    shell.run("%llm retry -n 4")
    shell.run("%llm continue -n 2")
    kept = shell["_llm"]
    shell.run("%llm --chat a -n 1 two")
    assert [m.content for m in shell["_llm"].prompt.messages] == ["one", kept.text, "two"] and len(kept.tokens) == 6
    shell.run("%llm -c -n 1 three")
    assert [m.content for m in shell["_llm"].prompt.messages][-1] == "three"


def test_the_system_text_takes_variables_too(shell):
    shell.run("who = 'pirate'")
    out, _ = shell.run("%llm -s 'You are a {who}.' hello")
    assert shell["_llm"].prompt.messages[0].content == "You are a pirate." and "put in: who" in out


def test_names_that_ipython_made_are_not_put_in(shell):
    shell.run("%llm say {exit} and {open} and {quit}")
    assert shell["_llm"].prompt.messages[-1].content == "say {exit} and {open} and {quit}"


def test_a_raw_cell_keeps_its_newlines(shell):
    shell.run("%%llm text\n\ndef f():\n\n")
    assert shell["_llm"].prompt.text == "\ndef f():\n"


def test_dry_run_shows_the_prompt_and_generates_nothing(shell):
    out, result = shell.run("%llm --dry-run hello <|im_end|>")
    prompt = result.result
    assert isinstance(prompt, Prompt) and "_llm" not in shell.ip.user_ns
    assert f"{len(prompt.ids)} tokens" in out and "nothing was generated" in out
    assert prompt.text.endswith("<|im_start|>assistant\n") and prompt.room_tokens == 512 - len(prompt.ids)


def test_retry_takes_the_next_seed_or_the_options_given(shell):
    shell.run("%llm -T 2 --top-k 0 hello")
    first = shell["_llm"]
    shell.run("%llm retry")
    assert shell["_llm"].sampling.seed == 1 and shell["_llm"].prompt is first.prompt
    shell.run("%llm retry --seed 0")
    assert shell["_llm"] == first


def test_continue_goes_on_from_the_latest(shell):
    shell.run("%llm -T 1 -n 4 hello")
    first = shell["_llm"]
    shell.run("%llm continue -n 3")
    assert shell["_llm"].tokens[:4] == first.tokens and len(shell["_llm"].tokens) == 7


def test_text_continues_without_a_template_and_code_opens_a_fence(shell):
    shell.run("%llm text once upon")
    assert shell["_llm"].prompt.text == "once upon"
    shell.run("%%llm code\nsort a list")
    assert shell["_llm"].prompt.text.endswith("```python\n")


def test_looking_verbs_return_values(shell):
    out, result = shell.run("%llm next -k 3 the rain")
    assert isinstance(result.result, Distribution) and len(result.result.top) == 3
    assert "all 262 others" in out and "as a prompt: %llm -- next" in out
    out, result = shell.run("%llm score the rain")
    assert isinstance(result.result, Score) and "perplexity" in out
    _, result = shell.run("%llm tokens the rain")
    assert "".join(result.result.pieces) == "the rain"


def test_model_verbs(shell, tiny_folder):
    _, result = shell.run("%llm info")
    assert isinstance(result.result, ModelInfo) and result.result.parameters > 10_000
    out, _ = shell.run("%llm models")
    assert "smollm2-135m" in out and str(tiny_folder) in out
    shell.run(f"%config LLMMagics.model = ''\n%llm load {tiny_folder}")
    shell.run("%llm hello")
    assert shell["_llm"].model == "tiny"
    out, _ = shell.run("%llm unload")
    assert "unloaded tiny" in out
    out, _ = shell.run("%llm retry")
    assert "seed 1" in out  # the model is loaded again


@pytest.mark.parametrize("line, message", [
    ("%llm -m smollm3 hi", "no model 'smollm3'.*smollm2-135m"),
    ("%llm -m nosuch/file.gguf hi", "no file or folder"),
    ("%llm -m owner/name hi", "%llm pull owner/name"),
    ("%llm --sed 3 hi", "--seed"),
    ("%llm help nex", "nearest are next"),
    ("%llm -T -3 hi", "temperature is -3"),
    ("%llm -s 'open hi", "not closed"),
    ("%llm -c hi", "no conversation"),
    ("%llm retry", "nothing was generated"),
    ("%%llm\n \n", "prompt is empty"),
    ("%llm score", "there is no text"),
    ("%llm text -s x hi", "raw text"),
    ("%llm -m ~nosuchuser/x.gguf hi", "is no path|no file"),
    ("%llm -m " + "x" * 5000 + " hi", "is no path"),
    ("%llm -T0.5 hi", "write -T 0.5"),
    ("%llm tokens " + "a" * 2_000_001, "at most 2,000,000"),
    ("%llm " + "a" * 600, "the context holds 512"),
])  # fmt: skip
def test_a_user_error_is_one_line_without_a_traceback(shell, line, message):
    out, result = shell.run(line)
    lines = [line for line in out.splitlines() if line.strip()]
    assert not result.success and len(lines) == 1 and lines[0].startswith("UsageError: ")
    assert re.search(message, lines[0])


def test_a_corrupt_file_is_one_line(shell, tmp_path):
    (tmp_path / "page.gguf").write_text("<html>not found</html>" + " " * 50)
    out, _ = shell.run(f"%llm load {tmp_path / 'page.gguf'}")
    assert out.startswith("UsageError") and "web page" in out and out.count("\n") == 1


def test_an_empty_line_and_help_tell_what_there_is(shell):
    for line in ("%llm", "%llm help"):
        out, _ = shell.run(line)
        assert "--temperature" in out and "continue" in out and "max-tokens 256" in out
    out, _ = shell.run("%llm help next")
    assert "-k N" in out


def test_samples_are_shown_under_their_numbers_and_are_the_result(shell):
    out, result = shell.run("%llm --samples 3 -T 1 -n 5 hi")
    samples = shell["_llm"]
    assert result.result is samples and len(samples) == 3 and [g.sample for g in samples] == [0, 1, 2]
    assert [out.index(f"sample {i}\n") for i in range(3)] == sorted(out.index(f"sample {i}\n") for i in range(3))
    assert (
        out.count("tokens/s") == 4
        and "3 samples · " in out
        and "sample 2" in repr_html(samples)
        and samples.texts[1] == samples[1].text
    )
    assert list(samples.to_pandas()["sample"]) == [0, 1, 2]
    shell.run("%llm continue -n 2")
    assert shell["_llm"].tokens[:5] == samples[0].tokens


def repr_html(value):
    return value._repr_html_()


def test_probs_adds_a_table(shell):
    out, _ = shell.run("%llm --probs -T 1 -n 3 hello")
    assert "rank" in out and out.count("%") > 9


class Interrupt:
    """Presses Ctrl-C after so many tokens were shown."""

    def __init__(self, monkeypatch, after):
        self.count, self.after = 0, after
        original = TerminalScreen._write

        def write(screen, text):
            original(screen, text)
            self.count += 1
            if self.count == self.after:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(TerminalScreen, "_write", write)


def test_an_interrupt_keeps_the_partial_answer(shell, monkeypatch):
    Interrupt(monkeypatch, after=4)
    out, result = shell.run("%llm text -T 1 -n 50 hello")
    g = shell["_llm"]
    n = len(g.tokens)  # a token with half a character shows nothing yet
    assert result.success and g.finish_reason == "interrupted" and 2 <= n <= 12
    assert "%llm continue" in out and "Traceback" not in out
    shell.run("%llm continue -n 4")
    assert shell["_llm"].tokens[:n] == g.tokens and len(shell["_llm"].tokens) == n + 4


def test_a_second_interrupt_at_once_keeps_the_partial_answer_too(shell, monkeypatch):
    Interrupt(monkeypatch, after=4)
    second = Interrupt(monkeypatch, after=4)
    _, result = shell.run("%llm text -T 1 -n 50 hello")
    assert isinstance(result.error_in_exec, KeyboardInterrupt) and second.count >= 4
    g = shell["_llm"]
    assert g.finish_reason == "interrupted" and 1 <= len(g.tokens) < 50
    shell.run("%llm continue -n 2")
    assert len(shell["_llm"].tokens) == len(g.tokens) + 2


def test_an_interrupt_at_the_last_token_still_ends_a_loop(shell, monkeypatch):
    Interrupt(monkeypatch, after=3)  # the text it goes on from, the only token, the figures
    _, result = shell.run("n = 0\nfor i in range(5):\n    %llm text --seed 1 -n 1 hello\n    n += 1")
    assert isinstance(result.error_in_exec, KeyboardInterrupt) and shell["n"] == 1


def test_what_was_made_before_the_numbers_broke_is_kept(shell, monkeypatch):
    from llm_magic.engine import generate

    original, count = generate.describe, 0

    def break_later(*arguments):
        nonlocal count
        count += 1
        if count > 4:
            raise NumericError("the model's logits are not numbers", "load another copy")
        return original(*arguments)

    monkeypatch.setattr(generate, "describe", break_later)
    out, result = shell.run("%llm text -T 1 -n 50 hello")
    assert not result.success and "not numbers" in out and 1 <= len(shell["_llm"].tokens) <= 4


def test_one_interrupt_ends_a_loop(shell, monkeypatch):
    Interrupt(monkeypatch, after=4)
    _, result = shell.run("done = []\nfor i in range(5):\n    %llm text -T 1 -n 50 hello\n    done.append(i)")
    assert isinstance(result.error_in_exec, KeyboardInterrupt) and shell["done"] == [0]
    assert shell.run("%llm hello")[1].success


def test_reloading_changes_nothing_and_unloading_takes_all_out(shell):
    ip = shell.ip
    for _ in range(3):
        ip.run_line_magic("reload_ext", "llm_magic")
    transforms = [t.__name__ for t in ip.input_transformer_manager.line_transforms]
    assert transforms.count("call_prompts") == 1
    ip.run_line_magic("unload_ext", "llm_magic")
    assert "llm" not in ip.magics_manager.magics["line"] and ip.display_trap.hook is ip.displayhook
    assert "call_prompts" not in [t.__name__ for t in ip.input_transformer_manager.line_transforms]
    with provisionalcompleter():
        assert not list(ip.Completer.completions("%llm --te", 9))
    ip.run_line_magic("load_ext", "llm_magic")


@pytest.mark.parametrize(
    "line, offered",
    [("%llm --te", "--temperature"), ("x = 1\n%%llm mod", "models"), ("x = %llm --te", "--temperature")],
)
def test_tab_completes_in_the_shell(shell, line, offered):
    with provisionalcompleter():
        assert offered in [c.text for c in shell.ip.Completer.completions(line, len(line))]


def test_reset_forgets(shell):
    shell.run("%llm --chat a hello")
    shell.run("%llm reset")
    out, _ = shell.run("%llm retry")
    assert "nothing was generated" in out
