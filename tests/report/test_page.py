"""The HTML page: complete, offline and escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.report.studies import FAILURE, keep_all_study, study
from vtw_search.report import front_page
from vtw_search.results import Judgement

VERDICT = 'K = 7 <b>wins</b> & "costs" $less </p><script>alert(1)</script>'
EVIL = "</script><img src=http://x.example onerror=alert(1)>"


class Page(HTMLParser):
    """The tags, addresses and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.sorted_by: list[str] = []
        self.rows: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        known = dict(attributes)
        self.addresses += [known[name] or "" for name in ("src", "href", "action", "data") if name in known]
        if tag == "tr":
            self.rows.append(known.get("class") or "")

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.tags[-1] if self.tags else "", []).append(data)


@pytest.fixture(scope="module")
def evil_text() -> str:
    result = study()
    broken = Judgement("kl_nats", 0.01, 0.5, 0.4, 0.6, EVIL)
    rows = [replace(row, judgements=(broken,)) if row.measurement.layer == 5 else row for row in result.rows]
    return front_page(replace(result, task=EVIL, verdict=VERDICT, rows=tuple(rows), identity={EVIL: EVIL}))


@pytest.fixture(scope="module")
def evil_page(evil_text: str) -> Page:
    return Page(evil_text)


def test_nothing_is_loaded_from_anywhere(evil_text: str, evil_page: Page) -> None:
    assert evil_page.addresses == []
    assert "default-src 'none'" in evil_text
    assert "link" not in evil_page.tags
    assert "img" not in evil_page.tags


def test_no_button_uploads_the_chart(evil_text: str) -> None:
    assert re.search(r'"showSendToCloud":\s*false', evil_text)
    assert re.search(r'"displaylogo":\s*false', evil_text)


def test_texts_of_users_are_escaped(evil_text: str, evil_page: Page) -> None:
    assert "".join(evil_page.texts["h1"]).strip() == EVIL
    assert "".join(evil_page.texts["p"]).startswith(VERDICT)
    assert EVIL not in evil_text
    assert "<b>wins" not in evil_text
    assert "<img src=http" not in evil_text.replace("\\u003c", "<")


def test_it_has_a_title_and_headings() -> None:
    page = Page(front_page(keep_all_study()))
    assert "".join(page.texts["title"]).strip() == "charts_read: withdrawal of visual tokens"
    assert [page.tags.count(name) for name in ("h1", "h2", "table")] == [1, 2, 1]


def test_every_row_is_in_the_table_with_its_status(evil_text: str) -> None:
    text = front_page(study())
    page = Page(text)
    assert len(page.rows) == 1 + 12
    assert page.rows.count("chosen") == 1
    assert "★ chosen, on the front, feasible" in text
    assert "kl_nats 0.0141 &gt; 0.01; accuracy_drop 0.0204 &gt; 0.02" in text
    assert FAILURE.replace("<mask>", "&lt;mask&gt;") in text


def test_hovering_shows_every_number_of_a_point() -> None:
    text = front_page(study()).replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u002f", "/")
    hover = "<b>K = 7</b> (withdraw@7)<br>KL: 0.00543 nats [0.00435, 0.00707]<br>accuracy: 0.910 [0.878, 0.940]"
    rest = "<br>drop: 0.004 [-0.007, 0.017]<br>macs: 15.5G (70.0 % of keep-all)<br>time: 0.72 [0.71, 0.74]"
    assert f"{hover}{rest}<br>status: feasible, chosen" in text


def test_the_same_study_gives_the_same_bytes() -> None:
    assert front_page(study()) == front_page(study())
