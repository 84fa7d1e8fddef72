"""What long work says of itself."""

import io
import warnings

import pytest

from allocator.cli import console
from allocator.cli.remaining import Remaining, in_words


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_rest_goes_as_fast_as_what_was_done(clock):
    remaining = Remaining(clock)
    clock.now += 9
    assert remaining.seconds("ggn", 3, 16) == pytest.approx(39)
    clock.now += 9
    assert remaining.seconds("ggn", 9, 16) == pytest.approx(14)
    assert remaining.seconds("ggn", 16, 16) == 0


def test_a_stage_begins_where_the_one_before_it_ended(clock):
    remaining = Remaining(clock)
    clock.now += 100
    remaining.seconds("ggn", 1, 1)
    clock.now += 2
    assert remaining.seconds("kl", 1, 5) == pytest.approx(8)


def test_what_was_there_took_no_time(clock):
    remaining = Remaining(clock)
    remaining.resumed("kl", 12)
    assert remaining.seconds("kl", 12, 40) is None
    clock.now += 6
    assert remaining.seconds("kl", 14, 40) == pytest.approx(78)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""), (0.2, ", about 0 s left"), (40.4, ", about 40 s left"), (150, ", about 2.5 min left"),
        (1500, ", about 25 min left"), (9000, ", about 2.5 h left"), (360_000, ", about 100 h left"),
    ],
)  # fmt: skip
def test_words(seconds, words):
    assert in_words(seconds) == words


def test_lines_come_every_ten_seconds(monkeypatch, capsys, clock):
    monkeypatch.setattr(console.time, "monotonic", clock)
    with console.progress() as tick:
        for done in range(13, 25):
            if done == 13:
                tick.resumed("kl", 12, 40)
            clock.now += 2.5
            tick("kl", done, 40)
    assert capsys.readouterr().err.splitlines() == [
        "kl resumed: 12 of 40 parts were there",
        "kl: 17/40, about 58 s left",
        "kl: 22/40, about 45 s left",
    ]


def test_nothing_is_said_of_short_work(monkeypatch, capsys, clock):
    monkeypatch.setattr(console.time, "monotonic", clock)
    with console.progress() as tick:
        tick("kl", 1, 2)
    with console.progress(False) as tick:
        clock.now += 1000
        tick("kl", 1, 2)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_the_time_left(monkeypatch, clock):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    monkeypatch.setattr(console.sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(console, "QUIET_SECONDS", -1.0)
    with console.progress() as tick:
        tick.resumed("kl", 3, 16)
        tick._remaining._clock = clock
        tick._remaining._began = 60.0
        tick("kl", 4, 16)
    assert "kl resumed: 3 of 16 parts were there" in stream.getvalue()
    assert "4/16, about 8.0 min left" in stream.getvalue()


def test_warnings_to_the_user_are_a_line_and_all_others_as_ever(capsys):
    before = warnings.showwarning
    with console.warnings_in_words():
        warnings.simplefilter("always")
        warnings.warn("put the data in no order", stacklevel=1)
        with pytest.warns(DeprecationWarning, match="a library's own matter"):
            warnings.warn("a library's own matter", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: put the data in no order\n"
    assert warnings.showwarning is before
