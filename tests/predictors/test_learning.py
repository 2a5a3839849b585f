"""Predictors learn, are stored without pickles, and go on where they stopped."""

import json
import shutil

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.run_folder import RunFolder
from envs.workloads import RequestTable, router_mix
from predictors.response_length import (
    DataNote,
    Examples,
    Recipe,
    Settings,
    find_predictor,
    fit,
    latency_ms,
    load_predictor,
    read_backbone,
    scores,
    shipped,
    tenant_history,
    untrained,
)
from predictors.response_length.classical import KINDS
from predictors.response_length.heads import build_head
from predictors.response_length.settings import Learned
from tests.predictors.tiny import SMALL, examples, run_small


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return examples(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def learned(tmp_path_factory, parts):
    return run_small(tmp_path_factory.mktemp("runs") / "run", parts)


def judged(folder, parts):
    return scores(load_predictor(folder).predict(parts["test"]), parts["test"])


def same(one, other):
    np.testing.assert_array_equal(one.knots, other.knots)
    np.testing.assert_array_equal(one.below, other.below)


def test_a_text_predictor_beats_the_majority(learned, parts):
    found = judged(learned.folder, parts)
    assert found["bucket_accuracy"] > found["majority_rate"] + 0.3
    assert found["tau"] > 0.7 and 0.6 < found["coverage_80"] <= 1.0
    assert learned.validation["tau"] > 0.7
    assert latency_ms(load_predictor(learned.folder), parts["test"], repeats=2) > 0


@pytest.mark.parametrize("head", ["quantile", "classifier", "ranking"])
def test_every_head_learns_and_gives_a_distribution(head, parts, tmp_path):
    outcome = run_small(tmp_path / "run", parts, {"head": head})
    found = judged(outcome.folder, parts)
    assert found["tau"] > 0.55 and found["bucket_accuracy"] > found["majority_rate"]
    predicted = load_predictor(outcome.folder).predict(parts["test"])
    levels = np.linspace(0.01, 0.99, 25)
    assert (np.diff([predicted.quantile(level) for level in levels], axis=0) >= -1e-9).all()
    assert (predicted.expected_remaining(predicted.quantile(0.5)) >= 1.0).all()


def test_a_saved_predictor_predicts_bit_for_bit_the_same(learned, parts, tmp_path):
    model = load_predictor(learned.folder)
    (tmp_path / "again").mkdir()
    model.save(tmp_path / "again")
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert names == {"predictor.json", "predictor.safetensors"}
    again = load_predictor(tmp_path / "again")
    same(model.predict(parts["test"]), again.predict(parts["test"]))
    assert "# Response-length predictor" in (learned.folder / "best" / "README.md").read_text()
    kept = [p.suffix for p in learned.folder.rglob("*") if p.is_file()]
    assert not {".pt", ".pth", ".pkl", ".zip", ".bin"} & set(kept)


def test_pickles_and_changed_files_are_refused(learned, tmp_path):
    folder = shutil.copytree(find_predictor(learned.folder), tmp_path / "copy")
    weights = folder / "predictor.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ValueError, match="SHA-256"):
        load_predictor(folder)
    torch.save({"w": torch.zeros(2)}, weights)
    with pytest.raises(ValueError, match="SHA-256"):
        load_predictor(folder)
    about = json.loads((folder / "predictor.json").read_text())
    import hashlib

    about["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "predictor.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_predictor(folder)
    about["settings"]["width"] = "wide"
    (folder / "predictor.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"settings\.width"):
        load_predictor(folder)


def test_a_resumed_run_gives_the_weights_of_one_that_never_stopped(learned, parts, tmp_path):
    done = [0]

    def late():
        done[0] += 1
        return done[0] > 25

    stopped = run_small(tmp_path / "run", parts, should_stop=late)
    assert stopped.interrupted and 0 < stopped.epochs < learned.epochs
    from predictors.response_length import RunSettings, train

    run = RunFolder(tmp_path / "run")
    config = RunSettings.read(run.folder)
    outcome = train(config, parts["train"], parts["validation"], run, resume=True)
    assert (outcome.interrupted, outcome.epochs) == (False, learned.epochs)
    one = load_predictor(run.last_checkpoint()).state_dict()
    other = load_predictor(RunFolder(learned.folder).last_checkpoint()).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)
    with pytest.raises(ValueError, match="other examples"):
        few = parts["train"].take(slice(0, 64))
        wider = config.model_copy(update={"data": DataNote(name="else")})
        train(wider, few, parts["validation"], run, resume=True)


def test_curves_are_written(learned):
    events = EventAccumulator(str(learned.folder / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "validation/loss", "validation/tau", "validation/mae_tokens"} <= tags
    assert {"calibration/coverage_80", "calibration/coverage_95"} <= tags
    assert len(events.Scalars("train/loss")) == learned.epochs


def test_training_stops_when_it_no_longer_improves(parts, tmp_path):
    changes = {"epochs": 30, "patience": 1, "learning_rate": 0.5}
    outcome = run_small(tmp_path / "run", parts, changes)
    assert outcome.epochs < 30 and outcome.best_epoch < outcome.epochs


@pytest.mark.parametrize("kind", KINDS)
def test_classical_predictors_beat_the_majority_and_are_stored(kind, parts, tmp_path):
    if kind not in {"majority", "task_mean"}:
        pytest.importorskip("sklearn", reason="needs scikit-learn: the extra predictors")
    model = fit(Recipe(kind=kind), parts["train"], parts["validation"])
    found = scores(model.predict(parts["test"]), parts["test"])
    if kind == "majority":
        assert found["bucket_accuracy"] == pytest.approx(found["majority_rate"], abs=0.1)
    if kind in {"tfidf", "boosting_text"}:
        assert found["bucket_accuracy"] > found["majority_rate"] + 0.3
    (tmp_path / "one").mkdir()
    model.save(tmp_path / "one")
    again = load_predictor(tmp_path / "one")
    same(model.predict(parts["test"]), again.predict(parts["test"]))


def test_trees_are_those_of_scikit_learn(parts):
    ensemble = pytest.importorskip("sklearn.ensemble", reason="needs scikit-learn")
    from predictors.response_length.trees import Trees

    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3)).astype(np.float32)
    truth = features[:, 0] * features[:, 1]
    model = ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0)
    model.fit(features, truth)
    own = Trees.of(model.estimators_[:, 0])
    total = truth.mean() + model.learning_rate * own.total(features)[:, 0]
    np.testing.assert_allclose(total, model.predict(features), rtol=1e-6, atol=1e-6)
    tensors = own.tensors()
    tensors["left"][0] = 0
    with pytest.raises(ValueError, match="leads back"):
        Trees.from_tensors(tensors)


