"""Where the tests find real traces and measurements, which the project does not ship."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_DATA = Path(os.environ.get("SERVEGYM_DATA", ROOT.parent / "shared" / "data"))
DATA: Path | None = _DATA if _DATA.is_dir() else None
needs_data = pytest.mark.skipif(
    DATA is None,
    reason="real traces and GPU measurements are absent: set SERVEGYM_DATA to their folder",
)
