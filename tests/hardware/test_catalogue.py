"""Catalogue rows agree with one another, and names are found."""

from __future__ import annotations

import pytest

from envs.hardware import gpu, gpus, kv_capacity_tokens, model, models, price
from envs.hardware.catalogue import prices


@pytest.mark.parametrize("name", list(models()))
def test_kv_bytes_follow_from_the_shape(name: str) -> None:
    shape = model(name)
    if shape.attention == "mla":
        # DeepSeek's latent: 512 values and 64 rotary ones a layer, whatever the heads.
        assert shape.kv_bytes_per_token == shape.layers * (512 + 64) * 2
    else:
        expected = 2 * shape.layers * shape.kv_heads * shape.head_dim * 2
        assert shape.kv_bytes_per_token == expected


@pytest.mark.parametrize("name", list(models()))
def test_parameters_are_sound(name: str) -> None:
    shape = model(name)
    assert 0 < shape.active_params <= shape.params
    assert shape.expert_params < shape.params
    assert bool(shape.experts) == (shape.active_params < shape.params / 2)
    assert shape.source and shape.checked


@pytest.mark.parametrize("name", list(gpus()))
def test_gpu_peaks_are_sound(name: str) -> None:
    card = gpu(name)
    assert 0.1 < card.hbm_tb_per_s < 20 and 10 < card.bf16_tflops < 5_000
    assert card.fp8_tflops == 0 or card.fp8_tflops == pytest.approx(2 * card.bf16_tflops, rel=0.02)
    assert card.source and (card.verified or card.checked)


def test_every_price_belongs_to_a_known_gpu_and_spot_is_cheaper() -> None:
    for row in prices():
        assert row.gpu in gpus() and row.gpus >= 1 and row.source
        assert row.on_demand is not None
        assert row.spot is None or row.spot < row.on_demand


def test_kv_capacity_counts_grouped_heads() -> None:
    assert model("Llama-3.1-8B").kv_bytes_per_token == 131_072
    assert model("Llama-2-7B").kv_bytes_per_token == 524_288
    grouped = kv_capacity_tokens("Llama-3.1-8B", "A100-SXM-80GB")
    every = kv_capacity_tokens("Llama-2-7B", "A100-SXM-80GB")
    assert 3.7 < grouped / every < 4.0


def test_kv_capacity_meets_what_vllm_kept() -> None:
    # data/vllm_runs/RTX4090_Llama-3.1-8B/meta.json: num_kv_tokens at utilisation 0.9.
    assert kv_capacity_tokens("Llama-3.1-8B", "RTX-4090") == pytest.approx(41_408, rel=0.02)
    # arXiv:2408.13510's setting holds 28-30 thousand tokens.
    assert kv_capacity_tokens("Llama-2-7B", "V100") == pytest.approx(29_000, rel=0.04)


def test_tensor_parallelism_splits_heads_until_they_run_out() -> None:
    shape = model("Llama-3.1-70B")
    assert shape.kv_bytes_per_gpu(8) == shape.kv_bytes_per_token / 8
    assert shape.kv_bytes_per_gpu(16) == shape.kv_bytes_per_token / 8
    latent = model("DeepSeek-V3")
    assert latent.kv_bytes_per_gpu(8) == latent.kv_bytes_per_token


def test_a_model_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="raise tensor_parallel"):
        kv_capacity_tokens("Llama-3.1-70B", "A100-SXM-80GB")
    assert kv_capacity_tokens("Llama-3.1-70B", "H100", 1, precision="fp4") > 0
    with pytest.raises(ValueError, match="memory_utilization"):
        kv_capacity_tokens("Llama-3.1-8B", "H100", memory_utilization=0.0)
    with pytest.raises(KeyError, match="bf16"):
        kv_capacity_tokens("Llama-3.1-8B", "H100", precision="fp12")


def test_names_are_found_in_any_spelling() -> None:
    assert gpu("h100").name == "H100-SXM-80GB"
    assert gpu("l4").name == "L4"
    assert model("meta-llama/Llama-3.1-8B-Instruct").name == "Llama-3.1-8B"
    assert model("Qwen/Qwen3-30B-A3B-Instruct-2507").name == "Qwen3-30B-A3B"


def test_unknown_names_list_close_ones() -> None:
    with pytest.raises(KeyError, match="A100-SXM-40GB, A100-SXM-80GB"):
        gpu("A100")
    with pytest.raises(KeyError, match=r"Llama-3\.1-8B"):
        model("Lama-3.1-8B")
    with pytest.raises(KeyError, match="Mixtral-8x7B"):
        model("")


def test_prices_are_per_gpu_hour() -> None:
    assert price("H100", cloud="AWS", region="us-east-1") == pytest.approx(98.32 / 8)
    assert price("A10G") == pytest.approx(1.006)
    assert price("H100", spot=True) < price("H100")
    assert price("H100", cloud="azure", region="westeurope") == pytest.approx(98.0 / 8)
    with pytest.raises(KeyError, match="no spot price of L40S"):
        price("L40S", spot=True)
    with pytest.raises(KeyError, match="AWS us-east-1"):
        price("H100", cloud="AWS", region="mars-1")
