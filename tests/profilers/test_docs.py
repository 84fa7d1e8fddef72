import re
from pathlib import Path

from allocator import registry

PAGE = Path(__file__).parents[2] / "docs/profilers.md"


def test_the_page_has_every_profiler_once():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(registry.entries("profilers"))
