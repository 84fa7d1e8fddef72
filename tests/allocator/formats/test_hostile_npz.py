"""Damaged and hostile npz beside a header: refused with the array's name, before anything large is allocated."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from allocator.errors import ProblemError
from allocator.formats.archive import read_arrays, write_arrays
from allocator.formats.digest import content_sha256
from allocator.formats.problems import load_problem, save_problem
from allocator.formats.rows import problem_to_rows
from allocator.problem import Problem
from allocator.testing.depth import times

Arrays = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path, example: dict[str, Any]) -> Path:
    """A good problem in columns: p.json and p.npz."""
    save_problem(Problem.from_rows(example), tmp_path / "p.json", columns=True)
    return tmp_path


def arrays_of(folder: Path) -> Arrays:
    return {name: array.copy() for name, array in read_arrays((folder / "p.npz").read_bytes(), "p.npz").items()}


def stamped(folder: Path, data: bytes, **header: Any) -> Path:
    """Put the bytes in place of the npz, with the right hash in the header."""
    (folder / "p.npz").write_bytes(data)
    head = json.loads((folder / "p.json").read_text())
    head["columns"] |= {"sha256": hashlib.sha256(data).hexdigest(), **header}
    (folder / "p.json").write_text(json.dumps(head))
    return folder / "p.json"


def refusal(path: Path) -> str:
    with pytest.raises(ProblemError) as caught:
        load_problem(path)
    assert all(f.message.strip() for f in caught.value.faults)
    return str(caught.value)


def npy(array: Any, **how: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, **how)
    return out.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def members_of(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / "p.npz") as archive:
        return {m.filename: archive.read(m) for m in archive.infolist()}


def test_the_good_one_is_read(folder: Path, example: dict[str, Any]) -> None:
    assert content_sha256(load_problem(folder / "p.json")) == content_sha256(Problem.from_rows(example))
    assert stamped(folder, zipped(members_of(folder), zipfile.ZIP_DEFLATED))
    assert content_sha256(load_problem(folder / "p.json")) == content_sha256(Problem.from_rows(example))


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_pickles_are_never_opened(folder: Path) -> None:
    mark = folder / "opened"
    objects = np.empty(25, object)
    objects[0] = Bomb(mark)
    members = members_of(folder)
    members["score/ggn.npy"] = npy(objects, allow_pickle=True)
    assert "score/ggn: holds object, not plain numbers" in refusal(stamped(folder, zipped(members)))
    members["score/ggn.npy"] = pickle.dumps(Bomb(mark))
    assert "score/ggn" in refusal(stamped(folder, zipped(members)))
    assert not mark.exists()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(25, "U3"),
        np.zeros(25, complex),
        np.zeros(25, "datetime64[s]"),
        np.zeros(25, [("a", float)]),
        np.zeros(25, "S2"),
    ],
    ids=lambda a: str(a.dtype),
)
def test_only_plain_numbers_are_read(array: Any, folder: Path) -> None:
    members = members_of(folder) | {"score/ggn.npy": npy(array)}
    assert "not plain numbers" in refusal(stamped(folder, zipped(members)))


def test_fortran_order_is_refused_by_name(folder: Path) -> None:
    vectors = arrays_of(folder)["basis/0/vectors"]
    members = members_of(folder) | {"basis/0/vectors.npy": npy(np.asfortranarray(vectors))}
    assert "basis/0/vectors: is in Fortran order" in refusal(stamped(folder, zipped(members)))


def test_big_endian_numbers_are_read_as_what_they_are(folder: Path, example: dict[str, Any]) -> None:
    members = {
        name + ".npy": npy(array.astype(array.dtype.newbyteorder(">"))) for name, array in arrays_of(folder).items()
    }
    problem = load_problem(stamped(folder, zipped(members)))
    assert content_sha256(problem) == content_sha256(Problem.from_rows(example))


def header(shape: str, descr: str = "<f8", order: str = "False") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header("(1000000000000000,)"), "declares shape (1000000000000000,)"),
        (header("(4611686018427387904, 4611686018427387904)"), "declares shape"),
        (header("(-26,)") + b"\0" * 208, "declares shape (-26,)"),
        (header("(-1, -26)") + b"\0" * 208, "declares shape (-1, -26)"),
        (header("(26,)") + b"\0" * 200, "declares shape (26,)"),
        (header("(26,)") + b"\0" * 300, "declares shape (26,)"),
        (header("(26.5,)"), "shape"),
        (header("'x'"), "shape"),
        (header("(26,)", descr="nonsense"), ""),
        (header("(26,)", descr="|O"), "holds object"),
        (header("(26,)", order="7"), ""),
        (header("(" * 500 + ")" * 500), ""),
        (header("__import__('os').system('true')"), ""),
        (b"\x93NUMPY\x03\x00" + b"\x10\0\0\0" + b" " * 16, "is npy version (3, 0)"),
        (b"\x93NUMPY\x01\x00\xff\xff{", ""),
        (b"\x93NUMPY", ""),
        (b"not an array at all", ""),
        (b"", ""),
        (b"\x93NUMPY\x01\x00" + (5).to_bytes(2, "little") + b"{'a':", ""),
        (b"\x93NUMPY\x01\x00" + (6).to_bytes(2, "little") + b"((('\n\t", ""),
    ],
    ids=range(20),
)
def test_headers_that_lie(data: bytes, message: str, folder: Path) -> None:
    members = members_of(folder) | {"score/ggn.npy": data}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = stamped(folder, zipped(members, compression))
        tracemalloc.start()
        said = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "p.npz:score/ggn: " in said
        assert message in said
        assert peak < 50e6


def test_a_bomb_is_refused_before_it_is_unpacked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB of zeros in 64 kB, with the ratio minded from 1 MB on so that the test is quick."""
    monkeypatch.setattr("allocator.formats.archive.HARMLESS_BYTES", 2**20)
    data = zipped({"bomb.npy": header(f"({2**26},)", descr="|u1") + b"\0" * 2**26}, zipfile.ZIP_DEFLATED)
    path = stamped(folder, data)
    tracemalloc.start()
    said = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "over 100 times its size" in said
    assert peak < 5e6


