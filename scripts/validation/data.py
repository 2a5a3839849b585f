"""Where the measurements lie, and what to say when they do not."""

from __future__ import annotations

import os
from pathlib import Path

FOLDERS = {
    "step-times": "step_times",
    "vllm": "vllm_runs",
    "served": "served_latency",
    "a10g": "vtc_a10g",
}
"""What each section reads inside the folder of the measurements."""


def data_folder(given: Path | None, sections: tuple[str, ...]) -> Path:
    """The folder of the measurements: as given, else `SERVEGYM_DATA`, else `../shared/data`.

    It may be absent where no section reads it.

    Raises:
        ValueError: It is absent, or lacks what a section reads.
    """
    folder = given or Path(os.environ.get("SERVEGYM_DATA", "../shared/data"))
    mend = (
        "name the folder of the measurements with --data or SERVEGYM_DATA "
        "(docs/validation.md tells where they come from)"
    )
    if not any(section in FOLDERS for section in sections):
        return folder
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; {mend}")
    for section in sections:
        need = FOLDERS.get(section)
        if need and not (folder / need).is_dir():
            raise ValueError(f"{folder} has no {need}, which the section {section} reads; {mend}")
    return folder
