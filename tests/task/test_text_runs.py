"""Language models on texts, from documents to summaries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import truerisk
from truerisk.assemble import assemble
from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

RUN = ["data=text", "model=gpt", "optimizer=adamw", "optimizer.lr=0.01", "regularizer=[]"]
RUN += ["model.width=16", "model.depth=1", "model.heads=2", "data.source.context=16"]
RUN += ["trainer.max_epochs=2", "metric=[nll,perplexity,bits_per_byte]"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Documents of uneven length, of one letter each or of six: some are easy, and some are not."""
    folder, draw = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    for k in range(40):
        letters = draw.choice(list("abcdefghé"), size=1 + 5 * (k % 2), replace=False)
        words = draw.choice(letters, size=int(draw.integers(20, 120)))
        (folder / f"{k}.txt").write_text("".join(words), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(texts, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1)
        cfg = compose([*RUN, f"data.source.path={texts}"])
        return truerisk.train(cfg, folder=tmp_path_factory.mktemp("runs") / "run")


def list_losses(run):
    """Return losses, document and bytes of each token of the test split."""
    data = assemble(run.config).data
    with torch.no_grad():
        outputs = run.model(data.test.x)
    y = data.test.y
    losses = torch.nn.functional.cross_entropy(outputs.mT.double(), y, reduction="none")
    sizes = torch.tensor(data.count_token_bytes())[y]
    return losses.flatten().numpy(), data.groups["test"].flatten().numpy(), sizes.flatten().numpy()


def sum_documents(values, owners):
    return np.bincount(owners, weights=values)


def test_the_error_of_the_risk_is_clustered_by_document(run):
    losses, owners, _ = list_losses(run)
    risk = run.summary["risk/test"]
    assert risk.value == pytest.approx(losses.mean(), rel=1e-6)
    scores = sum_documents(losses - losses.mean(), owners)
    G = len(scores)
    closed = math.sqrt(G / (G - 1) * (scores**2).sum()) / len(losses)
    assert risk.stderr == pytest.approx(closed, rel=1e-5) and risk.size == G == 8
    # tokens of one document go together: counted alone they seem to tell far more
    plain = losses.std(ddof=1) / math.sqrt(len(losses))
    assert risk.stderr > 1.5 * plain
    assert run.summary["risk/train"].stderr == 0


def test_errors_of_ratios_are_those_of_the_delta_method(run):
    losses, owners, sizes = list_losses(run)
    summary = run.summary
    nll, perplexity = summary["metric/nll/test"], summary["metric/perplexity/test"]
    risk = summary["risk/test"]
    assert nll.value == pytest.approx(risk.value) and nll.stderr == pytest.approx(risk.stderr)
    assert perplexity.value == pytest.approx(math.exp(losses.mean()))
    assert perplexity.stderr == pytest.approx(perplexity.value * risk.stderr, rel=1e-5)
    bits = summary["metric/bits_per_byte/test"]
    ratio = losses.sum() / sizes.sum() / math.log(2)
    scores = sum_documents(losses / math.log(2) - ratio * sizes, owners)
    closed = math.sqrt(len(scores) / (len(scores) - 1) * (scores**2).sum()) / sizes.sum()
    assert bits.value == pytest.approx(ratio) and bits.stderr == pytest.approx(closed, rel=1e-5)
    assert bits.size == perplexity.size == 8
    # the whole training split is known, and a part of it is not
    assert summary["metric/bits_per_byte/train"].stderr == 0


def test_it_learns_and_tells_how_it_read_the_texts(run, texts):
    first = run.history.query("name == 'risk/val'").value.iloc[0]
    assert run.summary["risk/val"].value < first and first < 3.5
    known = run.run.metadata()["text"]
    sizes = [len((texts / f"{k}.txt").read_bytes()) for k in range(40)]
    assert (known["documents"], known["bytes"]) == (40, sum(sizes)) and len(known["sha256"]) == 64
    again = evaluate(run.folder).summary["risk/test"]
    assert again == run.summary["risk/test"]


def test_other_documents_are_measured_with_its_tokenizer(run, tmp_path):
    for k in range(4):
        (tmp_path / f"{k}.txt").write_text("a b a b b a " * 9 + "Q")
    given = [f"data.source.path={tmp_path}", "data.test=all"]
    risk = evaluate(run.folder, given).summary["risk/test"]
    assert risk.size == 4 and 0 < risk.value < 4


def test_documents_are_dealt_to_folds(texts, tmp_path):
    given = ["data.folds=4", "trainer.max_epochs=1", f"data.source.path={texts}"]
    run = truerisk.train(compose([*RUN, *given]), folder=tmp_path / "fold")
    assert run.summary["risk/test"].size == 10


def test_bytes_are_known_of_texts_alone(tmp_path):
    tokens = np.random.default_rng(0).integers(0, 5, size=(60, 9))
    np.savez(tmp_path / "t.npz", x=tokens[:, :-1], y=tokens[:, 1:])
    arrays = ["data=arrays", f"data.source.path={tmp_path}/t.npz", "data.source.task=next_token"]
    with pytest.raises(ConfigError, match="data=text alone"):
        truerisk.train(compose([*RUN[1:5], "model.heads=2", *arrays, "metric=[bits_per_byte]"]))


@pytest.mark.parametrize("model", ["mlp", "gru", "transformer"])
def test_models_of_quantities_are_refused(model, texts):
    with pytest.raises(ConfigError, match=rf"model={model} reads quantities.*model=gpt"):
        truerisk.train(compose(["data=text", f"data.source.path={texts}", f"model={model}"]))


def test_stacked_decoders_of_tokens_are_single_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 5, size=(60, 9))
    np.savez("t.npz", x=tokens[:, :-1], y=tokens[:, 1:])
    given = [*RUN[1:], "data=arrays", "data.source.task=next_token", "data.source.path=t.npz"]
    given = [g for g in given if "context" not in g and "metric" not in g]
    given += ["trainer.max_epochs=2", "data.batch_size=20", "model.kv_heads=1"]
    sweep = ["hydra/launcher=vectorized", "seed=1,2", "report=false", "figures=false", "study=s"]
    assert main(["train", "-m", *given, *sweep]) == 0
    folders = [p.parent for p in (tmp_path / "outputs/s").rglob("summary.json")]
    for stacked in map(truerisk.load_run, folders):
        seed = stacked.config.seed.base
        alone = truerisk.train(compose([*given, f"seed={seed}"]), folder=tmp_path / f"{seed}")
        for name in ("risk/test", "risk/val", "error/test"):
            value = alone.summary[name].value
            assert stacked.summary[name].value == pytest.approx(value, rel=1e-4)


