"""The reference of the file format says what the code does: its examples run, and no name is missing."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

import allocator
from allocator import features
from allocator.actions import KINDS
from allocator.certificate import Certificate
from allocator.formats import types
from allocator.formats.archive import read_arrays
from allocator.formats.columns import problem_to_columns
from allocator.formats.decode import decode
from allocator.formats.solutions import solution_to_json

ROOT = Path(__file__).parents[1]
FORMAT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
STRUCTS = [s for s in vars(types).values() if isinstance(s, type) and issubclass(s, msgspec.Struct)]


def blocks(page):
    """Every JSON example of a page as (text, data)."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(block, msgspec.json.decode(block)) for block in re.findall(r"^```json\n(.*?)^```", text, re.M | re.S)]


def examples(page):
    return [data for _, data in blocks(page) if data.get("format") == "allocation-problem"]


@pytest.mark.parametrize(("page", "count"), [("docs/format.md", 2), ("README.md", 1)])
def test_problems_are_valid(page, count):
    found = examples(page)
    assert len(found) >= count
    for rows in found:
        allocator.Problem.from_rows(rows)


def test_solution_is_that_of_the_first_problem():
    [(text, shown)] = [b for b in blocks("docs/format.md") if b[1].get("format") == "allocation-solution"]
    decode(text.encode(), types.SolutionFile, "solution")
    solved = msgspec.to_builtins(solution_to_json(allocator.solve(examples("docs/format.md")[0])))
    assert list(shown) == list(solved)
    for key in ("problem", "run"):  # hashes and clocks are its own
        assert list(shown.pop(key)) == list(solved.pop(key))
    for one in (shown, solved):
        one["solver"].pop("version")
        one["multipliers"] = pytest.approx(one["multipliers"], rel=1e-6) if one is shown else one["multipliers"]
    assert shown == solved


def test_optimum_of_the_second_problem():
    solution = allocator.solve(examples("docs/format.md")[1])
    assert dict(solution.choices) == {"q": "int8", "k": "int8", "head": "int4_g64"}
    assert (solution.status, solution.loss, solution.objective) == ("optimal", pytest.approx(0.52), pytest.approx(0.82))


def test_budget_of_the_first_problem():
    solution = allocator.solve(examples("docs/format.md")[0], budgets="4.25bits")
    assert solution.problem["overrides"] == {"weight_bytes": {"max": 3478}}
    assert "weight_bytes max 3478\n" in FORMAT
    assert f"  {solution.reasons[0]}\n" in FORMAT


def test_columns_are_those_of_the_first_problem():
    [shown] = [data["columns"] for _, data in blocks("docs/format.md") if "columns" in data]
    header, _ = problem_to_columns(allocator.Problem.from_rows(examples("docs/format.md")[0]), "big.npz")
    made = msgspec.json.decode(header)["columns"]
    assert made | {"sha256": ""} == shown | {"sha256": ""}
    assert re.fullmatch("[0-9a-f]{64}", shown["sha256"])


def test_arrays_are_listed():
    found = set()
    for rows in examples("docs/format.md"):
        _, data = problem_to_columns(allocator.Problem.from_rows(rows), "x.npz")
        found |= set(read_arrays(data, "x.npz"))
    patterns = [re.sub("<[a-z]+>", "[^/]+", name) for name in re.findall(r"`([a-z_]+(?:/[a-z<>]+)*)`", FORMAT)]
    assert len(found) >= 19
    for name in found:
        assert any(re.fullmatch(pattern, name) for pattern in patterns), name


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.__name__)
def test_keys_are_listed(struct):
    for field in msgspec.structs.fields(struct):
        if (struct, field.name) != (types.SolutionFile, "columns"):  # in no file that is written
            assert f"`{field.encode_name}`" in FORMAT or f'"{field.encode_name}"' in FORMAT, field.encode_name


def test_names_are_listed():
    kinds = [certificate.kind for certificate in get_args(Certificate)]
    assert kinds
    for table, names in (("feature", features.MEANING), ("certificate", kinds), ("kind", KINDS)):
        rows = re.search(rf"^\| {table} \|.*\n((?:\|.*\n)+)", FORMAT, re.M)
        assert rows is not None
        for name in names:
            assert f"| `{name}` |" in rows[1], name
    [status] = [field.type for field in msgspec.structs.fields(types.SolutionFile) if field.name == "status"]
    for name in get_args(status):
        assert f"| `{name}` |" in FORMAT, name


@pytest.mark.parametrize("page", ["docs/format.md", "docs/architecture.md", "docs/kinds.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), target


def test_files_of_the_architecture_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:allocator|solvers|profilers)/[\w/*.]*)`", text):
        assert list(ROOT.glob(path.rstrip("/"))), path
