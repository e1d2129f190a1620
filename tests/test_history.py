"""What was asked is found again, without its secrets, in a file that stays small and is never lost."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime

import pytest

from llm_magic import history as module
from llm_magic.errors import OptionError
from llm_magic.history import History

SECRET = "ghp_" + "a1B2c3D4e5F6" * 3


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "history.sqlite"


@pytest.fixture
def history(path):
    return History(path)


def test_a_record_comes_back_as_it_was_kept(history):
    fields = dict(
        question="Why {x}?\r\n", prompt="<|im_start|>Why 3?\0 ä 🤖", answer="‘So’", model="m", verb="code", mode="ask",
        finish_reason="stop", sampling={"temperature": 0.5, "stop": ["a"]}, prompt_ids=(0, 5, 2**32 - 1),
        token_ids=(7,), form={"type": "object"}, sha256="ab" * 32, extra={"n": 1, "deep": {"x": [None, True]}},
    )  # fmt: skip
    number = history.add(**fields)
    record = dataclasses.asdict(history.get(number))
    assert record | fields == record
    assert record["number"] == number and record["is_scrubbed"] is False
    written = datetime.fromisoformat(record["at"])
    assert abs(written.timestamp() - time.time()) < 10 and written.utcoffset() is not None and "." not in record["at"]


def test_a_record_may_be_empty(history):
    record = history.get(history.add())
    assert (record.question, record.sampling, record.prompt_ids, record.form, record.sha256) == ("", {}, (), None, None)


def test_no_file_is_made_by_looking(history, path):
    assert history.find() == [] and history.clear() == 0 and history.n_bytes == 0
    with pytest.raises(OptionError, match="the history is empty"):
        history.get(1)
    assert not path.parent.exists()


def test_the_newest_come_first_up_to_a_limit(history):
    for i in range(5):
        history.add(question=f"q{i}")
    assert [record.question for record in history.find(limit=3)] == ["q4", "q3", "q2"]
    assert history.find(limit=0) == []


@pytest.mark.parametrize("term, found", [
    ("STRASSE", ["b"]), ("straße", ["b"]), ("ärger", ["b"]), ("A\u0308RGER", ["b"]), ("100%", ["a"]), ("%", ["a"]),
    ("a_b", ["a"]), ("_", ["a"]), ("blue sky", ["c"]), ("sky  blue", ["c"]), ("blue sea", []), ("'; DROP", ["a"]),
    ("in prompt", ["a"]), ("behind", ["b"]), ("", ["c", "b", "a"]), ("   ", ["c", "b", "a"]), ("*", []), ('"', []),
])  # fmt: skip
def test_a_term_is_words_that_all_occur_in_any_case(history, term, found):
    history.add(model="a", question="100% a_b '; DROP TABLE records", prompt="only in the prompt")
    history.add(model="b", question="Ärger in der Straße", answer="before\0behind")
    history.add(model="c", question="the sky is", answer="Blue")
    assert [record.model for record in history.find(term)] == found


def test_a_wrong_number_is_told_with_those_there_are(history):
    history.add()
    with pytest.raises(OptionError, match="no record 7: there is 1$"):
        history.get(7)
    history.add()
    for number in (0, -1, 3, 2**70, "1", None, 1.5):
        with pytest.raises(OptionError, match="no record .*: there are 2, from 1 to 2$"):
            history.get(number)


def test_numbers_are_not_given_again_and_what_was_cleared_is_gone(history, path):
    for _ in range(30):
        history.add(question="a peculiar text " * 200)
    assert b"peculiar" in path.read_bytes()
    assert history.clear() == 30
    assert b"peculiar" not in path.read_bytes() and history.n_bytes < 40_000
    assert history.find() == [] and history.add(question="as peculiar") == 31
    assert history.clear() == 1 and b"peculiar" not in path.read_bytes()


@pytest.mark.parametrize("fields", [
    {"question": f"use {SECRET}"}, {"prompt": SECRET}, {"answer": SECRET}, {"model": f"https://ada:{SECRET}@host/m"},
    {"sampling": {"stop": ["a", f"x{SECRET}", SECRET]}}, {"extra": {"deep": [{"er": (SECRET,)}]}},
    {"extra": {SECRET: 1}},
    {"extra": {"password": SECRET[5:13]}}, {"form": {"enum": [SECRET]}}, {"verb": SECRET}, {"sha256": SECRET},
])  # fmt: skip
def test_a_secret_is_never_written_nor_the_ids_that_spell_it(history, path, fields):
    record = history.get(history.add(prompt_ids=(1, 2), token_ids=(3,), **fields))
    assert record.is_scrubbed and record.prompt_ids == () and record.token_ids == ()
    assert "[secret removed]" in str(record)
    for file in path.parent.iterdir():
        assert SECRET[5:13].encode() not in file.read_bytes().replace(f"x{SECRET}".encode(), b"")


def test_a_value_of_the_environment_is_not_written(history, path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "seventeen zebras")
    assert history.get(history.add(question="of seventeen zebras")).question == "of [secret removed]"
    assert b"zebras" not in path.read_bytes()


class Odd:
    def __str__(self):
        raise RuntimeError("no text")


def test_odd_values_are_kept_as_far_as_they_can_be(history):
    cyclic: dict = {"a": 1}
    cyclic["self"] = cyclic
    extra = {"odd": Odd(), 1: {"x"}, "cyclic": cyclic, "big": 10**30, "huge": 10**5000, "nan": float("inf")}
    record = history.get(history.add(question="half \ud83d pair", answer=None, extra=extra, prompt_ids=iter([True, 2])))
    assert record.question == r"half \ud83d pair" and record.answer == "" and record.prompt_ids == (1, 2)
    assert record.extra["odd"] == "<Odd>" and record.extra["1"] == ["x"] and record.extra["big"] == str(10**30)
    assert record.extra["huge"] == "<int>" and record.extra["nan"] == float("inf")


@pytest.mark.parametrize("ids", [(-1,), (2**32,), ("a",), (1.5,)])
def test_ids_that_are_none_are_refused_and_nothing_is_kept(history, ids):
    with pytest.raises(OptionError, match="the ids cannot be kept"):
        history.add(prompt_ids=ids)
    assert history.find() == []


def test_the_oldest_go_and_their_space_is_given_back(path):
    history = History(path, limit_bytes=200_000)
    for i in range(120):
        history.add(question=f"{i} " + "some words " * 300, prompt_ids=range(i, i + 500))
        assert history.n_bytes <= 200_000
    numbers = [record.number for record in history.find(limit=1000)]
    assert numbers == list(range(120, 120 - len(numbers), -1)) and len(numbers) > 20
    smaller = History(path, limit_bytes=100_000)
    smaller.add()
    assert smaller.n_bytes <= 100_000 and smaller.find()[0].number == 121


@pytest.mark.parametrize("field", ["question", "prompt", "answer", "prompt_ids", "extra", "sampling", "form", "model"])
def test_a_record_beyond_the_limit_is_cut_with_a_note(path, field):
    history = History(path, limit_bytes=100_000)
    history.add(question="before")
    huge = {"prompt_ids": [i * 7919 % 2**32 for i in range(100_000)]}.get(field, "ä🤖" * 60_000)
    huge = {"x": huge} if field in ("extra", "sampling", "form") else huge
    record = history.get(history.add(**{"question": "a", "answer": "b", "token_ids": (1,), field: huge}))
    assert history.n_bytes <= 100_000 and record.token_ids == ()
    if field in ("question", "prompt", "answer"):
        kept = getattr(record, field)
        assert kept.startswith("ä🤖ä🤖") and kept.endswith("of 120000 characters are kept]") and len(kept) > 2000
    if field in ("extra", "sampling", "form"):
        assert getattr(record, field) == {"cut": True}


def test_a_file_that_cannot_shrink_is_filled_no_further(path):
    history = History(path, limit_bytes=100_000)
    history.add()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA auto_vacuum = NONE")
        other.execute("VACUUM")
    for i in range(60):
        history.add(question="x" * 4000, model=str(i))
    assert history.find()[0].model == "59" and history.n_bytes < 120_000


def test_one_record_fits_even_a_limit_that_is_too_small(path):
    history = History(path, limit_bytes=1)
    for i in range(3):
        history.add(question="x" * 100_000, model=str(i))
    assert [record.model for record in history.find()] == ["2"] and history.n_bytes < 40_000


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_only_its_owner_reads_the_file(history, path):
    before = os.umask(0)
    try:
        history.add()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.chmod(0o644)
        history.add()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_nothing_stays_open_between_calls(history, path):
    history.add()
    history.find()
    assert os.listdir(path.parent) == ["history.sqlite"]
    if os.path.isdir("/proc/self/fd"):
        open_files = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        assert str(path) not in open_files
    with closing(sqlite3.connect(path, timeout=0)) as other:
        other.execute("BEGIN EXCLUSIVE")


WRITER = """
import sys
from pathlib import Path
from llm_magic.history import History
history = History(Path(sys.argv[1]))
for i in range(50):
    history.add(question=f"{sys.argv[2]}-{i}")