def test_sizes_in_the_directory_that_lie(folder: Path) -> None:
    data = bytearray(zipped(members_of(folder)))
    directory = data.rindex(b"PK\x01\x02")
    for size in (2**30, 2**32 - 2, 0, 1):
        lied = bytearray(data)
        lied[directory + 24 : directory + 28] = size.to_bytes(4, "little")
        refusal(stamped(folder, bytes(lied)))


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        arrays[name] = change(arrays[name])

    return apply


def without(name: str) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.pop(name)


def put(name: str, value: Any) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        arrays[name] = value

    return apply


N, G = 25, 6
TURNING = np.array([0, 2**63 - 1, -(2**63), -1, 0, 5, N], np.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("indptr"), "indptr: is missing"),
        (without("score/ggn"), "there is no score 'ggn'; known: first_order"),
        (without("pairs/1/value"), "pairs/1/value: is missing"),
        (without("basis/0/vectors"), "basis/0/vectors: is missing"),
        (without("tags/code"), "tags/code: is missing"),
        (put("extra", np.zeros(3)), "extra: is not an array of the format"),
        (put("score", np.zeros(N)), "score: is not an array of the format"),
        (changed("indptr", lambda a: a.astype(np.int32)), "indptr: is int32; expected int64"),
        (changed("indptr", lambda a: a[:, None]), "indptr: has shape (7, 1)"),
        (changed("indptr", lambda a: a[:0]), "indptr: must start at 0 and rise"),
        (changed("indptr", lambda a: a[:1]), "indptr: must start at 0 and rise"),
        (changed("indptr", lambda a: a + 1), "indptr: must start at 0 and rise"),
        (changed("indptr", lambda a: a[::-1]), "indptr: must start at 0 and rise"),
        (put("indptr", np.array([0, 2**62], np.int64)), "expected (4611686018427387904,)"),
        (put("indptr", TURNING), "indptr: must start at 0 and rise"),
        (put("tags/indptr", TURNING), "tags/indptr: must start at 0 and never fall"),
        (changed("score/ggn", lambda a: a.astype(np.float32)), "score/ggn: is float32; expected float64"),
        (changed("score/ggn", lambda a: a[:-1]), "score/ggn: has shape (24,); expected (25,)"),
        (
            changed("score/ggn", lambda a: np.where(np.arange(N) == 4, np.nan, a)),
            "/groups/1/choices/0/score/ggn: is nan",
        ),
        (changed("cost/latency_ms", lambda a: a + np.inf), "/groups/0/choices/0/cost/latency_ms: is inf"),
        (changed("cost/weight_bytes", lambda a: a.astype(np.uint8)), "cost/weight_bytes: is uint8"),
        (changed("stderr/ggn", lambda a: -a), "it must be 0 or more"),
        (put("stderr/kl", np.zeros(N)), "there is no score 'kl'"),
        (changed("choice_name", lambda a: a + 100), "choice_name: holds codes outside"),
        (changed("choice_name", lambda a: a * 0), "is used twice in group 'conv1'"),
        (changed("choice_name", lambda a: a - 2), "choice_name: holds codes outside"),
        (changed("action", lambda a: a.astype(np.int64)), "action: is int64; expected int32"),
        (put("allowed", np.ones(N, np.uint8)), "allowed: is uint8; expected bool"),
        (put("weights", np.full(G, -2, np.int64)), "a count is 0 or more"),
        (put("stats/alpha", np.full(G, np.nan)), "stats/alpha: numbers must be finite"),
        (put("group_names", np.frombuffer(b"a\nb", np.uint8)), "group_names: holds 2 names for 6 groups"),
        (put("group_names", np.frombuffer(b"\xff", np.uint8)), "group_names: is not UTF-8"),
        (put("group_names", np.frombuffer(b"a\na\nb\nc\nd\ne", np.uint8)), "'a' is already the name of group 0"),
        (changed("tags/code", lambda a: a[:-1]), "tags/code: has shape"),
        (changed("pairs/1/index", lambda a: a + N), "names a choice row that does not exist"),
        (changed("pairs/1/index", lambda a: a * 0), "both choices belong to group 'conv1'"),
        (changed("pairs/1/index", lambda a: a.reshape(-1)), "pairs/1/index: has shape (2,)"),
        (changed("pairs/1/value", lambda a: a * np.nan), "numbers must be finite"),
        (changed("basis/0/eigenvalues", lambda a: a[:1]), "basis/0/vectors: has shape (25, 2); expected (25, 1)"),
        (changed("basis/0/eigenvalues", lambda a: a * np.inf), "numbers must be finite"),
        (changed("basis/0/vectors", lambda a: a * np.nan), "numbers must be finite"),
    ],
    ids=range(41),
)
def test_arrays_that_do_not_fit(change: Callable[[Arrays], None], message: str, folder: Path) -> None:
    arrays = arrays_of(folder)
    change(arrays)
    assert message in refusal(stamped(folder, write_arrays(arrays)))


