"""Workloads: the request table, readers of public trace formats, synthetic generators."""

from .adversaries import (
    application_costs,
    heaviest,
    honest_rows,
    honest_tenant,
    idle_then_burst,
    inflate_calls,
    misdeclare_application,
    pad_prompts,
    sent_by,
    split_identities,
    unmask,
)
from .arrivals import PROCESSES, arrivals, within
from .azure import azure
from .columns import COLUMNS, MAX_TIME_S, MAX_TOKENS, TIERS
from .errors import TraceError, UnknownFormatError
from .generators import HEAVY_DECODE_TOKENS, router_classes, router_mix
from .labels import Labels
from .o365 import O365
from .parts import drawn_parts, parquet_rows, predicted_parts, read_parts, router_mix_parts
from .prompt_mix import prompt_mix
from .readers import TRACE_FORMATS, TraceWarning, read_trace, trace_files, trace_format
from .sageserve import write_sageserve
from .servegen_week import ServeGenWeek
from .summary import convert, describe
from .table import RequestTable
from .tenants import copilot_calls, copilot_replay
from .vtc import VTC_SUITES, VtcSuite, vtc_suite

__all__ = [
    "COLUMNS",
    "HEAVY_DECODE_TOKENS",
    "MAX_TIME_S",
    "MAX_TOKENS",
    "O365",
    "PROCESSES",
    "TIERS",
    "TRACE_FORMATS",
    "VTC_SUITES",
    "Labels",
    "RequestTable",
    "ServeGenWeek",
    "TraceError",
    "TraceWarning",
    "UnknownFormatError",
    "VtcSuite",
    "application_costs",
    "arrivals",
    "azure",
    "convert",
    "copilot_calls",
    "copilot_replay",
    "describe",
    "drawn_parts",
    "heaviest",
    "honest_rows",
    "honest_tenant",
    "idle_then_burst",
    "inflate_calls",
    "misdeclare_application",
    "pad_prompts",
    "parquet_rows",
    "predicted_parts",
    "prompt_mix",
    "read_parts",
    "read_trace",
    "router_classes",
    "router_mix",
    "router_mix_parts",
    "sent_by",
    "split_identities",
    "trace_files",
    "trace_format",
    "unmask",
    "vtc_suite",
    "within",
    "write_sageserve",
]