print(history.notice)
"""


@pytest.mark.parametrize("begun_with", [None, b"this is no database, but a longer text than its header would be" * 99])
def test_several_processes_lose_nothing(history, path, begun_with):
    if begun_with:
        path.parent.mkdir()
        path.write_bytes(begun_with)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(k)], stdout=subprocess.PIPE, text=True)
        for k in range(4)
    ]
    notices = [writer.communicate()[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    records = history.find(limit=1000)
    assert {r.question for r in records} == {f"{k}-{i}" for k in range(4) for i in range(50)}
    assert sorted(r.number for r in records) == list(range(1, 201))
    aside = [name for name in os.listdir(path.parent) if "damaged" in name]
    assert aside == (["history.damaged-1.sqlite"] if begun_with else [])
    assert sum(map(bool, notices)) == len(aside)


def make_other_program(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
        other.commit()


def make_newer(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE records (other)")
        other.execute(f"PRAGMA user_version = {module.VERSION + 1}")


def make_damaged_within(path):
    history = History(path)
    for _ in range(20):
        history.add(question="x" * 5000)
    data = bytearray(path.read_bytes())
    data[4096 : len(data) // 2] = b"\xa5" * (len(data) // 2 - 4096)
    path.write_bytes(data)


def make_truncated(path):
    make_damaged_within(path)
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize("make, why, use", [
    (lambda path: path.write_bytes(b"text " * 1000), "not a database", History.add),
    (lambda path: path.write_bytes(b"text " * 1000), "not a database", History.find),
    (make_other_program, "of another program", History.add),
    (make_newer, "a newer version wrote it", History.add),
    (make_newer, "a newer version wrote it", History.clear),
    (make_truncated, "malformed", History.add),
    (make_damaged_within, "malformed", History.find),
])  # fmt: skip
def test_a_file_that_cannot_be_read_is_kept_and_a_new_one_begun(history, path, make, why, use):
    for n in (1, 2):
        path.parent.mkdir(exist_ok=True)
        make(path)
        content = path.read_bytes()
        use(history)
        assert path.with_name(f"history.damaged-{n}.sqlite").read_bytes() == content
        notice = history.take_notice()
        assert why in notice and f"history.damaged-{n}.sqlite" in notice and history.take_notice() == ""
        history.add(question="new")
        assert history.find()[0].question == "new" and history.notice == ""
        path.unlink()


def test_a_newer_file_takes_its_log_along(history, path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE newer (x)")
        other.execute(f"PRAGMA user_version = {module.VERSION + 1}")
        assert history.add() == 1
        for end in ("", "-wal"):
            path.with_name(f"copy.sqlite{end}").write_bytes(
                path.with_name(f"history.damaged-1.sqlite{end}").read_bytes()
            )
    with closing(sqlite3.connect(path.with_name("copy.sqlite"))) as copy:
        assert copy.execute("SELECT name FROM sqlite_master").fetchall() == [("newer",)]


def test_what_another_process_put_aside_is_not_put_aside_again(history, path, monkeypatch):
    path.parent.mkdir()
    path.write_bytes(b"text " * 1000)
    put_aside = history._set_aside

    def come_late(seen, why):
        assert History(path).add(question="theirs") == 1
        put_aside(seen, why)

    monkeypatch.setattr(history, "_set_aside", come_late)
    assert history.add(question="mine") == 2 and history.notice == ""
    assert [name for name in os.listdir(path.parent) if "damaged" in name] == ["history.damaged-1.sqlite"]


def test_a_file_that_is_put_aside_while_it_is_opened_is_made_again(history, path, monkeypatch):
    connect = module._connect

    def come_late(path, mode="rw"):
        monkeypatch.setattr(module, "_connect", connect)
        path.rename(path.with_name("elsewhere"))
        return connect(path, mode)

    monkeypatch.setattr(module, "_connect", come_late)
    assert history.add(question="mine") == 1 and history.find()[0].question == "mine"


def test_values_damaged_by_hand_do_not_hide_a_record(history, path):
    number = history.add(question="q", form={"a": 1}, prompt_ids=(1,))
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE records SET sampling = '{', form = x'ff', prompt_ids = x'00', extra = 3, answer = NULL")
        other.commit()
    record = history.get(number)
    assert (record.question, record.sampling, record.form, record.prompt_ids) == ("q", {}, None, ())
    assert record.extra == {} and record.answer == "" and history.find("q") == [record]


FILLER = """
import resource, sys
from pathlib import Path
from llm_magic.errors import OptionError
from llm_magic.history import History
history = History(Path(sys.argv[1]))
history.add(question="before")
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    for i in range(100):
        history.add(question="x" * 5000)
