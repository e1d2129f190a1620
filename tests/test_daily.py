"""The verbs of daily work on a tiny random model: given context, forms, choices, code, chats, what is kept."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from conftest import fresh

from llm_magic.choices import Choices, Ranking
from llm_magic.errors import OptionError
from llm_magic.generation import Generation, Message, Prompt
from llm_magic.progress import finish_steps
from llm_magic.records import Records
from llm_magic.tasks import Parts, condense, is_code, separators_of, split_text


def store(shell, cell):
    """Run a cell that is kept as In[n]."""
    shell.ip.run_cell(cell, store_history=True)


# context on request


def test_what_is_given_stands_before_the_prompt_and_nothing_else_does(shell):
    store(
        shell, "import pandas as pd\ndf = pd.DataFrame({'city': ['Paris', 'Oslo'], 'n': [1, 2]})\nkept = 'hidden value'"
    )
    out, _ = shell.run("%llm --with df,In[1] what is it?")
    text = shell["_llm"].prompt.messages[-1].content
    assert text.startswith("df:\n```\ndf: a pandas DataFrame of 2 rows and 2 columns") and "Paris" in text
    assert "import pandas as pd" in text and text.endswith("\n\nwhat is it?")
    assert re.search(r"given: df \d+, In\[1\] \d+; \d+ of 1,000 tokens", out)
    shell.run("%llm what is it?")
    assert "df" not in shell["_llm"].prompt.text and "hidden" not in shell["_llm"].prompt.text


def test_a_budget_bounds_what_is_given(shell):
    shell.run("words = 'rain ' * 4000")
    out, result = shell.run("%llm --with words --budget 60 --dry-run sum it up")
    found = re.search(r"given: words (\d+) \(cut\); (\d+) of 60 tokens", out)
    assert found and int(found[2]) <= 60 and isinstance(result.result, Prompt)


def test_the_last_error_is_given_but_not_a_mistyped_prompt(shell):
    shell.run("1/0")
    shell.run("%llm --nosuch x")  # an error of ours
    shell.run("%llm --with Err -n 4 why?")
    assert "ZeroDivisionError: division by zero" in shell["_llm"].prompt.messages[-1].content


@pytest.mark.parametrize(
    "line, message",
    [
        ("%llm --with dff x", "there is no variable dff"),
        ("%llm --with df.head() x", "nothing is called"),
        ("%llm --with Err x", "there is no Err"),
        ("%llm --with In[99] x", "In"),
        ("%llm --choices a,,b x", "--choices: choice 2 is ''"),
        ("%llm --schema 'a itn' x", "unknown type 'itn'"),
        ("%llm --regex a( x", "error at character 2"),
        ("%llm --schema nothere.json x", "nothere.json cannot be read"),
        ("%llm code --insert here x", "'here' is no place for code"),
        ("%llm -t nosuch x", "nosuch"),
        ("%llm translate good morning", "translate lacks its language"),
        ("%llm explain", "no cell has failed yet"),
        ("%llm history 99999", "99999"),
        ("%llm score --question 'Why?'", "no answers to rank"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(shell, line, message):
    out, result = shell.run(line)
    assert message in out and len(out.strip().splitlines()) == 1 and result.error_in_exec is not None


# forms and choices


def test_a_form_may_be_a_variable_or_a_file(shell, tmp_path):
    shell.run("kinds = {'enum': ['sun', 'rain']}")
    shell.run("%llm --schema kinds -T 1 weather?")
    assert shell["_llm"].value in ("sun", "rain")
    path = tmp_path / "kinds.json"
    path.write_text(json.dumps({"enum": [7]}))
    out, _ = shell.run(f"%llm --schema {path} -T 1 number?")
    assert shell["_llm"].value == 7 and "schema: complete" in out
    out, _ = shell.run("%llm --regex [a-z]{50} -n 3 word?")
    assert shell["_llm"].value is None and "regex: cut off, no value" in out


def test_a_forms_probabilities_are_shown_free_and_constrained(shell):
    out, _ = shell.run("%llm --regex [ab]c --probs word?")
    assert re.search(r"token +p +in form +rank", out) and "100.0 %" in out
    assert "of what the form allows" in shell["_llm"]._repr_html_()


def test_choices_are_weighed_and_shown(shell):
    out, result = shell.run("%llm --choices yes,no is it?")
    value = shell["_llm"]
    assert isinstance(value, Choices) and result.result is value and {"yes", "no"} == {c.text for c in value.choices}
    assert out.count("%") >= 3 and f"{value.label}: " in out
    shell.run("%llm text --choices sun,rain today there is")
    assert [c.text for c in shell["_llm"].choices] == [" sun", " rain"]
    out, result = shell.run("%llm --choices yes,no --dry-run is it?")
    assert isinstance(result.result, Prompt) and "nothing was computed" in out


def test_a_default_number_of_samples_leaves_choices_alone(shell):
    shell.run("%config LLMMagics.samples = 3")
    shell.run("%llm --choices yes,no is it?")
    assert isinstance(shell["_llm"], Choices)


def test_answers_are_ranked_against_a_question(shell):
    out, _ = shell.run("%%llm score --question 'What falls?'\nrain\n\nthe sun")
    value = shell["_llm"]
    assert isinstance(value, Ranking) and set(value.answers) == {"rain", "the sun"}
    assert out.index(value.answers[0]) < out.index(value.answers[1])
    assert value._repr_html_().count("<li") == 2


# code


def write(shell, monkeypatch, text):
    """Let the model write this text, whatever it thinks."""
    from llm_magic.backends.local import LocalBackend

    def run(self, stream):
        from llm_magic.generation import Token

        stream.finish_reason = "stop"
        yield Token(5, text.encode(), text, -0.1, -0.1, 1, 0.5)

    monkeypatch.setattr(LocalBackend, "run", run)


def test_code_is_checked_against_the_notebook_and_never_run(shell, monkeypatch):
    shell.run("data = [1, 2]")
    write(shell, monkeypatch, "ran = True\nprint(data, dataa)")
    out, _ = shell.run("%llm code print it")
    assert "line 2: `dataa` exists nowhere: the nearest is data" in out or "line 2: `dataa` exists nowhere" in out
    assert "ran" not in shell.ip.user_ns
    (problem,) = shell["_llm"].problems
    assert shell["_llm"].text[problem.start : problem.end] == "dataa"
    assert "dashed" in shell["_llm"]._repr_html_()


@pytest.mark.parametrize("where", ["next", "replace"])
def test_code_is_put_into_a_cell(shell, monkeypatch, where):
    write(shell, monkeypatch, "x = 1\n")
    inserted = []
    monkeypatch.setattr(shell.ip, "set_next_input", lambda text, replace=False: inserted.append((text, replace)))
    shell.run(f"%llm code --insert {where} make it")
    assert inserted == [("x = 1", where == "replace")] and "x" not in shell.ip.user_ns


def test_fix_takes_the_code_that_failed_and_its_error(shell, monkeypatch):
    shell.run("value = 3\nvalue.nosuch")
    inserted = []
    monkeypatch.setattr(shell.ip, "set_next_input", lambda text, replace=False: inserted.append(text))
    write(shell, monkeypatch, "value = 3")
    shell.run("%llm fix --insert next")
    g = shell["_llm"]
    assert g.prompt.mode == "code" and "value.nosuch" in g.prompt.text and "AttributeError" in g.prompt.text
    assert inserted == ["value = 3"]


def test_explain_takes_an_error_a_cell_a_variable_or_a_text(shell):
    store(shell, "total = 1 + 1")
    shell.run("%llm explain In[1]")
    assert "Explain what the following Python code does.\n\n```python\ntotal = 1 + 1\n```" in shell["_llm"].prompt.text
    shell.run("1/0")
    shell.run("%llm explain")
    assert "The following Python code fails." in shell["_llm"].prompt.text
    shell.run("poem = 'Roses are red.'\n")
    shell.run("%llm explain poem")
    assert "in simple words.\n\nRoses are red." in shell["_llm"].prompt.text
    shell.run("%llm explain recursion")
    assert "in simple words.\n\nrecursion" in shell["_llm"].prompt.text
    shell.run("%llm explain how it rains")  # a sentence is a prompt
    assert shell["_llm"].prompt.messages[-1].content == "explain how it rains"
    shell.run("%%llm explain\nfor i in range(3):\n    print(i)")
    assert "```python\nfor i in range(3):" in shell["_llm"].prompt.text


# texts


def test_a_text_longer_than_the_context_is_summarised_in_passes(shell, monkeypatch):
    monkeypatch.setattr("llm_magic.tasks.SUMMARY_TOKENS", 5)
    shell.run("story = 'It rains. ' * 400")
    shell.run("%llm summarize -n 5 story")
    assert shell["_llm"].prompt.messages[-1].content.startswith("Summarize the following text")
    assert len(shell["_llm"].prompt.ids) < 512


def test_condensing_goes_on_until_the_text_fits():
    passes = []

    def summarize(parts):
        passes.append(len(parts))
        yield 0.5
        return [" ".join(part.split()[:3]) for part in parts]

    def count(text):
        return len(text.split())

    found = finish_steps(condense("a b c d. " * 100, 20, count, summarize))
    assert count(found) <= 20 and len(passes) == 2 and passes[0] > passes[1]
    assert finish_steps(condense("short text", 20, count, summarize)) == "short text"


def test_parts_of_a_text_fit_and_are_the_text():
    text = "First one. Second one here!\n\nA new paragraph, with a verylongwordwithoutanyspaces in it.\nA line."
    for limit in (3, 5, 8, 20, 100):
        parts = split_text(text, limit, lambda part: -(-len(part) // 4))
        assert "".join(parts) == text and all(len(part) <= 4 * limit for part in parts)
    assert split_text("One two. Three four.", 3, lambda t: len(t.split())) == ["One two.", " Three four."]


def test_a_long_translation_keeps_its_paragraphs(tiny_llm):
    text = "It rains today. " * 12 + "\n\n" + "The sun is out. " * 12
    made = fresh(tiny_llm).translate(text, "French", track=None, max_tokens=3)
    assert isinstance(made, Parts) and len(made) > 1 and made.separators[0] == ""
    parts = split_text(text, 200, tiny_llm.count_tokens)
    assert separators_of(parts) == made.separators and any("\n\n" in s for s in made.separators)
    assert isinstance(tiny_llm.translate("Hello.", "French", max_tokens=3), Generation)


def test_code_is_told_from_prose():
    assert (
        is_code("for i in x:\n    print(i)")
        and is_code("f(1)")
        and not is_code("Why is it so?")
        and not is_code("a, b")
    )


# conversations


def ask(shell, cell, line):
    """Run a cell as a notebook's page does, which tells its id."""
    notebook = shell.ip.find_line_magic("llm").__self__.notebook
    begin = type(notebook).begin_cell
    try:
        type(notebook).begin_cell = lambda self, _: begin(self, cell)
        return shell.run(line)[0]
    finally:
        type(notebook).begin_cell = begin