def test_without_scikit_learn_the_message_says_what_to_install(parts, monkeypatch):
    from predictors.response_length import trees

    def absent(name):
        raise ModuleNotFoundError("no", name="sklearn")

    monkeypatch.setattr(trees.importlib, "import_module", absent)
    with pytest.raises(ValueError, match=r"pip install 'servegym\[predictors\]'"):
        fit(Recipe(kind="boosting"), parts["train"], parts["validation"])


def test_a_missing_backbone_is_told_and_nothing_is_fetched(tmp_path, monkeypatch):
    import socket

    def refuse(*args, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ValueError, match="Nothing is downloaded here"):
        read_backbone(tmp_path / "distilbert-base-uncased")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match="pickled"):
        read_backbone(tmp_path)


def test_a_backbone_from_disk_is_trained_and_stored(parts, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the extra transformers")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "give",
        "a",
        "brief",
        "plain",
        "detailed",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join([*words, "endless", "account", "of", "."]))
    tokenizer = transformers.DistilBertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    config = transformers.DistilBertConfig(
        vocab_size=len(tokenizer), dim=16, hidden_dim=32, n_layers=1, n_heads=2
    )
    transformers.DistilBertModel(config).save_pretrained(tmp_path / "weights")
    tokenizer.save_pretrained(tmp_path / "weights")
    backbone = read_backbone(tmp_path / "weights")
    changes = {"encoder": "pretrained", "epochs": 6}
    outcome = run_small(tmp_path / "run", parts, changes, backbone=backbone)
    model = load_predictor(outcome.folder)
    again = load_predictor(outcome.folder)
    same(model.predict(parts["test"]), again.predict(parts["test"]))
    found = judged(outcome.folder, parts)
    assert found["bucket_accuracy"] > found["majority_rate"]


