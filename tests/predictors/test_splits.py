"""Reading prompts, and splits through which nothing leaks."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.workloads import TraceError
from envs.workloads.prompts import (
    COMMON_START,
    Prompts,
    count_tokens,
    has_prompts,
    read_prompts,
    related,
    split,
)
from tests.paths import DATA, needs_data

few = settings(deadline=None, max_examples=10)
SENTENCES = [f"Sentence {i} is about {w}." for i in range(12) for w in ("tea", "rain", "iron")]
EXAMPLES = ["Sort the words.\n\nQ: b a\nA: a b" * 12, "Count the dots.\n\nQ: ...\nA: 3" * 14]


def made(texts, tasks=None, answers=None):
    n = len(texts)
    return Prompts(
        np.array(texts, object),
        np.array(answers or [""] * n, object),
        np.array(tasks or [""] * n, object),
        np.full(n, "", object),
        np.full(n, 5),
        np.arange(1, n + 1),
        np.arange(n),
    )


@st.composite
def mixed(draw):
    """Translations of shared sentences, questions behind shared examples, and repeated prompts."""
    rows = []
    for sentence in draw(st.lists(st.sampled_from(SENTENCES), min_size=8, max_size=20)):
        for language in draw(st.lists(st.sampled_from(["German", "Czech", "Hausa"]), min_size=1)):
            text = f"Translate this sentence from English to {language}, Source: {sentence} Target:"
            rows.append((text, "translation", ("sentence", sentence)))
    for start in EXAMPLES:
        for i in range(draw(st.integers(1, 4))):
            rows.append((f"{start}\n\nQ: item {i}\nA:", "examples", ("examples", start)))
    for i in draw(st.lists(st.integers(0, 9), min_size=4, max_size=12)):
        rows.append((f"Tell  me about number {i}", "open", ("prompt", i)))
    return draw(st.permutations(rows))


@given(mixed(), st.integers(0, 3))
@few
def test_nothing_that_belongs_together_is_divided(rows, seed):
    prompts = made([text for text, _, _ in rows], [task for _, task, _ in rows])
    parts = split(prompts, seed=seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(rows)))
    found = {part: {rows[at][2] for at in places} for part, places in parts.items()}
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]


@given(mixed(), st.randoms(use_true_random=False))
@few
def test_the_split_does_not_depend_on_the_order_of_rows(rows, random):
    other = list(rows)
    random.shuffle(other)

    def tested(these):
        prompts = made([text for text, _, _ in these], [task for _, task, _ in these])
        return {these[at][0] for at in split(prompts)["test"]}

    assert tested(rows) == tested(other)


def test_a_common_start_an_answer_and_a_question_join():
    start = "x" * COMMON_START
    long = made([start + "a", start + "b", "x" * 20 + "a", "x" * 20 + "b"])
    assert len(set(related(long)[:2])) == 1 and len(set(related(long))) == 3
    texts = ["to German, Source: Good day. Target:", "to English, Source: Guten Tag! Target:"]
    back = made(texts, answers=["Guten Tag", "Good day"])
    assert len(set(related(back))) == 1
    assert len(set(related(back, "prompt"))) == 2
    asked = made(
        ["Think.\n\nQ: 1\nA: so 2\n\nQ: why?\nA:", "Say.\n\nQ: 0\nA: 1\n\nQ: why?\nA: Let"]
    )
    assert len(set(related(asked))) == 1


def test_equal_prompts_are_joined_however_they_are_set():
    assert len(set(related(made(["Tell me", " tell  ME"]), "prompt"))) == 1


def test_a_split_needs_enough_that_is_apart():
    with pytest.raises(ValueError, match="3: give more"):
        split(made(["one", "one", "two"]))


@needs_data
def test_real_prompts_do_not_leak():
    prompts = read_prompts(DATA / "prompts" / "prompt_response.parquet")
    parts = split(prompts)
    shares = {part: len(rows) / len(prompts) for part, rows in parts.items()}
    assert shares["train"] == pytest.approx(0.7, abs=0.03)
    assert shares["test"] == pytest.approx(0.2, abs=0.03)
    assert {task for task in prompts.task[parts["test"]]} == set(prompts.task)
    seen = [{s for s in prompts.source[rows] if s.startswith("bbh")} for rows in parts.values()]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]

    def sentences(part):
        texts = (t for t in prompts.text[parts[part]] if "Source:" in t)
        return {t.partition("Source:")[2].partition("Target:")[0].strip() for t in texts}

    assert sentences("train") and not sentences("train") & sentences("test")


def test_prompts_are_read_from_each_kind_of_file(tmp_path):
    frame = pd.DataFrame({"prompt": ["Say hello", "Sagen: Ünïcödé"], "response": ["Hello!", ""]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for name in ("a.parquet", "a.jsonl"):
        found = read_prompts(tmp_path / name)
        assert has_prompts(tmp_path / name)
        assert found.output_tokens.tolist() == [2, 1] and found.prompt_tokens[0] == 2
    assert has_prompts(tmp_path / "a.csv")
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n")
    assert not has_prompts(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"text": ["a"]}, "column 'prompt'"),
        ({"prompt": ["a"]}, "column 'response'"),
        ({"prompt": ["a", 3], "response": ["b", "c"]}, "row 1 .*not text"),
        ({"prompt": ["a"], "response_tokens": [-1]}, "no count of tokens"),
        ({"prompt": ["a"], "response_tokens": [1.5]}, "no count of tokens"),
        ({"prompt": [], "response": []}, "no prompts"),
    ],
)
def test_faulty_files_are_told(tmp_path, columns, told):
    path = tmp_path / "bad.jsonl"
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(TraceError, match=told):
        read_prompts(path)


def test_tokens_of_a_text():
    assert [count_tokens(t) for t in ("", "word", "counting", "a, b", "слова")] == [1, 1, 2, 3, 2]
