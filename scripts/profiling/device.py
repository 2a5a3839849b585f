"""What must be known of the device beside its times: name, memory, driver, clocks."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import torch

from envs.hardware.catalogue import gpus

QUERY = (
    *("name", "driver_version", "pstate", "clocks.sm", "clocks.max.sm", "clocks.mem"),
    *("clocks.max.mem", "power.draw", "power.limit", "temperature.gpu", "ecc.mode.current"),
    "clocks_event_reasons.active",
)
"""Columns asked of nvidia-smi: clocks in MHz, power in W, temperature in degrees Celsius."""


def find_device(name: str) -> torch.device:
    """Find a device that is there: `auto` is the first CUDA device.

    Raises:
        ValueError: There is no such device; the message says what to do.
    """
    if name == "auto":
        name = "cuda"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name}: say cuda, cuda:1 or cpu") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ValueError(
                f"no CUDA device for torch {torch.__version__}: install a build of torch with "
                "CUDA, or try the command with --device cpu"
            )
        if (device.index or 0) >= count:
            raise ValueError(f"--device {name}: there are {count} CUDA devices")
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise ValueError(f"--device {name}: only CUDA devices and the CPU can be timed")
    return device


def gpu_name(asked: str | None, device: torch.device) -> str:
    """Give the name for the rows: the one asked for, else the device's in the catalogue.

    Raises:
        ValueError: No single GPU of the catalogue has the name and the memory of the device.
    """
    if asked is not None:
        return asked
    if device.type == "cpu":
        return "cpu"
    stated = torch.cuda.get_device_properties(device)
    gib = stated.total_memory / 2**30
    found = [
        name
        for name, card in gpus().items()
        if is_named(stated.name, name) and abs(gib / card.memory_gib - 1) < 0.1
    ]
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"{stated.name} with {gib:.0f} GiB is "
        f"{' or '.join(found) if found else 'not in the catalogue'}: name it with --gpu"
    )


def is_named(device_name: str, catalogue_name: str) -> bool:
    """Whether a device's name, such as `NVIDIA A100-SXM4-80GB`, can be that of the catalogue."""
    words = set(device_name.upper().replace("-", " ").split())
    parts = catalogue_name.upper().split("-")
    if "PCIE" in words and any(part.startswith("SXM") for part in parts):
        return False
    return {part for part in parts if not part.startswith("SXM") and part[-2:] != "GB"} <= words


def free_bytes(device: torch.device) -> int:
    """Give the free memory of the device [bytes]."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def device_facts(device: torch.device) -> dict[str, Any]:
    """Give what torch knows of the device."""
    facts: dict[str, Any] = {"device": str(device), "torch": torch.__version__}
    if device.type == "cuda":
        stated = torch.cuda.get_device_properties(device)
        facts |= {
            "device_name": stated.name,
            "memory_gib": round(stated.total_memory / 2**30, 1),
            "compute_capability": f"{stated.major}.{stated.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    else:
        facts |= {"device_name": "CPU", "threads": torch.get_num_threads()}
    return facts


def clocks(device: torch.device) -> dict[str, str]:
    """Ask nvidia-smi for driver, clocks, power, temperature and ECC; empty without an answer."""
    if device.type != "cuda":
        return {}
    which = str(getattr(torch.cuda.get_device_properties(device), "uuid", device.index))
    # Numbers of nvidia-smi count cards that this process may not see; its identity is the same.
    which = f"GPU-{which}" if "-" in which and not which.startswith(("GPU-", "MIG-")) else which
    return nvidia_smi(which, QUERY) or nvidia_smi(which, QUERY[:-1])


def nvidia_smi(which: str, query: tuple[str, ...]) -> dict[str, str]:
    """Give the answer of nvidia-smi by column; empty where it is absent or refuses."""
    words = ["nvidia-smi", f"--query-gpu={','.join(query)}", "--format=csv,noheader", "-i", which]
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [value.strip() for value in told.stdout.strip().split(",")]
    if told.returncode or len(values) != len(query):
        return {}
    return dict(zip(query, values, strict=True))
