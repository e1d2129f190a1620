"""IPython's three traps: lines that end in `?`, quotes and brackets that are not closed, answers shown twice."""

from __future__ import annotations

import pytest
from IPython.core.magic import MAGIC_NO_VAR_EXPAND_ATTR

from llm_magic.inputs import call_prompts


@pytest.fixture
def ask(shell):
    """Run a cell; returns the lines that the magic was called with."""
    heard = []
    magic = shell.ip.magics_manager.magics["line"]

    def hear(line, cell=None):
        heard.append(line)
        return len(heard)

    setattr(hear, MAGIC_NO_VAR_EXPAND_ATTR, True)
    magic["llm"] = hear

    def run(cell):
        heard.clear()
        output, result = shell.run(cell)
        assert result.success, output
        return list(heard)

    return run


@pytest.mark.parametrize("cell, heard", [
    ("%llm Why is the sky blue?", ["Why is the sky blue?"]),
    ("%llm Really??", ["Really??"]),
    ("x = %llm what's up?", ["what's up?"]),
    ("x  =  %llm why?", ["why?"]),
    ("%llm it's (a [\"{test", ["it's (a [\"{test"]),
    ("%llm an 'open quote\ny = 1\n%llm and \"another?\nz = y + 1", ["an 'open quote", 'and "another?']),
    ("for i in range(2):\n    %llm what's {i}?\n    x = %llm (why?\n", ["what's {i}?", "(why?"] * 2),
    ("if True:\n\t%llm tab's?\n", ["tab's?"]),
    ("%llm a long \\\n  prompt's end?", ["a long  prompt's end?"]),
    ("s = '''\n%llm not me?\n'''\n%llm but me?", ["but me?"]),
    ('s = """it\'s\n%llm not me?\n"""', []),
    ("# it's '''\n%llm me?", ["me?"]),
    ("s = 'a\\'b'; t = \"'''\"\n%llm me?", ["me?"]),
    ("!true it's '''\n%llm me?", ["me?"]),
    ("%llm $HOME {x} $(x) `ls`?", ["$HOME {x} $(x) `ls`?"]),
    ("  %llm indented?", ["indented?"]),
    ("%llm \\?", ["\\?"]),
    ("été = %llm why?", ["why?"]),
    ("x: object = %llm why?", ["why?"]),
    ("d = {}\nd['a b'] = %llm what's this?", ["what's this?"]),
    ("%time %llm Why's that?", ["Why's that?"]),
    ("%llm ends in a backslash\\", ["ends in a backslash\\"]),
])  # fmt: skip
def test_a_prompt_reaches_the_magic_as_it_was_typed(ask, cell, heard):
    assert ask(cell) == heard


def test_the_traps_are_there_without_the_mend(ask, shell):
    shell.ip.input_transformer_manager.line_transforms.remove(call_prompts)
    try:
        with pytest.raises(AssertionError):
            assert ask("%llm Why is the sky blue?") == ["Why is the sky blue?"]
    finally:
        shell.ip.input_transformer_manager.line_transforms.append(call_prompts)


@pytest.mark.parametrize("cell", ["%llm?", "%llm??", "?%llm", "%%llm?"])
def test_a_question_about_the_magic_is_still_answered_with_help(shell, cell):
    shown = []
    shell.ip.set_hook("show_in_pager", lambda self, data, start, screen_lines: shown.append(data), 0)
    _, result = shell.run(cell)
    text = shown[0]["text/plain"] if isinstance(shown[0], dict) else shown[0]
    assert result.success and ("def llm(self" if "??" in cell else "options of a prompt") in text


def test_later_lines_keep_their_numbers():
    lines = ["%llm a \\\n", "  b\n", "1/0\n"]
    assert len(call_prompts(lines)) == 3 and call_prompts(lines)[2] == "1/0\n"


@pytest.mark.parametrize("line", ["%llm what's (up?", "x = %llm it's \"", "for i in y:\n    %llm don't?\n\n"])
def test_a_terminal_does_not_wait_for_more(shell, line):
    assert shell.ip.check_complete(line)[0] == "complete"
