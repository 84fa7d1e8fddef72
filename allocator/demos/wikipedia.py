"""Encyclopedia articles that arrive inside the package ``gensim`` (CC BY-SA 3.0), as plain text."""

from __future__ import annotations

import bz2
import html
import re

from allocator.demos.packages import folder

DUMP = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SHORTEST_ARTICLE, SHORTEST_LINE = 5000, 60

_ARTICLE = re.compile(r"<title>.*?</title>.*?<text[^>]*>(.*?)</text>", re.DOTALL)
_WITHOUT_PROSE = re.compile(r"<!--.*?-->|<ref[^>/]*/>|<ref.*?</ref>|<math>.*?</math>|<gallery.*?</gallery>", re.DOTALL)
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}")
_MEDIA = re.compile(r"\[\[(?:File|Image|Category)[^\[\]]*\]\]", re.IGNORECASE)
_LINK = re.compile(r"\[\[(?:[^|\[\]]*\|)?([^\[\]]*)\]\]")
_MARKUP = re.compile(r"'{2,}|<[^>]+>|\[https?://\S+ ?([^\]]*)\]")
_NOT_PROSE = ("|", "*", "!", "{", "#", ":", ";")
_NESTED_TEMPLATES, _NESTED_MEDIA = 6, 3


def text() -> str:
    """The paragraphs of all long articles, in the order of the dump."""
    with bz2.open(folder("gensim") / DUMP, "rt", encoding="utf-8") as dump:
        bodies = _ARTICLE.findall(dump.read())
    return "\n\n".join(prose(b) for b in bodies if len(b) > SHORTEST_ARTICLE and not b.startswith("#REDIR"))


def prose(body: str) -> str:
    """The long lines of an article's source, without templates, tables, media, references and markup."""
    body = _WITHOUT_PROSE.sub("", html.unescape(body))
    for _ in range(_NESTED_TEMPLATES):  # innermost first
        body = _TEMPLATE.sub("", body)
    for _ in range(_NESTED_MEDIA):
        body = _MEDIA.sub("", body)
    body = _MARKUP.sub(r"\1", _LINK.sub(r"\1", body))
    lines = body.split("\n")
    return "\n".join(
        line.strip() for line in lines if len(line) > SHORTEST_LINE and not line.lstrip().startswith(_NOT_PROSE)
    )
