"""Texts: read, split by document, made tokens, and cut into sequences."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.data import RunData, text
from truerisk.data.documents import Documents, read_reference
from truerisk.data.token_rows import TokenRows, encode_documents, hold_tokens, map_tokens
from truerisk.data.tokenizer import (
    ByteTokenizer,
    CharacterTokenizer,
    fit_tokenizer,
    load_tokenizer,
)

WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine"]
TEXTS = [f"{word} {'tree ' * (k + 3)}\n" for k, word in enumerate(WORDS)]


def prepare(seed=0, **options):
    numbers = {"context": 8, "tokenizer": "bytes", **options}
    data = RunData(partial(text, **numbers), batch_size=4, standardize="none", seed=seed)
    data.prepare()
    return data


def write_files(folder, texts=TEXTS):
    folder.mkdir(exist_ok=True)
    for k, content in enumerate(texts):
        (folder / f"{k:02}.txt").write_text(content)
    return folder


def list_documents(data, name):
    """Take a split's sequences apart again."""
    split = getattr(data, name)
    stream = torch.cat([split.x.flatten(), split.y[-1, -1:]]).tolist()
    whole = "".join(chr(t - 1) if t else "\0" for t in stream)
    return whole.split("\0")[1:]


def number_documents(rows):
    """Number the documents of a split in the store."""
    return [
        number
        for number, start in enumerate(rows.store.starts[:-1])
        if any(a <= start < b for a, b in rows.list_runs())
    ]


def sources(folder):
    write_files(folder / "texts")
    (folder / "one.txt").write_text("\n--\n".join(TEXTS))
    frame = pd.DataFrame({"body": TEXTS, "k": range(10)})
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_parquet(folder / "t.parquet")
    rows = [{"body": one} for one in TEXTS] + [{"body": None}, {"other": 1}]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return {
        "folder": {"path": str(folder / "texts")},
        "pattern": {"path": str(folder / "tex*" / "*.txt")},
        "separator": {"path": str(folder / "one.txt"), "separator": "\\n--\\n"},
        "csv": {"path": str(folder / "t.csv"), "column": "body"},
        "parquet": {"path": str(folder / "t.parquet"), "column": "body"},
        "jsonl": {"path": str(folder / "t.jsonl"), "column": "body"},
    }


def test_all_forms_of_the_same_documents_are_one_data_set(tmp_path):
    found = {name: prepare(**options) for name, options in sources(tmp_path).items()}
    first = found.pop("folder")
    for name, data in found.items():
        assert torch.equal(data.train.x, first.train.x), name
        assert torch.equal(data.test.y, first.test.y), name


def test_a_data_set_on_disk_is_read_by_its_column(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"body": TEXTS}).save_to_disk(str(tmp_path / "saved"))
    data = prepare(path=str(tmp_path / "saved"), column="body")
    assert torch.equal(data.train.x, prepare(path=str(write_files(tmp_path / "t"))).train.x)


def test_a_table_of_texts_alone_needs_no_quotes(tmp_path):
    texts = ["one, two and three", "a second one", 'he said "no"', "last; of all", "more|of it"]
    (tmp_path / "one.csv").write_text("text\n" + "\n".join(texts) + '\n"in\nquotes"\n')
    data = prepare(path=str(tmp_path / "one.csv"), column="text", context=4)
    assert list(data.packer.documents.read_texts()) == [*texts, "in\nquotes"]


def test_no_document_is_on_both_sides_and_none_is_cut(tmp_path):
    data = prepare(path=str(write_files(tmp_path)))
    found = {name: list_documents(data, name) for name in ("train", "val", "test")}
    assert [len(found[name]) for name in ("train", "val", "test")] == [6, 2, 2]
    for documents in found.values():
        assert all(one in TEXTS for one in documents[:-1])
        # what is left of the last one is no sequence
        assert any(whole.startswith(documents[-1]) for whole in TEXTS)
    seen = [one.split(" ")[0] for documents in found.values() for one in documents]
    assert len(seen) == len(set(seen)) == 10
    other = prepare(seed=1, path=str(tmp_path))
    assert not torch.equal(other.train.x, data.train.x)


def test_documents_without_text_are_left_out_and_counted(tmp_path):
    (tmp_path / "gaps.csv").write_text("id,text\n" + "1,some words\n2,\n3,others here\n" * 5)
    data = prepare(path=str(tmp_path / "gaps.csv"), column="text", context=4)
    assert "left out: 5 without text" in data.notes
    assert any(note.startswith("10 documents, ") for note in data.notes)


def test_tokens_stay_integers_and_targets_are_the_next_ones(tmp_path):
    data = prepare(path=str(write_files(tmp_path)))
    for name in ("train", "val", "test"):
        split = getattr(data, name)
        assert split.x.dtype == split.y.dtype == torch.int64
        assert torch.equal(split.x.flatten()[1:], split.y.flatten()[:-1])
        owners = data.groups[name]
        begins = (split.x == 0).flatten().cumsum(0) - 1
        assert torch.equal(owners.flatten(), begins)
    assert data.info.num_outputs == 257 and data.info.input_shape == (8,)


