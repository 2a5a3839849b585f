"""GPUs, models, prices, and how long a serving engine's step takes on them."""

from envs.hardware.calibration import calibrated, cost_model
from envs.hardware.catalogue import (
    GPU,
    ModelShape,
    gpu,
    gpus,
    kv_capacity_tokens,
    model,
    models,
    price,
)
from envs.hardware.cost_model import PICOSECONDS, CostModel, OutsideFitWarning, StepTables
from envs.hardware.presets import PRESETS, preset
from envs.hardware.roofline import roofline

__all__ = [
    "GPU",
    "PICOSECONDS",
    "PRESETS",
    "CostModel",
    "ModelShape",
    "OutsideFitWarning",
    "StepTables",
    "calibrated",
    "cost_model",
    "gpu",
    "gpus",
    "kv_capacity_tokens",
    "model",
    "models",
    "preset",
    "price",
    "roofline",
]