def questions(shell):
    return [m.content for m in shell["_llm"].prompt.messages if m.role == "user"]


def test_a_cell_that_runs_again_replaces_its_turn(shell):
    ask(shell, "one", "%llm --chat a first")
    ask(shell, "two", "%llm --chat a second")
    ask(shell, "three", "%llm --chat a third")
    assert questions(shell) == ["first", "second", "third"]
    out = ask(shell, "two", "%llm --chat a second, changed")
    assert questions(shell) == ["first", "second, changed"]
    assert (
        "1 earlier turn is in the context" in out and "this cell's earlier turn is replaced; 1 later turn left" in out
    )
    ask(shell, "four", "%llm --chat a fourth")
    assert questions(shell) == ["first", "second, changed", "third", "fourth"]


def test_a_loops_turns_follow_each_other_and_are_replaced_together(shell):
    loop = "for word in ('x', 'y', 'z'):\n    %llm --quiet --chat a {word}"
    ask(shell, "one", loop)
    ask(shell, "two", "%llm --chat a end")
    assert questions(shell) == ["x", "y", "z", "end"]
    ask(shell, "one", loop)
    ask(shell, "two", "%llm --chat a end")
    assert questions(shell) == ["x", "y", "z", "end"]


def test_without_cells_each_prompt_is_a_new_turn(shell):
    for word in ("x", "x", "y"):
        shell.run(f"%llm --chat a {word}")
    assert questions(shell) == ["x", "x", "y"]


