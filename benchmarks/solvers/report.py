"""From results.jsonl to tables, a plot and results.json: `python -m benchmarks.solvers.report --out DIR`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec

from benchmarks.solvers.goals import SUBJECT
from benchmarks.solvers.judge import Verdict, judge
from benchmarks.solvers.profile import plot
from benchmarks.solvers.records import Record, load, wrong
from benchmarks.solvers.tables import duration, markdown, plain

GOAL_HEAD = ("case", "goal", "measured", "best correct MIP", "met, or the distance")
FILES = ("goals.md", "goals.txt", "cases.md", "cases.txt", "results.json", "profile.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files again from what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers.report", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder with results.jsonl")
    parser.add_argument(
        "--figure", choices=("first", "second", "best"), default="first", help="the call that is judged"
    )
    parser.add_argument("--subject", default=SUBJECT, help="the backend that the goals are held against")
    options = parser.parse_args(argv)
    if not (options.out / "results.jsonl").exists():
        print(f"error: there is no {options.out / 'results.jsonl'}; run python -m benchmarks.solvers", file=sys.stderr)
        return 2
    write(options.out, options.figure, options.subject)
    return 0


def write(out: Path, which: str = "first", subject: str = SUBJECT) -> None:
    """goals.md and cases.md (and .txt), results.json and profile.png beside results.jsonl; the tables on stdout."""
    records = load(out / "results.jsonl")
    verdicts = judge(records, which, subject)
    goals = [v.cells() for v in verdicts if v.met is not None]
    head, rows = matrix(records, which)
    notes = remarks(records, verdicts, which)
    for name, draw in (("md", markdown), ("txt", plain)):
        (out / f"goals.{name}").write_text(draw(GOAL_HEAD, goals) + "\n" + notes, encoding="utf-8")
        (out / f"cases.{name}").write_text(draw(head, rows) + "\n" + notes, encoding="utf-8")
    together = {
        "figure": which,
        "subject": subject,
        "machines": sorted({r.machine for r in records}),
        "goals": [asdict(v) for v in verdicts],
        "wrong": sorted(wrong(records)),
        "records": records,
    }
    (out / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(together), indent=1))
    drawn = plot(records, out / "profile.png", which)
    print(plain(GOAL_HEAD, goals))
    print(plain(head, rows))
    print(notes, end="")
    if not drawn:
        print("No plot: matplotlib is missing (pip install '.[report]'), or no case was solved.", file=sys.stderr)


def matrix(records: Iterable[Record], which: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Case by solver: CPU seconds of the backend's call (a MIP library's own), and what came of it."""
    records = [r for r in records if r.case != "imports"]
    false = wrong(records)
    names = list(dict.fromkeys(r.solver for r in records))
    cells = {((r.case, r.seed), r.solver): _cell(r, (r.case, r.seed, r.solver) in false, which) for r in records}
    cases = list(dict.fromkeys((r.case, r.seed) for r in records))
    seeds = Counter(case for case, _ in cases)
    rows = []
    for case, seed in cases:
        shown = f"{case}@{seed}" if seeds[case] > 1 else case
        rows.append((shown, *(cells.get(((case, seed), name), "") for name in names)))
    return ("case", *names), rows


def _cell(record: Record, false: bool, which: str) -> str:
    if record.outcome != "ran":
        return {"declined": "does not take it", "killed": record.note}.get(record.outcome, record.outcome)
    seconds = record.seconds("library", which) or record.seconds("call", which) or record.seconds("whole", which)
    text = duration(seconds)
    if false:
        return f"WRONG, {text}"
    if record.solver == "frontier":
        return f"{text}, {record.points} points"
    if record.status == "optimal":
        return text
    if record.claim == "optimal":
        return f"{text}, claimed"
    gap = "" if record.gap is None else f", gap {record.gap:.1g}"
    return f"{'stopped' if record.limit else record.status} at {text}{gap}"


def remarks(records: Sequence[Record], verdicts: Sequence[Verdict], which: str) -> str:
    """What the figures are, in words, for under a table."""
    said = [v for v in verdicts if v.met is not None]
    false = sorted(wrong(records))
    call = {"first": "first call in a fresh process", "second": "second call", "best": "best of five warm calls"}[which]
    lines = [
        f"CPU seconds, one thread, {call} (with several rounds the best of them); MIP libraries: their own call in a "
        "worker that has imported them, without our model building. Unmarked answers are proved optimal by the core; "
        '"claimed": by the backend only, and unbeaten; "wrong": claimed, and beaten by more than 1e-9.',
        f"{sum(bool(v.met) for v in said)} of {len(said)} goals measured are met. Wrong answers: "
        + (", ".join(f"{solver} on {case}@{seed}" for case, seed, solver in false) or "none")
        + ".",
    ]
    machines = sorted({r.machine for r in records})
    absent = list(dict.fromkeys(v.case for v in verdicts if v.met is None))
    if absent:
        lines.append(f"Goals without a measurement here: {', '.join(absent)}.")
    loads = sorted(r.load for r in records) or [0.0]
    busy = f"load average (this run included) {loads[len(loads) // 2]:.1f} in the median, {loads[-1]:.1f} at most"
    lines.append(f"Machine: {'; '.join(machines)}; {busy}. Time limits are wall seconds.")
    if len(machines) > 1:
        lines.append("Figures of several machines are mixed: ratios between them mean nothing.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
