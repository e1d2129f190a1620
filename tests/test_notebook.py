"""The quickstart notebook and the README, as a new user runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def execute(name):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "examples" / name, 4)
    for cell in notebook.cells:
        cell.pop("outputs", None) if cell.cell_type != "code" else cell.update(outputs=[])
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "examples")}})
    client.execute()
    return notebook


@pytest.fixture(scope="module")
def executed(real_path):
    return execute("quickstart.ipynb")


@pytest.fixture(scope="module")
def daily(real_path):
    return execute("daily_work.ipynb")


def outputs_of(notebook, source):
    cell = next(c for c in notebook.cells if c.cell_type == "code" and source in c.source)
    return [o for o in cell.outputs if not o.get("data", {}).get("text/plain", "").startswith("loading")]


def test_every_answer_of_the_quickstart_is_shown_once_in_both_faces(executed):
    (answer,) = outputs_of(executed, "Why is the sky blue?")
    assert "tokens/s" in answer.data["text/plain"] and "<script" not in answer.data["text/html"]
    assert answer.data["text/html"].count("<span title=") > 50
    assert "light" in answer.data["text/plain"]


def test_the_quickstart_says_what_its_text_promises(executed):
    first_line = outputs_of(executed, "%llm next")[0].data["text/plain"].splitlines()[1]
    assert re.match(r"\s+7[5-9]\.\d %  ␣Paris", first_line)
    assert outputs_of(executed, "replayed == answer")[0].data["text/plain"] == "True"
    assert "put in: city" in outputs_of(executed, "answer = %llm")[0].data["text/plain"]
    assert "rank" in outputs_of(executed, "--probs")[1].data["text/plain"]
    assert "1 earlier turn is in the context" in outputs_of(executed, "Which of them")[0].data["text/plain"]


def test_the_quickstart_leaves_no_widget_state(executed):
    assert "widgets" not in executed.metadata


def text_of(notebook, source):
    outputs = outputs_of(notebook, source)
    return "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)


def test_a_day_of_work_asks_about_the_data_within_a_budget(daily):
    assert re.search(r"given: reviews \d+; \d+ of 1,000 tokens", text_of(daily, "%llm --with reviews -n 60"))
    shown = text_of(daily, "--budget 120 --dry-run").replace("│", "").replace("␣", " ")
    assert "a pandas DataFrame of 12 rows and 4 columns" in shown and "nothing was generated" in shown


def test_a_day_of_work_gets_code_that_works_and_marks_what_does_not(daily):
    written = text_of(daily, "--insert next").split("\n[")[0].strip()
    (cell,) = [c.source for c in daily.cells if c.source.startswith("def per_night")]
    assert written == cell  # what the notebook holds is what the model writes
    assert "Rome      106.25" in text_of(daily, 'groupby("city")')
    assert "exists nowhere: the nearest are" in text_of(daily, "sort the list names")


def test_a_day_of_work_labels_a_column_and_loses_no_row(daily):
    assert "good: " in text_of(daily, "--choices good,bad")
    text = text_of(daily, "labelled = llm.map")
    assert "1 of 12 rows have no result: 9 (a value is missing)" in text
    labels = re.findall(r"^\d+ .* (good|bad|None)  ", text, re.M)
    assert labels == ["good", "bad", "good", "bad", "good", "bad", "good", "bad", "good", "None", "good", "bad"]
    assert "of these 2" in text_of(daily, "sort_values")


def test_a_day_of_work_reads_fields_and_keeps_a_prompt(daily):
    value = text_of(daily, "_llm.value")
    assert value == "{'name': 'Rossi', 'city': 'Rome', 'nights': 3, 'euros': 330}"
    assert "it asks for city" in text_of(daily, "%llm -t sight") and "put in: city" in text_of(daily, "%llm -t sight")
    assert "records with 'sight'" in text_of(daily, "%llm history")


def run(command, **environment):
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | environment, cwd=ROOT / "tests"
    )


def readme_command(name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return next(line for line in text.splitlines() if name in line and line.startswith("pip install"))


@pytest.mark.real
def test_the_readmes_first_command_answers_from_an_empty_cache(tmp_path):
    command = readme_command("ipython").split("&& ")[1]
    assert command == 'ipython --ext=llm_magic -c "%llm Why is the sky blue?"'
    question = command.split('"')[1]
    result = run(
        [sys.executable, "-m", "IPython", "--ext=llm_magic", "-c", question],
        LLM_MAGIC_CACHE=str(tmp_path / "cache"),
        IPYTHONDIR=str(tmp_path / "ipython"),
    )
    assert result.returncode == 0, result.stderr
    assert "not found" not in result.stdout and "light" in result.stdout and "tokens/s" in result.stdout
    assert "fetching the model: done" in result.stderr and "Traceback" not in result.stdout + result.stderr


def test_the_terminal_is_tinted_where_it_has_colours(real_path, tmp_path):
    pexpect = pytest.importorskip("pexpect")
    child = pexpect.spawn(
        sys.executable, ["-m", "IPython", "--ext=llm_magic", "-c", "%llm -n 30 Why is the sky blue?"],
        env=os.environ | {"IPYTHONDIR": str(tmp_path), "TERM": "xterm-256color"}, timeout=120, encoding="utf-8",
    )  # fmt: skip
    child.expect(pexpect.EOF)
    assert re.search("\x1b\\[38;5;16;48;5;\\d+", child.before) and "seed 0" in child.before


def test_ghost_text_in_a_terminal_is_taken_with_the_right_arrow_key(real_path, tmp_path):
    pexpect = pytest.importorskip("pexpect")
    child = pexpect.spawn(
        sys.executable, ["-m", "IPython", "--ext=llm_magic"],
        env=os.environ | {"IPYTHONDIR": str(tmp_path), "TERM": "xterm-256color"}, timeout=120, encoding="utf-8",
    )  # fmt: skip
    child.setwinsize(40, 120)
    child.expect("In .*1")
    child.send("%llm complete on\r")
    child.expect("ghost text is on in this terminal")
    child.expect("In .*2")
    for character in "import nump":
        child.send(character)
        time.sleep(0.02)
    child.expect("\x1b\\[[\\d;]*my\x1b")  # the letter that is missing, in another colour
    child.send("\x1b[C")
    time.sleep(0.3)
    child.send("\r")
    child.expect("In .*3")
    child.send("print('took', 'numpy' in dir())\r")
    child.expect("took True")
    child.send("%llm complete off\r")
    child.expect("ghost text is off")
    child.sendeof()


def test_the_readmes_python_runs(real_llm):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    namespace = {}
    exec(block, namespace)
    assert namespace["g"].replay() == namespace["g"]


def test_the_readmes_defaults_are_the_codes():
    from llm_magic.generation import Sampling

    s, text = Sampling(), " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"temperature {s.temperature:g}, top-k {s.top_k}, top-p {s.top_p:g}, repetition penalty "
        f"{s.repetition_penalty:g}, at most {s.max_tokens} tokens, seed {s.seed}"
    ) in text


def test_every_verb_and_option_stands_in_the_readme():
    from llm_magic.grammar import GENERATING
    from llm_magic.verbs import VERBS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in VERBS if not re.search(rf"`[^`]*\b{name}\b", text)]
    hidden = {"--quiet", "--no-stream"}
    missing += [o.flags[-1] for o in GENERATING if not any(f in text for f in o.flags) and o.flags[-1] not in hidden]
    assert not missing


def test_loading_the_extension_is_quick_and_leaves_torch_out(tmp_path):
    code = (
        "import sys, time; t = time.perf_counter(); get_ipython().run_line_magic('load_ext', 'llm_magic'); "
        "print('took', time.perf_counter() - t, 'torch' in sys.modules)"
    )
    times = []
    for _ in range(3):
        result = run([sys.executable, "-m", "IPython", "-c", code], IPYTHONDIR=str(tmp_path))
        _, seconds, has_torch = result.stdout.split()
        assert has_torch == "False"
        times.append(float(seconds))
    print(f"load_ext took {sorted(times)[1]:.3f} s")
    assert sorted(times)[1] < 0.5