def test_the_tokenizer_knows_the_training_documents_alone(tmp_path):
    texts = [*TEXTS, "a λ that is rare"]
    for seed in range(4):
        data = prepare(seed, path=str(write_files(tmp_path, texts)), tokenizer="characters")
        symbols = data.packer.tokenizer.symbols
        train = [texts[d] for d in number_documents(data.packer.rows["train"])]
        assert symbols == "".join(sorted(set("".join(train))))
        unknown = [int((getattr(data, s).x == 1).sum()) for s in ("train", "val", "test")]
        assert unknown[0] == 0
        if "λ" not in symbols:
            assert any("characters that training lacks" in note for note in data.notes)


def test_subwords_are_learned_of_the_training_documents_alone(tmp_path):
    pytest.importorskip("tokenizers")
    path = str(write_files(tmp_path))
    data = prepare(path=path, tokenizer="bpe", vocabulary=300, context=4)
    backend = data.packer.tokenizer
    train = [TEXTS[d] for d in number_documents(data.packer.rows["train"])]
    merged = {backend.decode([t]) for t in range(257, backend.size)}
    assert " tree" in merged and all(any(m in one for one in train) for m in merged)
    for one in (*TEXTS, "naïve\tλ 日本"):
        assert backend.decode(backend.encode(one).tolist()) == one
        counts = np.array(backend.count_bytes())[backend.encode(one)]
        assert counts.sum() == len(one.encode())
    again = load_tokenizer(data.state_dict()["encoder"])
    assert again.encode(TEXTS[0]).tolist() == backend.encode(TEXTS[0]).tolist()
    backend.backend.save(str(tmp_path / "saved.json"))
    saved = fit_tokenizer(str(tmp_path / "saved.json"), lambda: iter(()), 0)
    assert saved.encode(TEXTS[0]).tolist() == backend.encode(TEXTS[0]).tolist()


PROSE = "the cat sat on the mat. the hat, the bat! naïve café 日本 the end"
BYTES = [f"<0x{value:02X}>" for value in range(256)]


def make_saved(kind):
    """Train a tokenizer of Hugging Face's library in the form of a published one."""
    library = pytest.importorskip("tokenizers")
    models, before, after = library.models, library.pre_tokenizers, library.decoders
    plain = {"show_progress": False}
    spelled = before.ByteLevel(add_prefix_space=False, use_regex=False)
    words = before.Split(library.Regex(r"\s?\w+|\W"), "isolated")
    byte_pairs = library.trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=before.ByteLevel.alphabet(), **plain
    )
    fallen = library.trainers.BpeTrainer(vocab_size=330, special_tokens=["<unk>", *BYTES], **plain)
    pieces = library.trainers.WordPieceTrainer(vocab_size=99, special_tokens=["[UNK]"], **plain)
    likely = library.trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>", **plain
    )
    fallback = after.Sequence([after.ByteFallback(), after.Metaspace()])
    model, pre, decoder, trainer = {
        "gpt2": (models.BPE(), before.ByteLevel(), after.ByteLevel(), byte_pairs),
        "llama3": (models.BPE(), before.Sequence([words, spelled]), after.ByteLevel(), byte_pairs),
        "llama": (
            models.BPE(byte_fallback=True, unk_token="<unk>"), before.Metaspace(), fallback, fallen
        ),
        "bert": (
            models.WordPiece(unk_token="[UNK]"), before.Whitespace(), after.WordPiece(), pieces
        ),
        "t5": (models.Unigram(), before.Metaspace(), after.Metaspace(), likely),
    }[kind]  # fmt: skip
    backend = library.Tokenizer(model)
    backend.pre_tokenizer, backend.decoder = pre, decoder
    backend.train_from_iterator([PROSE[:45]] * 3 + [PROSE] * (kind != "llama"), trainer)
    return backend


# all but those that spell bytes begin a text with a blank of their own
@pytest.mark.parametrize(
    ("kind", "own"), [("gpt2", 1), ("llama3", 0), ("llama", 1), ("bert", 1), ("t5", 1)]
)
def test_the_bytes_of_a_saved_tokenizer_are_those_of_the_text(kind, own, tmp_path):
    backend = make_saved(kind)
    # as it was saved for a model's input: each text is cut off, or filled up
    backend.enable_truncation(5)
    backend.enable_padding(length=100)
    backend.save(str(tmp_path / "saved.json"))
    tokenizer = fit_tokenizer(str(tmp_path / "saved.json"), lambda: iter(()), 0)
    tokens = tokenizer.encode(PROSE)
    assert tokenizer.decode(tokens.tolist()).replace(" ", "") == PROSE.replace(" ", "")
    counts = tokenizer.count_bytes()
    assert sum(counts[token] for token in tokens) == len(PROSE.encode()) + own


