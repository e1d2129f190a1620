"""Stop texts: found where they span tokens, never shown in part, and the bytes stay those of the text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.generation import Token
from llm_magic.text.stops import StopFinder


def tokens_of(data: bytes, cuts: list[int]) -> list[tuple[Token, int]]:
    """A text cut anywhere, as a tokenizer's stream gives it, with the bytes that wait behind each token."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    bounds = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [
        (Token(i, data[a:b], decoder.decode(data[a:b]), -1.0), len(decoder.getstate()[0]))
        for i, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]


def run(tokens, stops):
    finder, shown = StopFinder(stops), []
    for token, open_bytes in tokens:
        shown += finder.push(token, open_bytes)
        if finder.is_found:
            return shown, True
    return shown + finder.flush(), False


@settings(max_examples=300)
@given(
    st.text("abé€😀\n", max_size=30),
    st.lists(st.integers(0, 100), max_size=12),
    st.lists(st.text("abé€😀\n", min_size=1, max_size=4), max_size=3),
)
def test_the_text_ends_where_the_first_stop_text_begins(text, cuts, stops):
    shown, is_found = run(tokens_of(text.encode(), cuts), stops)
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    found = "".join(t.text for t in shown)
    assert is_found == bool(places)
    if places:
        # a stop text may be complete before one that begins earlier is
        assert text.startswith(found) and any(text.startswith(stop, len(found)) for stop in stops)
    else:
        assert found == text
    assert b"".join(t.bytes for t in shown) == found.encode()


def test_a_stop_text_over_three_tokens_is_never_shown_in_part():
    finder = StopFinder(["END!"])
    shown = []
    for token, _ in tokens_of(b"so END END!x", [3, 4, 6, 7, 8, 9, 10, 11]):
        shown += [t.text for t in finder.push(token, 0)]
        text = "".join(shown)
        assert text == "so END "[: len(text)]
        if finder.is_found:
            break
    assert finder.is_found and text == "so END "


def test_without_stop_texts_only_half_characters_are_held():
    finder = StopFinder(())
    shown = [finder.push(*token) for token in tokens_of("a€b".encode(), [1, 2, 3, 4])]
    assert [len(tokens) for tokens in shown] == [1, 0, 0, 3, 1]
