"""A saved prompt comes back as it was, under a name that cannot leave its folder."""

from __future__ import annotations

import json
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic import templates
from llm_magic.errors import OptionError
from llm_magic.interpolate import interpolate
from llm_magic.templates import Template, check_filled, load, names, remove, save

WEATHER = Template("weather", "code", "How is {city}, {row[name]}?", {"temperature": 0.5}, ("city", "row[name]"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters()), verb=st.text(), options=st.dictionaries(st.text(), JSON))
def test_what_is_saved_is_what_is_loaded(tmp_path_factory, text, verb, options):
    folder = tmp_path_factory.mktemp("templates")
    template = Template("any", verb, text + "\ud83d ä\r\n", options, ("a", "b['ß']"))
    save(template, folder)
    assert load("any", folder) == template


def test_a_template_is_json_that_a_person_can_read(tmp_path):
    path = save(Template("size", text="Wie groß ist {x}?"), tmp_path)
    assert "Wie groß ist {x}?" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["version"] == 1


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    save(WEATHER, tmp_path)
    save(Template("weather", text="new"), tmp_path)
    assert load("weather", tmp_path).text == "new"
    assert os.listdir(tmp_path) == ["weather.json"]


def test_a_save_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    save(WEATHER, tmp_path)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(templates.os, "replace", fail)
    with pytest.raises(OptionError, match="No space left.*LLM_MAGIC_DATA"):
        save(Template("weather", text="new"), tmp_path)
    assert load("weather", tmp_path) == WEATHER
    assert os.listdir(tmp_path) == ["weather.json"]


@pytest.mark.parametrize("options", [{"x": object()}, {"x": float("nan")}, {"x": {1, 2}}, {(1, 2): 3}])
def test_options_that_json_has_not_are_refused(tmp_path, options):
    with pytest.raises(OptionError, match="'weather' cannot be saved"):
        save(Template("weather", options=options), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", [
    "", ".", "..", "../x", "a/b", "a\\b", "/etc/x", "C:x", "x\0", "x\n", ".hidden", "-x", "a b", "ä", "x" * 61,
    "\ud800", "con", "CON", "nul.txt", "Com1", "lpt9.a.b", "AUX.", None, 3, b"x", ["x"],
])  # fmt: skip
def test_a_name_that_is_no_name_is_refused_before_any_file_is_touched(tmp_path, name):
    folder = tmp_path / "in" / "templates"
    for use in (lambda name, folder: save(Template(name), folder), load, remove):
        with pytest.raises(OptionError, match="is no name for a template"):
            use(name, folder)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "_x", "x" * 60, "console", "com10", "a..b", "0"])
def test_a_name_is_letters_digits_and_a_few_marks(tmp_path, name):
    assert save(Template(name), tmp_path).parent == tmp_path
    assert names(tmp_path) == [name]


def test_capitals_make_no_other_template(tmp_path):
    save(WEATHER, tmp_path)
    assert load("WEATHER", tmp_path) == WEATHER
    save(Template("Weather", text="new"), tmp_path)
    assert [name.lower() for name in names(tmp_path)] == ["weather"]
    assert load("weather", tmp_path).text == "new"
    remove("wEATHER", tmp_path)
    assert names(tmp_path) == []


def test_a_missing_template_is_told_with_the_nearest(tmp_path):
    with pytest.raises(OptionError, match="no template 'wether': none is saved"):
        load("wether", tmp_path / "none")
    save(WEATHER, tmp_path)
    save(Template("poem"), tmp_path)
    for use in (load, remove):
        with pytest.raises(OptionError, match="no template 'wether': the nearest are weather$"):
            use("wether", tmp_path)


@pytest.mark.parametrize("content", [
    b"", b"{", b"\xff\xfe", b"[]", b"3", b"null", b"{}", b"[" * 100_000,
    b'{"version": 2, "verb": "", "text": "", "options": {}, "holes": []}',
    b'{"version": 1, "verb": "", "text": 3, "options": {}, "holes": []}',
    b'{"version": 1, "verb": "", "text": "", "options": [], "holes": []}',
    b'{"version": 1, "verb": "", "text": "", "options": {}, "holes": "ab"}',
    b'{"version": 1, "verb": "", "text": "", "options": {}}',
])  # fmt: skip
def test_a_damaged_file_is_named_and_kept(tmp_path, content):
    path = tmp_path / "poem.json"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=r"'poem' cannot be read .*mend or remove .*poem\.json"):
        load("poem", tmp_path)
    assert path.read_bytes() == content and names(tmp_path) == ["poem"]
    remove("poem", tmp_path)
    assert names(tmp_path) == []


def test_other_files_are_no_templates(tmp_path):
    for name in (".x.json", "notes.txt", "a b.json", ".1.draft"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "folder.json").mkdir()
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for use in (save, lambda template, folder: load(template.name, folder), lambda template, folder: names(folder)):
        with pytest.raises(OptionError) as caught:
            use(WEATHER, tmp_path / "file")
        assert "\n" not in str(caught.value)


def test_without_a_folder_it_is_that_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_MAGIC_DATA", str(tmp_path / "data"))
    path = save(WEATHER)
    assert path == tmp_path / "data" / "templates" / "weather.json"
    assert load("weather") == WEATHER
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_first_hole_without_a_value_is_named():
    check_filled(WEATHER, interpolate(WEATHER.text, {"city": "Bonn", "row": {"name": "Ada"}})[1])
    with pytest.raises(
        OptionError, match=r"^the template 'weather' lacks a value for \{row\[name\]\}: set it first: row ="
    ):
        check_filled(WEATHER, interpolate(WEATHER.text, {"city": "Bonn", "row": {}})[1])
    with pytest.raises(OptionError, match=r"lacks a value for \{city\}: set it first: city = …$"):
        check_filled(WEATHER, ())
