"""The memory that a packed model's forward takes beyond what it holds, and what looking up a few rows takes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import nn

from allocator.applier import apply_, units
from allocator.testing.live_bytes import LiveBytes

WIDTH, BATCH = 4096, 8
ACTION = {"kind": "quantize", "bits": 3, "granularity": "group", "group_size": 32}


def memory() -> dict[str, float]:
    """Three linear layers of 67 MB each, packed to 3 bits: bytes over one full weight and the activations.

    `alive`: by torch's operations; `resident`: by the system, in a process of its own (Linux).
    """
    command = [sys.executable, "-m", "benchmarks.packing.memory"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(("alive", "resident"), map(float, told), strict=False))


def lookup() -> dict[str, float]:
    """Milliseconds of a packed embedding of 32,000 × 512 at 4 bits that looks 64 rows up, and of its whole weight."""
    torch.set_num_threads(1)
    action = {"kind": "quantize", "bits": 4}
    model = apply_(nn.Embedding(32000, 512), {"e": {"action": action, "modules": [""]}}, packed=True)
    ids = torch.randint(0, 32000, (64,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(ids), model.weight[ids])
    found = {}
    for name, call in (("rows_ms", lambda: model(ids)), ("whole_ms", lambda: model.weight[ids])):
        seconds = []
        for _ in range(8):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
        found[name] = 1e3 * median(seconds[1:])
    return found


def _main() -> None:
    """Print both ratios, the second where the system tells."""
    torch.set_num_threads(1)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3)))
    apply_(model, {unit.name: {"action": ACTION} for unit in units(model)}, packed=True)
    x = torch.randn(BATCH, WIDTH)
    allowed = 4 * WIDTH * WIDTH + 2 * 4 * BATCH * WIDTH  # one weight, what goes into a layer and what comes out
    with torch.no_grad():
        model[0](x[:1, :])  # what a library sets up once is not the model's
        before = _reset()
        model(x)
        after = _status("VmHWM")
        with LiveBytes() as live:
            model(x)
    print(live.peak / allowed, *([] if before is None else [(after - before) / allowed]))


def _reset() -> float | None:
    """Bytes resident now; the system counts the most from here on. None where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _status(key: str) -> float:
    found = re.search(rf"{key}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return 1024.0 * int(found[1]) if found else float("nan")


if __name__ == "__main__":
    _main()
