"""What the profilers are meant to reach, as data; the report states what was measured, and the distance."""

from __future__ import annotations

from benchmarks.goal import Goal

CNN, TRANSFORMER, LANGUAGE = "fashion-resnet20", "fashion-vit", "smollm2"


def _both(row: str, value: str, what: str, cnn: float, transformer: float) -> list[Goal]:
    return [
        Goal(row=row, value=value, what=what, network=CNN, least=cnn),
        Goal(row=row, value=value, what=what, network=TRANSFORMER, least=transformer),
    ]


def _most(row: str, value: str, what: str, most: float, unit: str) -> list[Goal]:
    return [Goal(row=row, value=value, what=what, network=n, most=most, unit=unit) for n in (CNN, TRANSFORMER)]


GOALS: tuple[Goal, ...] = (
    *_most("cost", "S1", "ggn, one sketch: CPU time", 4, " FB"),
    *_most("cost", "S4", "ggn, four sketches: CPU time", 6, " FB"),
    *_both("single", "all", "ggn, single choices: Spearman with held-out KL", 0.99, 0.99),
    *_both("single", "within", "the same within one width, mean over widths", 0.93, 0.93),
    *_both("whole ggn", "pooled", "ggn, 160 whole networks: Spearman with held-out KL", 0.95, 0.95),
    *_both("whole ggn", "3-6", "the same, 40 networks of 3 to 6 bits", 0.87, 0.87),
    *_both("whole refined", "pooled", "refined, 160 whole networks: Spearman with held-out KL", 0.98, 0.98),
    *_both("whole refined", "3-6", "the same, 40 networks of 3 to 6 bits", 0.92, 0.92),
    *(
        Goal(
            row="whole refined",
            value="scale",
            what="refined: median predicted/measured where KL < 0.3",
            network=network,
            least=0.8,
            most=1.2,
        )
        for network in (CNN, TRANSFORMER)
    ),
    *_most("refine cost", "refined", "refined: CPU time", 25, " FB"),
    *_both("allocated ggn", "share", "ggn at 3 bits: share of uniform's excess test loss removed", 0.65, 0.55),
    *_both("allocated refined", "share", "refined at 3 bits: share of uniform's excess test loss removed", 0.80, 0.70),
    *_both("prefix", "speedup", "kl with remembered prefix against whole runs: times faster (CPU)", 2.0, 1.6),
    *_both("prefix", "exact", "the same bits (1 = yes)", 1, 1),
    *_both("untouched", "share", "installed profilers that leave the network bit-identical: share", 1, 1),
    Goal(row="smollm2", value="minutes", what="SmolLM2 from start to end", network=LANGUAGE, most=10, unit=" min"),
    Goal(row="smollm2", value="GiB", what="SmolLM2: most resident memory", network=LANGUAGE, most=8, unit=" GiB"),
    Goal(row="smollm2", value="ppl4", what="SmolLM2 at 4.0 bits: perplexity", network=LANGUAGE, most=33.2),
    Goal(row="smollm2", value="ppl5", what="SmolLM2 at 5.0 bits: perplexity", network=LANGUAGE, most=23.5),
)
