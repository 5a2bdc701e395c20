"""The tables of docs/results.md are those of the measurements beside the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks import result_tables


def test_the_page_has_the_tables_of_the_measurements(monkeypatch, tmp_path):
    page = result_tables.PAGE.read_text(encoding="utf-8")
    made = result_tables.tables()
    assert len(made) == 6
    assert result_tables.in_place(page, made) == page, "run python -m benchmarks.result_tables --write"
    copy = tmp_path / "results.md"
    shorter = made[0].rsplit("\n", 1)[0]
    copy.write_text(page.replace(made[0], shorter), encoding="utf-8")
    monkeypatch.setattr(result_tables, "PAGE", copy)
    result_tables.main(["--write"])
    assert copy.read_text(encoding="utf-8") == page


def test_a_table_without_a_place_is_an_error():
    page = "text\n\n| a |\n|---|\n| 1 |\n\nmore\n"
    assert result_tables.in_place(page, ["| a |\n|---|\n| 2 |\n| 3 |"]) == page.replace("| 1 |", "| 2 |\n| 3 |")
    with pytest.raises(ValueError, match=r"expected one table that begins with '\| b \|', found 0"):
        result_tables.in_place(page, ["| b |"])
    with pytest.raises(ValueError, match="found 2"):
        result_tables.in_place(page + page, ["| a |"])


def test_the_command_prints_them(capsys):
    result_tables.main([])
    printed = capsys.readouterr().out
    assert all(table in printed for table in result_tables.tables())