def test_no_scores_at_all_is_told_before_anything_is_allocated(folder: Path) -> None:
    arrays = {"indptr": np.array([0, 2**60], np.int64)}
    assert "p.npz:score: is missing" in refusal(stamped(folder, write_arrays(arrays)))


@pytest.mark.parametrize("table", ["choice_names", "labels", "tags", "modules"])
def test_a_string_may_stand_once_in_a_table(table: str, folder: Path) -> None:
    head = json.loads((folder / "p.json").read_text())
    strings = [*head["columns"].get(table, []), "z", "z"]
    assert f"/columns/{table}/{len(strings) - 1}: 'z' stands twice" in refusal(
        stamped(folder, (folder / "p.npz").read_bytes(), **{table: strings})
    )


def test_a_code_of_minus_one_is_no_tag(folder: Path) -> None:
    arrays = arrays_of(folder)
    arrays["tags/code"][0] = -1
    problem = load_problem(stamped(folder, write_arrays(arrays)))
    assert [g.tags for g in problem.groups][:2] == [("stage1",), ("conv", "stage1")]
    assert problem.in_scope(["conv"]).tolist()[:2] == [False, True]


def test_a_tag_that_no_group_has_scopes_no_budget(folder: Path) -> None:
    """It stands in the table, but in no group: the row form could not say it, so the columns may not either."""
    head = json.loads((folder / "p.json").read_text())
    head["columns"]["tags"].append("unused")
    head["budgets"] = [{"resource": "weight_bytes", "max": 5, "tags": ["unused"]}]
    (folder / "p.json").write_text(json.dumps(head))
    assert "no group has the tag 'unused'" in refusal(folder / "p.json")


