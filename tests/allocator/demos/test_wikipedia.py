from allocator.demos.wikipedia import prose

LONG = "words " * 15


def test_prose_keeps_long_lines_and_drops_markup():
    body = "\n".join(
        [
            f"'''Anarchism''' is a [[political philosophy|philosophy]] of [[law]] {LONG}{{{{cite|a={{{{b}}}}}}}} end",
            f"{LONG}&lt;ref name=x&gt;gone&lt;/ref&gt; and [http://example.org a link] stay",
            f"[[File:Picture.jpg|thumb|a caption {LONG}]]after the picture {LONG}",
            f"* a list item {LONG}",
            f"  | a table cell {LONG}",
            "short",
            f"&lt;!-- a comment\n{LONG} --&gt;{LONG}",
        ]
    )
    assert prose(body).split("\n") == [
        f"Anarchism is a philosophy of law {LONG} end",
        f"{LONG} and a link stay",
        f"after the picture {LONG}".strip(),
        LONG.strip(),
    ]