def test_the_latest_conversation_replaces_a_cells_turn_too(shell):
    ask(shell, "one", "%llm first")
    ask(shell, "two", "%llm -c second")
    ask(shell, "two", "%llm -c second again")
    assert questions(shell) == ["first", "second again"]


def test_oldest_turns_are_dropped_only_when_told_and_it_is_said(shell):
    shell.run("words = 'rain and sun ' * 12")
    out = ""
    for _ in range(6):
        out, _ = shell.run("%llm --chat a {words}")
        if "--drop-oldest" in out:
            break
    else:
        pytest.fail("the context never became full")
    n_before = len(shell.ip.find_line_magic("llm").__self__.notebook.chats["a"])
    out, _ = shell.run("%llm --chat a --drop-oldest {words}")
    assert re.search(r"the oldest \d turns? dropped: the context is full", out)
    assert len(shell.ip.find_line_magic("llm").__self__.notebook.chats["a"]) <= n_before


# what is kept


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_MAGIC_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_prompts_and_answers_are_found_in_the_history(shell, kept):
    shell.run("%llm -T 1 the first question")
    shell.run("%llm --choices yes,no is it raining?")
    shell.run("%llm --samples 2 -T 1 and snow?")
    out, result = shell.run("%llm history")
    assert isinstance(result.result, Records) and len(result.result) == 4 and "is it raining?" in out
    assert result.result[-1].token_ids and result.result[0].extra["sample"] == 1
    out, result = shell.run("%llm history -q RAINING")
    assert [record.answer for record in result.result] == [result.result[0].answer] and "is it" in out
    out, _ = shell.run("%llm history 1")
    assert "the first question" in out
    shell.run("%llm last")
    assert shell["_llm"].maker.history("first")[0].number == 1


