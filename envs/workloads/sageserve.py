"""Request tables as the CSV that SageServe's public simulator reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from .errors import TraceError
from .o365 import MODELS, REGIONS
from .table import RequestTable

_SLA_S = (10, 10, 43_200)  # by tier: of the authors' preparation of traces
_UTILITY = (3, 3, 1)  # the weights of their plots


def write_sageserve(
    table: RequestTable,
    path: str | Path,
    models: tuple[str, ...] = MODELS,
    regions: tuple[str, ...] = REGIONS,
    seed: int = 0,
) -> Path:
    """Write a request table for SageServe's simulator; `read_trace` reads it back.

    The tiers IW-F and IW-N become "prod", NIW "dev"; deadlines and predictions have no column
    there. The preferred regions are the request's own and then the others in random order, as in
    the authors' traces.

    Args:
        table: The requests.
        path: Where to write; `.gz` packs it.
        models: Models of the types A, B, C, D.
        regions: Regions of the codes 0, 1, 2.
        seed: Seed of the order of the other regions.

    Raises:
        TraceError: A model or region of the table is none of these.
    """
    codes = {}
    for name, known in {"model": models, "region": regions}.items():
        labels = getattr(table, name)
        place = np.array([known.index(n) if n in known else -1 for n in labels.names])
        codes[name] = place[labels.codes]
        for row in np.flatnonzero(codes[name] < 0)[:1]:
            raise TraceError(
                f"row {row} (counted from 0): the value {labels[int(row)]!r} is unknown",
                mend=f"Known are: {', '.join(known)}; name others with {name}s=",
                column=name,
            )
    own = codes["region"]
    turn = 1 + np.random.default_rng(seed).integers(0, 2, len(table))
    second, third = (own + turn) % 3, (own + 3 - turn) % 3
    tier = table.tier.codes
    pd.DataFrame(
        {
            "request_id": table.request_id,
            "batch_id": -1,
            "client_tenant": own,
            "request_type": 2,
            "scenario": table.application.to_pandas(),
            "sla": np.array(_SLA_S)[tier],
            "utility": np.array(_UTILITY)[tier],
            "regions": [f"{a}{b}{c}" for a, b, c in zip(own, second, third, strict=True)],
            "model_type": np.array(list("ABCD"))[codes["model"]],
            "workload_type": np.array(["prod", "prod", "dev"])[tier],
            "application_id": -1,
            "arrival_timestamp": table.arrival_s,
            "batch_size": 1,
            "prompt_size": table.prompt_tokens,
            "token_size": table.output_tokens,
        }
    ).to_csv(path, index=False)
    return Path(path)