def test_a_tokenizer_leaves_out_no_byte_without_a_word(tmp_path):
    library = pytest.importorskip("tokenizers")
    backend = library.Tokenizer(library.models.BPE())
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(vocab_size=50, show_progress=False)
    backend.train_from_iterator(["the cat the hat"], trainer)
    backend.save(str(tmp_path / "saved.json"))
    file = str(tmp_path / "saved.json")
    tokenizer = fit_tokenizer(file, lambda: iter(()), 0)
    assert tokenizer.decode(tokenizer.encode("that hat").tolist()) == "that hat"
    with pytest.raises(ConfigError, match=r"no token for 3 of the bytes of a text \(d, g, o as"):
        prepare(path=str(write_files(tmp_path / "t", ["the dog", *["that"] * 9])), tokenizer=file)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharacterTokenizer("\n aehrst")])
def test_tokens_are_texts_again(tokenizer):
    again = load_tokenizer(tokenizer.state_dict())
    tokens = again.encode("the tree\nseat")
    assert again.decode([0, *tokens.tolist()]) == "the tree\nseat"
    assert np.array(again.count_bytes())[tokens].sum() == 13
    assert tokens.min() > 0 and tokens.max() < again.size == len(again.count_bytes())


def test_another_run_measures_with_the_tokenizer_of_the_first(tmp_path):
    first = prepare(path=str(write_files(tmp_path / "a")), tokenizer="characters")
    write_files(tmp_path / "b", ["Q tree " * 4] * 3)
    second = RunData(
        partial(text, path=str(tmp_path / "b"), context=8), 4, test="all", standardize="none"
    )
    second.load_state_dict(first.state_dict())
    second.prepare()
    assert second.info.num_outputs == first.info.num_outputs
    assert (second.test.x == 1).any()  # Q is not known


def test_the_reference_of_python_is_the_same_each_time_and_repeats_nothing():
    documents = list(read_reference())
    assert documents == list(read_reference()) and len(documents) > 100
    assert sum(map(len, documents)) > 200_000
    paragraphs = [p.strip() for one in documents for p in one.split("\n\n")]
    long = [p for p in paragraphs if len(p) > 60]
    assert len(long) == len(set(long))
    data = prepare(path=None, context=64)
    digest = Documents(read_reference, (64,)).digest[:16]
    assert any(digest in note for note in data.notes)
    assert any("reference that comes with Python" in note for note in data.notes)


def test_a_file_of_tokens_is_written_once_and_repaired(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    written = []

    def parts():
        written.append(1)
        return encode_documents(np.full(k + 1, k + 1) for k in range(5))

    held = hold_tokens(parts())
    for _ in range(2):
        mapped = map_tokens(parts(), "key")
        assert np.array_equal(mapped.tokens, held.tokens)
        assert np.array_equal(mapped.starts, held.starts)
    file = next((tmp_path / "truerisk").glob("tokens-key*.bin"))
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(bytes(content))
    mapped = map_tokens(parts(), "key")
    assert np.array_equal(mapped.tokens, held.tokens)
    rows = [TokenRows(s, np.array([3, 0, 4]), 4, "train").read_all() for s in (held, mapped)]
    assert all(torch.equal(a, b) for a, b in zip(*rows, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "data.source.context is 0"),
        ({"context": 5000}, r"the train split has 6 documents of \d+ tokens .* needs 5001"),
        ({"tokenizer": "byte"}, "data.source.tokenizer is 'byte': .*bytes"),
        ({"path": "no/*.txt"}, "there is no file at no"),
        ({"path": None, "column": "x"}, "data.source.path is not"),
        ({"separator": ""}, "data.source.separator is empty"),
        ({"encoding": "utf-32"}, "cannot be read as utf-32"),
        ({"encoding": "utf-99"}, "no encoding 'utf-99'"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, options, message):
    path = str(write_files(tmp_path / "texts"))
    with pytest.raises(ConfigError, match=message):
        prepare(**{"path": path, **options})


def test_files_of_another_kind_are_refused(tmp_path):
    options = sources(tmp_path)
    with pytest.raises(ConfigError, match=r"t.csv is a table: name its column"):
        prepare(path=options["csv"]["path"])
    for name in ("csv", "parquet", "jsonl"):
        with pytest.raises(ConfigError, match=r"there is no column 'boddy'.*body"):
            prepare(path=options[name]["path"], column="boddy")
    with pytest.raises(ConfigError, match=r"is one document.*separator"):
        prepare(path=str(tmp_path / "one.txt"))
    (tmp_path / "bad.jsonl").write_text('{"body": "a"}\nno\n')
    with pytest.raises(ConfigError, match=r"line 2 of .* is no JSON object"):
        prepare(path=str(tmp_path / "bad.jsonl"), column="body")
