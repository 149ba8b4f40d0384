"""Text as it comes equals text at once, cut where it should be."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from edge_assistant.text.stream import StopStrings, StreamDecoder

IDS = st.lists(st.integers(0, 420))
PIECES = st.lists(st.text("abc", max_size=5))
STOPS = st.lists(st.text("abc", max_size=4), max_size=4)


def pieces_of(tokenizer, ids) -> list[str]:
    decoder = StreamDecoder(tokenizer)
    return [*(decoder.push(token_id) for token_id in ids), decoder.finish()]


def cut_by(stops, pieces) -> tuple[str, str | None, list[str]]:
    watcher = StopStrings(stops)
    given_out = [watcher.push(piece) for piece in pieces]
    return "".join(given_out) + watcher.finish(), watcher.found, given_out


def cut_letter_by_letter(stops, text) -> tuple[str, str | None]:
    """Say what StopStrings says, slowly: the first to be complete wins, the longer of two."""
    for end in range(1, len(text) + 1):
        hits = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if hits:
            found = max(hits, key=len)
            return text[: end - len(found)], found
    return text, None


@given(ids=IDS)
def test_the_stream_is_the_text(byte_level, spm, ids):
    for tokenizer in (byte_level, spm):
        assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids)


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\ufffd▁")))
@example(text=" leading space")
@example(text="👩‍👩‍👧 ☺")
def test_no_half_character_is_given_out(byte_level, spm, text):
    for tokenizer in (byte_level, spm):
        pieces = pieces_of(tokenizer, tokenizer.encode(text))
        assert "".join(pieces) == text
        assert "\ufffd" not in "".join(pieces)


def test_a_character_is_given_out_with_the_id_that_completes_it(byte_level):
    ids = byte_level.encode("☺")
    assert len(ids) > 1
    assert pieces_of(byte_level, ids) == [""] * (len(ids) - 1) + ["☺", ""]


def test_a_control_id_ends_a_character_that_was_never_completed(byte_level):
    decoder = StreamDecoder(byte_level)
    assert decoder.push(byte_level.encode("☺")[0]) == ""
    assert decoder.push(byte_level.control_id("</s>")) == "\ufffd"


@given(stops=STOPS, pieces=PIECES)
@example(stops=["ab", "b"], pieces=["ab"])
@example(stops=["abc", "b"], pieces=["a", "b", "c"])
@example(stops=["aab"], pieces=["a", "a", "a", "b"])
def test_the_cut_does_not_depend_on_the_pieces(stops, pieces):
    text, found, _ = cut_by(stops, pieces)
    assert (text, found) == cut_letter_by_letter(stops, "".join(pieces))


@given(stops=STOPS, pieces=PIECES)
def test_only_what_might_become_a_stop_string_is_held_back(stops, pieces):
    for count in range(len(pieces) + 1):
        _, found, given_out = cut_by(stops, pieces[:count])
        if found is None:
            text = "".join(pieces[:count])
            held = text[len("".join(given_out)) :]
            assert "".join(given_out) + held == text
            assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_what_turns_out_harmless_is_released():
    stops = StopStrings(["\nUser:"])
    assert stops.push("Yes.\nUs") == "Yes."
    assert stops.push("ually") == "\nUsually"
    assert stops.push("\nUser") == ""
    assert stops.finish() == "\nUser"


def test_nothing_is_given_out_after_a_stop_string():
    stops = StopStrings(["stop"])
    assert stops.push("go, stop, go") == "go, "
    assert stops.found == "stop"
    assert (stops.push("on"), stops.finish()) == ("", "")