def test_a_run_continues_a_text(run, capsys):
    from truerisk.data.tokenizer import load_tokenizer
    from truerisk.generate import generate

    told = generate(run.folder, prompt="aab", tokens=12, temperature=0)
    tokenizer = load_tokenizer(run.model.encoder)
    drawn = [0, *tokenizer.encode("aab").tolist()]
    for _ in range(12):  # of a window as long as those it was trained on
        with torch.no_grad():
            token = int(run.model(torch.tensor([drawn[-16:]]))[0, -1].argmax())
        if token == 0:
            break
        drawn.append(token)
    assert told == tokenizer.decode(drawn) and told.startswith("aab") and len(told) > 3
    assert generate(run.folder, tokens=30, seed=1) == generate(run.folder, tokens=30, seed=1)
    assert generate(run.folder, tokens=30, seed=1) != generate(run.folder, tokens=30, seed=2)
    assert generate(run.folder, "aab", 12, top_k=1) == told
    capsys.readouterr()
    assert main(["generate", str(run.folder), "prompt=aab", "tokens=12", "temperature=0"]) == 0
    assert capsys.readouterr().out == told + "\n"
    assert main(["generate", str(run.folder), "token=3"]) == 2
    assert "did you mean 'tokens'" in capsys.readouterr().err
    assert main(["generate", str(run.folder), "prompt=aab", "temperature=-1"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and "temperature" in told.err
    for seed in (2**64, -1):
        assert main(["generate", str(run.folder), "tokens=2", f"seed={seed}"]) == 2
        assert "seed must be a whole number from 0 to 2**64 - 1" in capsys.readouterr().err
    assert main(["generate", str(run.folder), "tokens=2", f"seed={2**64 - 1}"]) == 0
    # a decoder writes it itself
    assert main(["generate", str(run.folder), "prompt=a\ufffd", "tokens=2"]) == 0
    assert "lack" not in capsys.readouterr().err
    assert main(["generate", str(run.folder), "prompt=aζ", "tokens=2"]) == 0
    assert "prompt: training documents lack 'ζ': read as unknown" in capsys.readouterr().err


def test_its_sequences_are_no_rows_of_predictions(run, capsys):
    assert main(["predict", str(run.folder)]) == 2
    assert "truerisk generate continues texts" in capsys.readouterr().err


def test_a_run_on_other_data_continues_nothing(tmp_path):
    from truerisk.generate import generate

    other = truerisk.train(["data=iris", "trainer.max_epochs=1"], folder=tmp_path / "run")
    with pytest.raises(ConfigError, match="has learned no texts"):
        generate(other.folder)


def test_a_run_on_a_file_of_tokens_is_the_run_on_tokens_in_memory(
    run, texts, tmp_path, monkeypatch
):
    monkeypatch.setattr("truerisk.data.text_source.HELD", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mapped = truerisk.train(compose([*RUN, f"data.source.path={texts}"]), folder=tmp_path / "run")
    assert len(list((tmp_path / "cache/truerisk").glob("tokens-*.bin"))) == 1
    assert mapped.summary == run.summary
    folds = ["data.folds=4", "trainer.max_epochs=1", f"data.source.path={texts}"]
    fold = truerisk.train(compose([*RUN, *folds]), folder=tmp_path / "fold")
    assert fold.summary["risk/test"].size == 10


def test_stacked_runs_read_the_one_file_of_tokens(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [*RUN, f"data.source.path={texts}", "trainer.max_epochs=1", "seed.data=0"]
    given.append("risk.final_train_samples=20")
    alone = {s: truerisk.train([*given, f"seed={s}"], folder=tmp_path / f"{s}") for s in (1, 2)}
    monkeypatch.setattr("truerisk.data.text_source.HELD", 0)
    # nothing holds them all
    monkeypatch.setattr("truerisk.data.token_rows.TokenRows.read_all", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sweep = ["hydra/launcher=vectorized", "seed=1,2", "report=false", "figures=false", "study=s"]
    assert main(["train", "-m", *given, *sweep]) == 0
    assert len(list((tmp_path / "cache/truerisk").glob("tokens-*.bin"))) == 1
    folders = [p.parent for p in (tmp_path / "outputs/s").rglob("summary.json")]
    assert len(folders) == 2
    for stacked in map(truerisk.load_run, folders):
        assert stacked.run.status()["together"] == 2
        for name, measured in alone[stacked.config.seed.base].summary.items():
            assert stacked.summary[name].value == pytest.approx(measured.value, rel=1e-4)
            assert stacked.summary[name].stderr == pytest.approx(measured.stderr, rel=1e-3)


SHORT = ["trainer.max_epochs=1", "trainer.max_steps=2", "metric=[]"]


@pytest.mark.parametrize("name", ["gauss_newton", "newton_cg", "adahessian", "muon", "sam"])
def test_optimizers_that_look_at_curvature_or_matrices_train_it(name, texts, tmp_path):
    given = [o for o in RUN if not o.startswith(("optimizer", "trainer", "metric"))]
    given += [f"optimizer={name}", f"data.source.path={texts}", *SHORT]
    if name in ("gauss_newton", "newton_cg"):
        given += ["data.batch_size=full", "optimizer.max_iter=3"]
    if name == "muon":
        given.append("param_groups=muon_hidden")
    run = truerisk.train(compose(given), folder=tmp_path / name)
    first = run.history.query("name == 'risk/train'").value
    assert run.status == "finished" and first.iloc[-1] < math.log(11)


def test_fisher_factors_are_refused_with_the_reason(texts, tmp_path):
    given = [o for o in RUN if not o.startswith(("optimizer", "trainer", "metric"))]
    with pytest.raises(ConfigError, match=r"\[n, K\].*such as adam"):
        truerisk.train(
            compose([*given, *SHORT, "optimizer=kfac", f"data.source.path={texts}"]),
            folder=tmp_path / "kfac",
        )


@pytest.mark.parametrize(
    "name", ["kaiming_normal", "xavier_uniform", "orthogonal", "normal", "lsuv"]
)
def test_initializers_of_the_project_fit_it(name, texts):
    given = [*RUN, f"data.source.path={texts}", f"initializer={name}", "model.tied=false"]
    recipe, plain = (assemble(compose(g)) for g in (given, [*given, "initializer=default"]))
    mine, theirs = (r.model.layers[0].attention.query.weight for r in (recipe, plain))
    assert not torch.equal(mine, theirs)
    assert recipe.model(recipe.data.train.x[:2]).isfinite().all()