def test_a_metadata_predictor_reads_a_request_table(tmp_path):
    tables = [router_mix(600, 8.0, seed) for seed in range(3)]
    parts = dict(
        zip(("train", "validation", "test"), map(Examples.from_table, tables), strict=True)
    )
    changes = {"encoder": "metadata", "epochs": 6, "batch_size": 64, "hint": False}
    outcome = run_small(tmp_path / "run", parts, changes)
    model = load_predictor(outcome.folder)
    found = scores(model.predict(parts["test"]), parts["test"], (64, 147, 256))
    assert found["tau"] > 0.3 and found["coverage_90"] == pytest.approx(0.9, abs=0.06)
    unknown = RequestTable.from_columns(arrival_s=[0], prompt_tokens=[9], output_tokens=[1])
    assert model.predict(Examples.from_table(unknown)).predicted_tokens()[0] >= 1
    with pytest.raises(ValueError, match="no requests"):
        model.predict(parts["test"].take(slice(0, 0)))


def test_history_holds_only_what_was_known():
    table = RequestTable.from_columns(
        arrival_s=[0, 10, 70, 75, 200],
        prompt_tokens=[1] * 5,
        output_tokens=[100, 10, 1, 1, 7],
        tenant=["a", "a", "a", "b", "a"],
    )
    count, log_mean = tenant_history(table, delay_s=60)
    assert count.tolist() == [0, 0, 2, 0, 3]
    np.testing.assert_allclose(np.exp(log_mean), [1, 1, np.sqrt(1000), 1, 10], rtol=1e-9)


def test_a_text_predictor_without_texts_says_so(learned):
    table = RequestTable.from_columns(arrival_s=[0], prompt_tokens=[9], output_tokens=[1])
    with pytest.raises(ValueError, match="needs prompts"):
        load_predictor(learned.folder).predict(Examples.from_table(table))
    with pytest.raises(ValueError, match="those that come with the package"):
        load_predictor("nowhere")


def test_the_hint_reaches_the_predictor(parts):
    model = untrained(Settings(**SMALL), parts["train"], DataNote(name="tiny"))
    few = parts["test"].take(slice(0, 4))
    told = model.encoder.prepare(few)
    deaf = untrained(Settings(**SMALL, hint=False), parts["train"], DataNote(name="tiny"))
    assert told[0][0][:3] == ["this", "is", "a"]
    assert deaf.encoder.prepare(few)[0][0][:3] == ["give", "a", told[0][0][8]]


def test_a_ranking_head_wants_the_longest_first():
    head = build_head(Settings(**SMALL, head="ranking"), Learned(), 4)
    lengths = torch.tensor([5, 50, 500])
    good, bad = torch.tensor([[0.0], [2.0], [4.0]]), torch.tensor([[4.0], [2.0], [0.0]])
    assert head.loss(good, lengths) < head.loss(bad, lengths)


@pytest.mark.parametrize("name", shipped())
def test_what_is_shipped_is_small_loads_and_carries_its_card(name):
    folder = find_predictor(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5 * 2**20
    assert (folder / "README.md").read_text().startswith("# Response-length predictor")
    model = load_predictor(name)
    batch = Examples(
        np.array([12, 900]),
        np.array(["translation", "unheard of"], object),
        np.array(["Translate: hello", "Tell me a story"], object),
    )
    assert (model.predict(batch).predicted_tokens() >= 1).all()
