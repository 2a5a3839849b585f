"""Serving requests with the continuous batching of Hugging Face transformers, random weights.

Nothing is downloaded: the model is made from the sizes of its shape, prompts are random tokens,
and answers run to their drawn length, whatever tokens come.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.hardware.catalogue import ModelShape
from scripts.experiments.machine import now
from scripts.experiments.progress import progress, say
from scripts.profiling.device import clocks, device_facts, free_bytes
from scripts.profiling.plan import USED
from scripts.profiling.run_log import Served, check_folder, summarise, write_run
from scripts.profiling.shapes import end_params, layer_params
from scripts.profiling.stack import ROTARY_BASE
from scripts.profiling.steps import DTYPES
from scripts.profiling.workload import Requests

_POLL_S = 0.5
_INSTALL = "pip install 'servegym[transformers]'"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the engine is set."""

    gpu: str
    precision: str
    layers: int
    """Layers of the model; 0 = all."""
    max_num_seqs: int
    max_batched_tokens: int
    kv_blocks: int | None
    """Blocks of the cache; None = what the memory leaves."""
    block_size: int
    """Tokens of a block."""
    seed: int


def load_transformers() -> Any:
    """Import transformers, told never to use the network.

    Raises:
        ValueError: It is absent, or has no continuous batching of the form used here.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        transformers = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ValueError(f"--engine transformers needs transformers: {_INSTALL}") from None
    if not hasattr(transformers, "ContinuousBatchingConfig"):
        raise ValueError(
            f"transformers {transformers.__version__} has no ContinuousBatchingConfig: {_INSTALL}"
        )
    return transformers


def serve(
    shape: ModelShape,
    device: torch.device,
    engine: Engine,
    requests: Requests,
    folder: Path,
    about: dict[str, Any],
    overwrite: bool = False,
) -> dict[str, float]:
    """Serve the requests at their arrival times, and write the run to `folder`.

    Args:
        shape: Sizes of the model.
        device: Where it runs.
        engine: How the engine is set.
        requests: What arrives.
        folder: Where `requests.jsonl.gz` and `meta.json` go.
        about: What else `meta.json` should hold.
        overwrite: Whether a run that the folder holds may be replaced.

    Returns:
        Counts and means (`run_log.summarise`).

    Raises:
        ValueError: transformers is absent, the folder holds a run, or nothing was served.
    """
    check_folder(folder, overwrite)
    longest = int((requests.prompt_tokens + requests.output_tokens).max())
    if engine.kv_blocks is not None and longest > engine.kv_blocks * engine.block_size:
        raise ValueError(
            f"a request of {longest} tokens exceeds the cache of {engine.kv_blocks} blocks of "
            f"{engine.block_size}: raise --kv-blocks or lower --max-tokens"
        )
    layers = _layers(shape, engine, device)
    transformers = load_transformers()
    say(f"making {layers} layers of {shape.name} in transformers {transformers.__version__} ...")
    model = build_model(transformers, shape, layers, device, DTYPES[engine.precision], engine.seed)
    settings = transformers.ContinuousBatchingConfig(
        page_size=engine.block_size,
        num_blocks=engine.kv_blocks,
        max_batch_tokens=engine.max_batched_tokens,
        max_requests_per_batch=engine.max_num_seqs,
        # Prompts are random, so nothing could be shared; the search for it would only cost time.
        allow_block_sharing=False,
        # Kernels from the network would be fetched otherwise.
        auto_switch_to_flash=False,
        max_blocks_per_request=_blocks(longest, engine.block_size) if _has_flash(device) else None,
        seed=engine.seed,
    )
    greedy = transformers.GenerationConfig(
        do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=1
    )
    rng = np.random.default_rng(engine.seed)
    prompts = [
        rng.integers(0, shape.vocab, int(count)).tolist() for count in requests.prompt_tokens
    ]
    started = now()
    with model.continuous_batching_context_manager(
        generation_config=greedy, continuous_batching_config=settings, block=True
    ) as manager:
        _warm_up(manager, prompts[0])
        before = {"at": "start", **clocks(device)}
        served, lost, preempted, origin, interrupted = _replay(manager, requests, prompts)
        attention = model.config._attn_implementation
        resolved = manager.continuous_batching_config
        cache = {
            "num_gpu_blocks": resolved.num_blocks,
            "block_size": engine.block_size,
            "num_kv_tokens": (resolved.num_blocks or 0) * engine.block_size,
            "enable_prefix_caching": False,
        }
        batching = {name: value for name, value in vars(resolved).items() if _is_plain(value)}
    if not served:
        raise ValueError("the engine served no request; its own messages above tell why")
    summary = summarise(served, len(prompts), origin) | {"preempted": float(preempted)}
    meta = about | {
        "schema_version": 1,
        "model": shape.name,
        "gpu": engine.gpu,
        "engine": "transformers",
        "transformers_version": transformers.__version__,
        "layers": layers,
        "weights": "random",
        "engine_kwargs": {
            "tensor_parallel_size": 1,
            "max_num_seqs": engine.max_num_seqs,
            "max_num_batched_tokens": resolved.max_batch_tokens,
            "dtype": engine.precision,
            "attention": attention,
            "seed": engine.seed,
        },
        "kv_cache": cache,
        "hardware": device_facts(device),
        "clocks": [before, {"at": "end", **clocks(device)}],
        "resolved_config": batching,
        "num_requests": len(prompts),
        "failed": lost,
        "preempted_requests": preempted,
        "started_at": started,
        "finished_at": now(),
        "interrupted": interrupted,
        "summary": summary,
    }
    write_run(folder, served, meta)
    if interrupted:
        say(f"written: {folder}")
        raise KeyboardInterrupt
    return summary


def build_model(
    transformers: Any,
    shape: ModelShape,
    layers: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
) -> Any:
    """Make a Llama of the shape with random weights, on the device at once."""
    config = transformers.LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.ffn,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied_embedding,
        max_position_embeddings=131_072,
        rope_parameters={"rope_type": "default", "rope_theta": ROTARY_BASE},
        bos_token_id=0,
        eos_token_id=1,
    )
    config._attn_implementation = "flash_attention_2" if _has_flash(device) else "sdpa"
    torch.manual_seed(seed)
    # Made in its final format on the device: float32 on the way would take twice the memory.
    with device:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def _layers(shape: ModelShape, engine: Engine, device: torch.device) -> int:
    """Give the layers to make, after checking that the engine can make them."""
    if shape.ffn_matrices != 3:
        raise ValueError(f"{shape.name} is no gated Llama, which is all that this engine is given")
    if not 0 <= engine.layers <= shape.layers:
        raise ValueError(f"--layers {engine.layers}: {shape.name} has {shape.layers}; 0 = all")
    layers = engine.layers or shape.layers
    count = layers * layer_params(shape) + end_params(shape)
    weights, free = count * DTYPES[engine.precision].itemsize, free_bytes(device)
    if weights > USED * free:
        raise ValueError(
            f"{layers} layers of {shape.name} take {weights / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
            "are free: take fewer --layers"
        )
    return layers


def _has_flash(device: torch.device) -> bool:
    return device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None


def _blocks(tokens: int, block_size: int) -> int:
    """Blocks of a request, with one to spare, and even, as the engine rounds them itself."""
    count = -(-tokens // block_size) + 1
    return count + count % 2


def _warm_up(manager: Any, prompt: list[int]) -> None:
    """Serve one short request, so that the first of the run does not pay for the start."""
    manager.add_request(prompt[:16], request_id="warm-up", max_new_tokens=4)
    while manager.is_running():
        result = manager.get_result(timeout=_POLL_S)
        if result is not None and result.is_finished():
            return
    raise ValueError("the engine stopped in its first steps; its own messages above tell why")


def _replay(
    manager: Any, requests: Requests, prompts: list[list[int]]
) -> tuple[list[Served], dict[str, str], int, float, bool]:
    """Send each request at its time and gather what comes back.

    Results come with every token, as a request that the engine evicts and begins again forgets
    the times of its first life.

    Returns:
        What was served, the errors by request, how many were evicted, the time of the start,
        and whether it was interrupted.
    """
    origin, epoch = time.perf_counter(), time.time()
    stop = threading.Event()

    def send() -> None:
        for i, prompt in enumerate(prompts):
            if stop.wait(max(0.0, origin + requests.arrival_s[i] - time.perf_counter())):
                return
            manager.add_request(
                prompt,
                request_id=f"bench-{i}",
                max_new_tokens=int(requests.output_tokens[i]),
                streaming=True,
                record_timestamps=True,
            )

    begun: dict[str, Any] = {}
    served: list[Served] = []
    lost: dict[str, str] = {}
    preempted, interrupted = 0, False
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        with progress("requests", len(prompts)) as advance:
            while len(served) + len(lost) < len(prompts):
                result = manager.get_result(timeout=_POLL_S)
                if result is None:
                    if not manager.is_running():
                        say("the engine has stopped; what it served is kept")
                        break
                    continue
                if result.timestamps:
                    begun.setdefault(result.request_id, result)
                if not result.is_finished():
                    continue
                name, index = result.request_id, int(result.request_id.rpartition("-")[2])
                if result.error is not None or name not in begun:
                    lost[name] = str(result.error or "no token")
                else:
                    first = begun[name]
                    preempted += len(result.timestamps) < len(result.generated_tokens)
                    served.append(
                        Served(
                            request_id=name,
                            input_toks=len(prompts[index]),
                            output_toks=len(result.generated_tokens),
                            arrival_time=epoch + float(requests.arrival_s[index]),
                            queued_ts=first.created_time,
                            scheduled_ts=first.lifespan[0],
                            first_token_ts=first.timestamps[0],
                            last_token_ts=result.timestamps[-1],
                        )
                    )
                advance(1)
    except KeyboardInterrupt:
        interrupted = True
        stop.set()
        # Without this, the engine would first finish all that it was given.
        manager.stop(hard_stop=True)
    finally:
        stop.set()
        sender.join(timeout=_POLL_S)
    return served, lost, preempted, origin, interrupted


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
