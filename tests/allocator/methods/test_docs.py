import re
from pathlib import Path

from allocator import registry
from allocator.methods.running import method_named

PAGE = (Path(__file__).parents[3] / "docs/methods.md").read_text(encoding="utf-8")


def test_the_page_has_every_method_once_with_its_fidelity_and_statistics():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|", PAGE, re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(registry.entries("methods"))
    for name, source, fidelity, choices, statistic in rows:
        method = method_named(name)
        assert fidelity == method.fidelity
        assert choices in (method.kinds, "two widths") or name == "ompq"
        found = re.search(r"\d{4}\.\d{5}", source)
        if found and method.fidelity != "own":
            assert found.group() in method.paper
        named = set(re.findall(r"`(\w+)`", statistic))
        known = {one.name for one in method.statistics()} | {str(one.options.get("of")) for one in method.statistics()}
        assert named <= known | {"remainder"}


def test_the_recipe_of_the_page_works():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    made: dict = {}
    exec(compile(block, "docs/methods.md", "exec"), made)
    assert str(made["Mine"]().statistics()[0]) == "weight_error"
