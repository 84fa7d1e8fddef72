"""Tables and plots of the points: what each allocation keeps of a network, and what it takes on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from allocator.figures import pyplot, written
from allocator.methods.judging import interval, paired
from benchmarks.compression.correlation import spearman
from benchmarks.compression.curves import Task
from benchmarks.compression.menus import JOINT, KINDS, RECOVERED, WHOLE, WHOLE_RECOVERED
from benchmarks.compression.points import COMPENSATED, NEAREST, Point
from benchmarks.compression.subjects import SUBJECTS, Subject
from benchmarks.solvers.tables import markdown, plain

HEAD = (
    "curve",
    "at",
    "bytes",
    "times fewer",
    "KL, nat",
    "{metric}",
    "less float, paired",
    "within 1 s.e.",
    "choices",
)
JOINT_HEAD = ("times fewer", "best single kind", "its KL", "joint", "difference (95 %)", "joint is")
TICKS = (2, 3, 4, 5, 6, 8, 11, 14, 18, 24, 32)
"""Of the axis of sizes."""


def write(tasks: Sequence[Task], place: Callable[[Task], Path], out: Path, docs: Path | None) -> None:
    """Tables on stdout and as markdown; plots beside them."""
    found = {task: Point.load(place(task)) for task in tasks if place(task).exists()}
    blocks: list[str] = []
    for subject in SUBJECTS.values():
        own = {task: point for task, point in found.items() if task.subject is subject}
        if not own:
            continue
        rows = [_row(task, point) for task, point in own.items()]
        head = [cell.format(metric=_metric(subject)) for cell in HEAD]
        duel = _duels(subject, own)
        print(f"\n{subject.name}\n{plain(head, rows)}")
        if duel:
            print(plain(JOINT_HEAD, duel))
        for folder in filter(None, (out, docs)):
            folder.mkdir(parents=True, exist_ok=True)
            plot(subject, own, folder / f"compression-{subject.name}.png")
        blocks.append(
            f"## {subject.name}\n\n![KL against bytes](compression-{subject.name}.png)\n\n{markdown(head, rows)}\n"
            + (f"\nJoint against the best single kind:\n\n{markdown(JOINT_HEAD, duel)}\n" if duel else "")
        )
    for folder in filter(None, (out, docs)):
        (folder / "compression-tables.md").write_text("\n".join(blocks), encoding="utf-8")


def shown(task: Task, point: Point) -> str:
    """A line of progress."""
    _, _, size, times, kl, metric, difference, _, _ = _row(task, point)
    return f"{size} bytes, {times}×, KL {kl}, {task.subject.metric} {metric} ({difference})"


def _row(task: Task, point: Point) -> tuple[str, ...]:
    subject, judged = task.subject, point.judged
    kl = judged.value("kl")
    if point.pairs is not None:
        value, gap = spearman(point.pairs)
    else:
        value, gap = judged.value(subject.metric), paired(judged, judged.original, subject.metric)
    at = f"{task.at:g} bits" if task.curve in (NEAREST, COMPENSATED) else f"{task.at:g}×"
    made = ", ".join(f"{name} {count}" for name, count in sorted(point.choices.items()))
    return (
        task.curve,
        at,
        f"{point.bytes:,}".replace(",", " "),
        f"{point.times_fewer:.2f}",
        f"{kl.value:.4g} ± {kl.stderr:.2g}",
        f"{value.value:.4f} ± {value.stderr:.2g}" + _perplexity(subject, value.value),
        f"{gap.value:+.4f} ± {gap.stderr:.2g}",
        "yes" if abs(gap.value) <= gap.stderr or _better(subject, gap.value) else "no",
        made,
    )


def _metric(subject: Subject) -> str:
    return "loss (perplexity)" if subject.metric == "loss" else subject.metric


def _perplexity(subject: Subject, loss: float) -> str:
    """e^loss, of a language model."""
    return f" ({math.exp(loss):.2f})" if subject.metric == "loss" else ""


def _better(subject: Subject, gap: float) -> bool:
    return gap < 0 if subject.metric == "loss" else gap > 0


def _duels(subject: Subject, own: Mapping[Task, Point]) -> list[tuple[str, ...]]:
    """Joint against the single kind of least divergence, at each number of times fewer bytes."""
    rows: list[tuple[str, ...]] = []
    for ratio in subject.ratios:
        at = {task.curve: point for task, point in own.items() if task.at == ratio and task.curve in (*KINDS, JOINT)}
        if JOINT not in at or len(at) < 2:
            continue
        joint = at.pop(JOINT)
        kind = min(at, key=lambda name: at[name].judged.value("kl").value)
        gap = interval(joint.judged, at[kind].judged, "kl")
        said = "not separated" if not gap.separated else "better" if gap.value < 0 else "worse"
        rows.append(
            (
                f"{ratio:g}",
                kind,
                f"{at[kind].judged.value('kl').value:.4g}",
                f"{joint.judged.value('kl').value:.4g}",
                f"{gap.value:+.3g} ({gap.low:+.3g} to {gap.high:+.3g})",
                said,
            )
        )
    return rows


GREY, DARK = "0.65", "0.4"
LOOKS: Mapping[str, tuple[str, str]] = {
    NEAREST: (":s", GREY),
    COMPENSATED: ("-s", GREY),
    WHOLE: (":D", DARK),
    WHOLE_RECOVERED: ("--D", DARK),
    **{kind: ("-o", f"C{place}") for place, kind in enumerate(KINDS)},
    JOINT: ("-o", "k"),
    RECOVERED: ("--^", "k"),
}
"""Line and colour of each curve, the same for all networks."""


def plot(subject: Subject, own: Mapping[Task, Point], path: Path) -> None:
    """KL against bytes, both on logarithmic axes, a line for each curve."""
    plt = pyplot()
    canvas, axes = plt.subplots(figsize=(8, 5.5))
    for curve, (line, colour) in LOOKS.items():
        points = sorted((p for task, p in own.items() if task.curve == curve), key=lambda point: point.bytes)
        if points:
            values = [point.judged.value("kl").value for point in points]
            size = [point.times_fewer for point in points]
            axes.plot(size, values, line, color=colour, label=curve, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="times fewer bytes than the float network's parameters")
    axes.set_ylabel("held-out KL from the float network, nat")
    ticks = [tick for tick in TICKS if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick}×" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_title(f"{subject.name}: each kind alone, and all in one solve")
    axes.legend(fontsize="small")
    written(canvas, str(path))