@pytest.mark.parametrize(
    "name",
    [
        "../p.npz",
        "/etc/passwd",
        "sub/p.npz",
        "..",
        ".",
        "",
        "a\\b.npz",
        "p.npz\0",
        "~/p.npz",
        "C:\\p.npz",
        "./p.npz",
        "p.npz/",
    ],
)
def test_the_file_stays_in_its_folder(name: str, folder: Path) -> None:
    assert "must be a plain file name in the same folder" in refusal(
        stamped(folder, (folder / "p.npz").read_bytes(), file=name)
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"file": "none.npz"}, "/columns/file: none.npz: No such file or directory"),
        ({"file": "y" * 5000}, "/columns/file"),
        ({"sha256": "0" * 64}, "/columns/sha256: p.npz has sha256"),
        ({"sha256": "abc"}, "/columns/sha256: must be str matching"),
        ({"sha256": None}, "/columns/sha256"),
        ({"file": None}, "/columns/file"),
        ({"actions": [{"bits": 4}]}, "/columns/actions/0/kind"),
        ({"choice_names": "abc"}, "/columns/choice_names"),
        ({"new": 1}, "/columns/new: is not a key here"),
    ],
    ids=str,
)
def test_headers_of_columns_that_do_not_fit(header: dict[str, Any], message: str, folder: Path) -> None:
    assert message in refusal(stamped(folder, (folder / "p.npz").read_bytes(), **header))


def test_numbers_of_interactions_belong_in_the_npz(folder: Path, example: dict[str, Any]) -> None:
    head = json.loads((folder / "p.json").read_text())
    head["interactions"] = example["interactions"]
    (folder / "p.json").write_text(json.dumps(head))
    assert "name only the score" in refusal(folder / "p.json")
    head["interactions"] = [{"score": "ggn"}] * 3
    (folder / "p.json").write_text(json.dumps(head))
    assert "/interactions/2: has neither basis/2 nor pairs/2" in refusal(folder / "p.json")


def test_columns_cannot_come_from_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (folder / "p.json").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    with pytest.raises(ProblemError, match="cannot be read from standard input"):
        load_problem("-")


def test_rows_can_come_from_standard_input(monkeypatch: pytest.MonkeyPatch, example: dict[str, Any]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(example).encode())))
    assert load_problem("-").group_count == G


def outcome(path: Path) -> Problem | ProblemError:
    try:
        return load_problem(path)
    except ProblemError as error:
        return error


def test_random_damage_to_the_archive(folder: Path) -> None:
    rng = Random(0)
    good = (folder / "p.npz").read_bytes()
    squeezed = zipped(members_of(folder), zipfile.ZIP_DEFLATED)
    lzma, bz2 = (zipped(members_of(folder), kind) for kind in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    refused = 0
    for _ in range(times(500)):
        data = bytearray(rng.choice([good, squeezed, lzma, bz2]))
        kind = rng.choice(["cut", "flip", "flip", "drop", "noise"])
        at = rng.randrange(len(data))
        if kind == "cut":
            del data[at:]
        elif kind == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "drop":
            del data[at : at + rng.randint(1, 30)]
        else:
            data[at : at + 8] = rng.randbytes(8)
        problem = outcome(stamped(folder, bytes(data)))
        if isinstance(problem, ProblemError):
            refused += bool(problem.faults[0].message)
        else:
            assert problem_to_rows(problem)
    assert refused > times(330)


def test_random_damage_to_the_numbers(folder: Path) -> None:
    rng = Random(1)
    for _ in range(times(300)):
        arrays = arrays_of(folder)
        name = rng.choice(list(arrays))
        array = arrays[name]
        raw = bytearray(array.tobytes())
        for _ in range(rng.randint(1, 3)):
            if raw:
                raw[rng.randrange(len(raw))] = rng.randrange(256)
        arrays[name] = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
        if array.dtype == bool:
            arrays[name] = arrays[name].view(np.uint8).astype(bool)
        problem = outcome(stamped(folder, write_arrays(arrays)))
        if isinstance(problem, ProblemError):
            assert problem.faults[0].message
        else:
            assert content_sha256(Problem.from_rows(problem_to_rows(problem))) == content_sha256(problem)