def test_the_history_can_be_switched_off_and_emptied(shell, kept):
    shell.run("%config LLMMagics.history = False")
    shell.run("%llm a secret thing")
    assert not kept.exists() or "nothing is remembered" in shell.run("%llm history")[0]
    shell.run("%config LLMMagics.history = True")
    shell.run("%llm kept")
    assert len(shell.run("%llm history")[1].result) == 1
    assert "1 record is deleted" in shell.run("%llm history --clear")[0]
    assert "nothing is remembered" in shell.run("%llm history")[0]


def test_secrets_are_not_kept_and_such_a_record_is_not_replayed(shell, kept):
    shell.run("%llm my key is sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD please")
    assert b"abcdefghijklmnopqrstuvwxyz0123456789" not in b"".join(
        p.read_bytes() for p in kept.rglob("*") if p.is_file()
    )
    out, _ = shell.run("%llm replay 1")
    assert "held a secret" in out


def test_a_history_that_cannot_be_kept_ends_no_prompt(shell, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLM_MAGIC_DATA", str(tmp_path / "file" / "below"))
    out, result = shell.run("%llm hello")
    assert isinstance(result.result, Generation) and out.count("the history is not kept") == 1
    assert "the history is not kept" not in shell.run("%llm again")[0]


def test_a_record_is_replayed_and_the_first_other_token_is_named(shell, kept):
    shell.run("%llm -T 1 --seed 3 hello")
    g = shell["_llm"]
    out, _ = shell.run("%llm replay 1")
    assert f"all {len(g.tokens)} tokens are as they were" in out and shell["_llm"] == g
    out, _ = shell.run("%llm replay")
    assert "tokens are as they were" in out
    from llm_magic.records import open_history

    record = open_history().get(1)
    ids = [*record.token_ids[:2], record.token_ids[2] + 1, *record.token_ids[3:]]
    number = open_history().add(
        prompt=record.prompt, prompt_ids=record.prompt_ids, token_ids=ids, model=record.model, mode=record.mode,
        sampling=record.sampling, extra=record.extra,
    )  # fmt: skip
    out, _ = shell.run(f"%llm replay {number}")
    assert re.search(r"token 2 differs: '.*' then, '.*' now", out)


def test_records_and_results_of_cells_are_compared(shell, kept):
    shell.run("one = %llm -T 1 --seed 1 hello")
    shell.run("two = %llm -T 1 --seed 2 hello")
    out, result = shell.run("%llm diff one two")
    by_number = shell.run("%llm diff 1 2")[1].result
    texts = [[t.text for t in g.tokens] for g in result.result.generations]
    assert [[t.text for t in g.tokens] for g in by_number.generations] == texts
    for one, other in zip(by_number.generations, result.result.generations, strict=True):
        assert [t.logprob for t in one.tokens] == pytest.approx([t.logprob for t in other.tokens], abs=1e-4)
    assert result.result.pairs and result.result.first_difference is not None


def test_a_saved_prompt_asks_for_its_holes(shell, kept):
    shell.run("city, day = 'Oslo', 'Monday'")
    shell.run("%llm -T 1.5 --regex [a-z]{3} weather in {city} on {day}? {unknown}")
    out, _ = shell.run("%llm template weather")
    assert "it asks for city, day" in out
    shell.run("city = 'Rome'")
    shell.run("%llm -t weather -T 0.5 Be brief.")
    g = shell["_llm"]
    assert g.prompt.messages[-1].content == "weather in Rome on Monday? {unknown}\n\nBe brief."
    assert g.sampling.temperature == 0.5 and g.prompt.form.source == "[a-z]{3}"
    assert "weather" in shell.run("%llm template")[0]
    shell.run("del city")
    out, _ = shell.run("%llm -t weather")
    assert "lacks a value for {city}" in out and len(out.strip().splitlines()) == 1


def test_a_refused_branch_leaves_the_latest_answer(shell):
    shell.run("%llm --regex [0-9]{6} -T 1 hello")
    text = shell["_llm"].text
    out, _ = shell.run("%llm branch 2 zzz")
    assert "does not allow" in out and shell["_llm"].text == text
    assert shell.ip.find_line_magic("llm").__self__.notebook.latest_generation.text == text


def test_a_saved_prompt_is_used_in_code(shell, kept, tiny_llm):
    shell.run("city = 'Oslo'")
    shell.run("%llm text -T 1.5 -n 3 weather in {city}")
    shell.run("%llm template weather")
    g = tiny_llm.use("weather", {"city": "Rome"}, temperature=0.5)
    assert g.prompt.text == "weather in Rome" and g.sampling.temperature == 0.5 and g.sampling.max_tokens == 3
    with pytest.raises(OptionError, match=r"lacks a value for \{city\}"):
        tiny_llm.use("weather", {})


def test_a_template_of_a_template_keeps_its_holes(shell, kept):
    shell.run("who = 'pirate'")
    shell.run("%llm -s 'be a {who}' hello {who}")
    shell.run("%llm template my-first.one")
    shell.run("%llm -t my-first.one")
    shell.run("%llm template second")
    shell.run("who = 'poet'")
    shell.run("%llm -t second")
    assert shell["_llm"].prompt.messages[0].content == "be a poet"
    shell.run("%llm --regex [ bad")  # what failed is no prompt to keep
    shell.run("%llm template third")
    shell.run("%llm -t third")
    assert shell["_llm"].prompt.messages[0].content == "be a poet"


def test_cut_off_code_is_not_put_into_a_cell(shell, monkeypatch):
    inserted = []
    monkeypatch.setattr(shell.ip, "set_next_input", lambda text, replace=False: inserted.append(text))
    out, _ = shell.run("%llm code -n 2 --insert replace make it")
    assert not inserted and "the code was cut off: it was not put into a cell" in out


def test_code_that_is_tried_again_is_checked_again(shell, monkeypatch):
    write(shell, monkeypatch, "print(nosuchname)")
    shell.run("%llm code print it")
    shell.run("%llm retry")
    assert len(shell["_llm"].problems) == 1


@pytest.mark.parametrize(
    "line",
    [
        "%llm --choices a,b --schema x hello",
        "%llm --choices a,b --samples 3 hello",
        "%llm code --insert next --samples 2 hello",
        "%llm fix --inser next In[3]",
        "%llm explain --schema a the world of today",
        "%llm replay -1",
        "%llm branch 0",
        "%llm --with In[1] --budget -5 hello",
        "%llm history -k 0",
    ],
)
def test_what_makes_no_sense_is_refused_and_not_sent_to_the_model(shell, line):
    out, result = shell.run(line)
    assert result.error_in_exec is not None and len(out.strip().splitlines()) == 1
    assert "_llm" not in shell.ip.user_ns


def test_variables_that_ipython_hides_from_who_are_the_users_all_the_same(shell):
    shell.ip.push({"city": "Rome"}, interactive=False)  # as a startup file does
    shell.run("%llm see {city}")
    assert shell["_llm"].prompt.messages[-1].content == "see Rome"
    shell.run("%llm {open} and {exit}")
    assert shell["_llm"].prompt.messages[-1].content == "{open} and {exit}"


def test_a_cell_is_given_as_it_was_typed(shell):
    store(shell, "%time x = 1")
    shell.run("%llm explain In[1]")
    assert "%time x = 1" in shell["_llm"].prompt.text and "get_ipython" not in shell["_llm"].prompt.text


def test_an_empty_text_is_refused_and_an_unknown_name_is_said(shell):
    shell.run("empty = ' '")
    assert "the text is empty" in shell.run("%llm summarize empty")[0]
    assert "the text is empty" in shell.run("%llm translate --to French empty")[0]
    assert "the language is empty" in shell.run("%llm translate --to '' hello")[0]
    assert "there is no variable recursion" in shell.run("%llm explain recursion")[0]


def test_a_default_of_the_system_holds_for_tasks(shell):
    shell.run("%config LLMMagics.system = 'Be kind.'")
    shell.run("%llm explain recursion")
    assert shell["_llm"].prompt.messages[0] == Message("system", "Be kind.")


def test_a_record_is_restored_as_it_ended(tiny_llm, shell, kept):
    shell.run("%llm -T 1 --regex [0-9]{3} hello")
    g = shell["_llm"]
    restored = tiny_llm.restore(tiny_llm.history()[0])
    assert restored.finish_reason == "stop" and restored.value == g.value
    assert [t.id for t in restored.tokens] == [t.id for t in g.tokens]
    assert all(token.sampled_logprob is None for token in restored.tokens)


def test_summaries_leave_room_in_any_context(tiny_llm):
    g = fresh(tiny_llm).summarize("The cat sat. The dog ran.", max_tokens=512, track=None)
    assert g.prompt.messages[-1].content.endswith("The cat sat. The dog ran.")


# in code


def test_the_same_is_there_without_magics(tiny_llm):
    llm = fresh(tiny_llm)
    frame = pd.DataFrame({"a": [1, 2]})
    prompt = llm.prompt("how many?", given={"frame": frame})
    assert prompt.messages[-1].content.startswith("frame:\n```\nframe: a pandas DataFrame of 2 rows")
    g = llm.code("x", namespace={}, max_tokens=4)
    assert g.prompt.mode == "code" and isinstance(g.problems, tuple)
    error = ValueError("no")
    assert "ValueError: no" in llm.fix("f()", error, max_tokens=2).prompt.text
    assert "ValueError: no" in llm.explain(error, max_tokens=2).prompt.text
    assert llm.summarize("It rains.", max_tokens=2).prompt.messages[-1].content.endswith("It rains.")
    history = [Message("user", "a"), Message("assistant", "b")]
    assert len(llm("c", history=history, max_tokens=2).prompt.messages) == 3


def test_the_lens_is_shown_of_a_text_and_of_the_latest_answer(shell):
    out, result = shell.run("%llm lens --target x the rain in")
    assert "rank of x" in out and "layer" in out and result.result.targets[-1] == "x"
    html = result.result._repr_html_()
    assert "<script" not in html and "embeddings" in html and html.count("<td") == 3 * len(result.result.positions)
    shell.run("%llm -n 3 hello")
    _, result = shell.run("%llm lens")
    assert result.result.positions[-1] == len(shell["_llm"].prompt.ids) + len(shell["_llm"].tokens) - 1
    assert "has 3 tokens" in shell.run("%llm lens --target xyz hello")[0]


def test_attention_is_shown_of_a_text(shell):
    out, result = shell.run("%llm attention --layer 1 the rain in the night")
    assert "first token" in out and result.result.shown == (1, 0)
    assert "there is no layer 7" in shell.run("%llm attention --layer 7 the rain")[0]
