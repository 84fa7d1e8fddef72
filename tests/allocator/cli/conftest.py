"""The command line as a user meets it."""

import io
import sys

import pytest

from allocator.cli import main


@pytest.fixture
def run(monkeypatch, capsysbinary):
    """Exit code, stdout and stderr of one command; never a traceback."""

    def call(*words, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["allocator", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsysbinary.readouterr()
        assert b"Traceback" not in err
        return code, out.decode(), err.decode()

    return call