except OptionError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the size of files is limited as Linux does")
def test_a_full_disk_is_told_in_one_line_and_what_was_there_stays(history, path):
    filled = subprocess.run([sys.executable, "-c", FILLER, str(path)], capture_output=True, text=True, check=True)
    assert filled.stdout.count("\n") == 1
    assert "cannot be written" in filled.stdout and "LLM_MAGIC_DATA" in filled.stdout
    records = history.find(limit=1000)
    assert 1 < len(records) < 20 and records[-1].question == "before" and history.notice == ""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no file, even from root")
def test_a_folder_that_cannot_be_written_is_told_in_one_line():
    for folder in ("/proc/none", "/proc", "/proc/version/x"):
        with pytest.raises(OptionError, match="cannot be written .*LLM_MAGIC_DATA"):
            History(module.Path(folder) / "history.sqlite").add(question="x")
        assert History(module.Path(folder) / "history.sqlite").find() == []


def test_a_folder_in_its_place_is_told_and_left_alone(path):
    path.mkdir(parents=True)
    before = path.stat().st_mode
    for use in (History(path).add, History(path).find):
        with pytest.raises(OptionError, match="cannot be (read|written)"):
            use()
    assert path.is_dir() and path.stat().st_mode == before


def test_a_file_that_is_kept_busy_is_told(history, path, monkeypatch):
    history.add()
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OptionError, match="locked.*try again"):
            history.add()
    assert history.add() == 2


def test_an_interrupted_add_leaves_nothing(history, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    history.add(question="before")
    with monkeypatch.context() as patch:
        patch.setattr(History, "_trim", interrupt)
        with pytest.raises(KeyboardInterrupt):
            history.add(question="never")
    assert [record.question for record in history.find()] == ["before"] and history.add() == 2


def test_adding_is_quick(history):
    took = []
    for _ in range(30):
        started = time.process_time()
        history.add(question="why " * 100, prompt="words " * 500, answer="so " * 300, prompt_ids=range(700))
        took.append(time.process_time() - started)
    assert min(took) < 0.01  # seconds of the processor; 2 ms in all on an idle machine
