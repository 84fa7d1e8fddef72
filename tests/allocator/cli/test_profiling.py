"""`allocator profile`: what is asked for on the command line, and what the problem says of it."""

import json

import pytest
import torch

from allocator.cli.choices import choices_of
from allocator.cli.profiling import _command
from allocator.errors import UsageError
from allocator.space import Space

MODEL = """
import torch
from allocator.workload import Workload

def make():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    rows = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long)) for _ in range(3)]
    return Workload(net, rows[:2], rows[2:])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "tiny_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


COMMAND = ("profile", "tiny_model:make", "--profiler", "weight_error", "--bits", "2,4", "--out", "p.json")


def test_a_table_of_times_becomes_a_resource(run, folder):
    rows = [
        {"module": m, "choice": c, "ms": ms}
        for m, scale in (("0", 1), ("2", 10))
        for c, ms in (("int2", 3 * scale), ("int4", 2 * scale), ("keep", scale))
    ]
    (folder / "t.json").write_text(json.dumps(rows))
    code, _, err = run(*COMMAND, "--latency", "t.json")
    assert code == 0, err
    problem = json.loads((folder / "p.json").read_text())
    assert problem["resources"]["latency_ms"] == {"unit": "ms"}  # summed, and no offset
    assert [[c["cost"]["latency_ms"] for c in g["choices"]] for g in problem["groups"]] == [[3, 2, 1], [30, 20, 10]]
    code, out, err = run("solve", "p.json", "--budget", "latency_ms=25", "--json")
    assert json.loads(out)["totals"]["latency_ms"] <= 25
    code, _, err = run(*COMMAND, "--latency", "nowhere.csv")
    assert code == 2
    assert "nowhere.csv: there is no such file" in err


def test_jobs_and_threads_that_cannot_be_meant(run, folder):
    assert "jobs=0: give 1 or more" in run(*COMMAND, "--jobs", "0")[2]
    assert "threads=0: give 1 or more" in run(*COMMAND, "--threads", "0")[2]


def test_threads_are_handed_back(run, folder):
    before = torch.get_num_threads()
    assert run(*COMMAND, "--threads", str(before + 1))[0] == 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("profile m --out p.json --resume --jobs 4 --threads 1", "profile m --out p.json --threads 1"),
        ("profile m --jobs=-1 --out p.json", "profile m --out p.json"),
        ("profile m --out p.json --jobs -1", "profile m --out p.json"),
    ],
)
def test_the_command_of_the_provenance_tells_what_not_how(words, kept):
    assert _command(words.split()) == f"allocator {kept}"


KINDS = ("profile", "tiny_model:make", "--profiler", "weight_error", "--out", "p.json", "--kinds")


def test_kinds_are_offered_together(run, folder):
    code, _, err = run(*KINDS, "bits, channels", "--multiple", "2")
    assert code == 0, err
    assert "2 of 4 channels of 0: read by 2" in err  # three quarters are 3, and no multiple of 2
    problem = json.loads((folder / "p.json").read_text())
    found = {choice["action"]["kind"] for group in problem["groups"] for choice in group["choices"]}
    assert found == {"quantize", "corrected", "slim", "keep"}
    assert problem["provenance"]["command"].endswith("--kinds 'bits, channels' --multiple 2")
    code, _, err = run(*KINDS, "joint", "--fast")
    assert code == 0, err
    problem = json.loads((folder / "p.json").read_text())
    found = {choice["action"]["kind"] for group in problem["groups"] for choice in group["choices"]}
    assert "number_format" in found
    assert "prune" not in found


def test_kinds_keep_the_layers_that_a_model_leaves_out():
    joint = choices_of("smollm2", None, None, None, "joint", 8)
    assert joint.rules[0].choices == "skip"
    assert joint == Space.of_kinds(multiple=8, rules=joint.rules[:1])


def test_a_budget_in_percent_is_one_of_the_float_network_whatever_the_kinds(run, folder):
    code, _, err = run(*KINDS, "bits")
    assert code == 0, err
    problem = json.loads((folder / "p.json").read_text())
    for group in problem["groups"]:
        dearest = max(group["choices"], key=lambda choice: choice["cost"]["weight_bytes"])
        assert dearest["action"] == {"kind": "keep", "dtype": "float32"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("joint,rank",), "there is no kind of compression 'rank': take joint, or some of bits, formats"),
        ((",",), "no kind of compression is given"),
        (("bits,sparsity", "--fast"), "nothing of the kind sparsity is fast"),
        (("joint", "--bits", "2,4"), "--kinds stands beside --space, --bits or --ranks"),
        (("joint", "--space", "s.json"), "--kinds stands beside --space"),
        (("ranks", "--multiple", "0"), "multiple=0: ranks are multiples of a whole number"),
        (("ranks", "--multiple", "8.5"), "--multiple"),
    ],
)
def test_kinds_that_cannot_be_meant(run, folder, words, said):
    code, _, err = run(*KINDS, *words)
    assert code == 2
    assert said in err


@pytest.mark.parametrize("options", [{"multiple": 8}, {"fast": True}])
def test_what_is_said_of_kinds_needs_kinds(options):
    with pytest.raises(UsageError, match="--multiple and --fast are about the menus of --kinds"):
        choices_of("digits", None, "2,4", None, **options)


def test_too_few_samples_to_fit_and_to_score_are_said_in_a_line(run, folder):
    few = MODEL.replace("randn(4, 3), torch.zeros(4,", "randn(1, 3), torch.zeros(1,")
    (folder / "few_model.py").write_text(few)
    code, _, err = run("profile", "few_model:make", "--kinds", "bits", "--profiler", "weight_error", "--out", "p.json")
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if "too few samples" in line]
    assert line.startswith("warning: the calibration data of ")
    assert "UserWarning" not in err
    assert ".py" not in err
