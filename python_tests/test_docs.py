"""The documentation is true: its Python blocks run, its ``aicr`` lines succeed, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import traceback
from pathlib import Path

import pytest
from pictures import smooth
from shell import aicr

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block that names a language."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def runnable(page: Path) -> bool:
    return any(
        language == "python" or (language == "sh" and re.search("^aicr ", text, re.MULTILINE))
        for language, text in blocks(page)
    )


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_there_is_something_to_run() -> None:
    found = {relative(page) for page in PAGES if runnable(page)}
    assert found >= {"README.md", "docs/cli.md"}


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=relative)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, in order, in one folder that holds ``photo.png`` and ``photos/``."""
    monkeypatch.chdir(tmp_path)
    smooth().save("photo.png")
    Path("photos").mkdir()
    smooth(48, 32).save("photos/one.png")
    smooth(40, 56).save("photos/two.jpg")
    for language, text in blocks(page):
        if language == "python":
            try:
                exec(compile(text, relative(page), "exec"), {"__name__": "__main__"})
            except Exception:
                pytest.fail(f"{relative(page)}:\n{text}\n{traceback.format_exc()}")
        elif language == "sh":
            for line in text.splitlines():
                if line.startswith("aicr "):
                    assert aicr(*shlex.split(line, comments=True)[1:]) == 0, f"{relative(page)}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = [link.partition("#")[0] for link in _LINK.findall(page.read_text(encoding="utf-8"))]
    missing = [t for t in targets if t and "://" not in t and not (page.parent / t).exists()]
    assert not missing, f"{relative(page)} links to {missing}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = set(_LINK.findall(index))
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if (ROOT / "docs") in page.parents}
    assert pages - {"README.md"} <= listed
