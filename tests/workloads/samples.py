"""A small valid file of every format, and what is read from it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:18:04.0319600,110,27
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,1087,230,1317,API log
118,ChatGPT,417,276,693,Conversation log
"""
ARENA = """request_id,client_id,arrival_s,prompt_tokens,output_tokens
0,13,0.000000,13,199
1,2,0.207938,36,137
2,13,0.441893,456,156
"""
SAGESERVE = """request_id,batch_id,client_tenant,request_type,scenario,sla,utility,regions,\
model_type,workload_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size
0,-1,1,2,ES,10,3,102,A,prod,-1,0.5,1,800,100
1,-1,1,2,ES,10,3,012,B,dev,-1,1.5,1,900,1
2,-1,1,2,ES,10,3,12,A,prod,-1,1.5,1,700,9
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1200, "output_length": 6, "hash_ids": [0, 1, 2]}
{"timestamp": 40, "input_length": 1100, "output_length": 4, "hash_ids": [0, 1, 3]}
{"timestamp": 90, "input_length": 700, "output_length": 4, "hash_ids": [0, 1]}
"""
TABLE = """arrival_s,tenant,prompt_tokens,output_tokens
0.0,a,10,3
1.5,b,20,4
2.0,a,30,5
"""
WHOLE = """request_id,arrival_s,region,model,tier,tenant,application,interaction,call_index,\
calls_in_interaction,prompt_tokens,system_tokens,output_tokens,deadline_s,priority,\
predicted_output_tokens,prefix_id,prefix_tokens
4,0.0,eu,m,IW-F,a,chat,7,0,2,10,2,3,9.5,0,4,-1,0
5,1.5,us,m,NIW,b,code,7,1,2,20,0,4,inf,-1,-1,3,8
9,2.0,eu,n,IW-N,a,chat,8,0,1,30,0,5,inf,2,6,3,16
"""
TEXTS = {
    "azure.csv": AZURE,
    "burstgpt.csv": BURSTGPT,
    "arena.csv": ARENA,
    "sageserve.csv": SAGESERVE,
    "mooncake.jsonl": MOONCAKE,
    "table.csv": TABLE,
}
TIME_COLUMN = {
    "azure.csv": "TIMESTAMP",
    "burstgpt.csv": "Timestamp",
    "arena.csv": "arrival_s",
    "sageserve.csv": "arrival_timestamp",
    "table.csv": "arrival_s",
}
OUTPUT_COLUMN = {
    "azure.csv": "GeneratedTokens",
    "burstgpt.csv": "Response tokens",
    "arena.csv": "output_tokens",
    "sageserve.csv": "token_size",
    "table.csv": "output_tokens",
}


def edit(text: str, line: int, column: str, value: str) -> str:
    """The CSV text with one field changed; the header is line 1."""
    rows = [row.split(",") for row in text.splitlines()]
    rows[line - 1][rows[0].index(column)] = value
    return "\n".join(",".join(row) for row in rows) + "\n"


def servegen(folder: Path) -> Path:
    """Client windows of two clients, one of them without lengths."""
    trace = pd.DataFrame(
        {
            "client": [1, 1, 2],
            "t": [0, 600, 0],
            "rate": [0.5, 1.0, 0.1],
            "cv": [1.0, 2.0, 1.0],
            "pat": ["Gamma", "Weibull", "Gamma"],
            "p1": [1.0, 0.5, 1.0],
            "p2": [2.0, 0.5, 10.0],
        }
    )
    levels = {f"q{q}": [10.0 + q, 20.0 + q] for q in (1, 5, 10, 25, 50, 75, 90, 95, 99)}
    lengths = pd.DataFrame(
        {"client": [1, 1], "t": [0, 0], "field": ["input_tokens", "output_tokens"], **levels}
    )
    trace.to_parquet(folder / "language_m-tiny_trace.parquet")
    lengths.to_parquet(folder / "language_m-tiny_lengths_quantiles.parquet")
    return folder / "language_m-tiny_trace.parquet"
