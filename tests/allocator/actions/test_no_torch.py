"""The actions import without torch: costs are for programs that have none."""

from __future__ import annotations

import subprocess
import sys


def test_actions_import_without_torch() -> None:
    code = "import allocator.actions, sys; assert 'torch' not in sys.modules; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
