from __future__ import annotations

from cmt.io import progress


def test_without_a_terminal_there_are_plain_lines(capsys, monkeypatch):
    now = iter([0.0, 11.0, 12.0, 13.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    items = list(progress.track([5, 6, 7], description="work"))
    assert items == [5, 6, 7]
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "work: 1/3, 0.1/s, 22 s left",
        "work: 3/3, 0.1/s, done",
    ]


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress.track(iter("ab"), description="work")) == ["a", "b"]
