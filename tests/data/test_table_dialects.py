"""Tables as people write them: read right, and told how, or refused with the line."""

from __future__ import annotations

import datetime
import decimal
import gzip
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, table
from truerisk.data.own_files import encode_frame

N = 60
A, B = np.arange(N) / 8 + 0.125, (np.arange(N) * 7) % 50 + 0.5
KIND = np.array(["cat", "dog"])[np.arange(N) % 2]


@pytest.fixture
def read(tmp_path):
    """Write a text and read it as a table: its columns as raw numbers, and the samples."""

    def read(text, target="kind", name="data.csv", encoding="utf-8", **options):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return table(str(path), target, **options)

    return read


def lines(sign=",", header="a,b,kind", number=str, end=""):
    """A table of A, B and KIND."""
    rows = [header.replace(",", sign)]
    rows += [sign.join([number(a), number(b), k]) + end for a, b, k in zip(A, B, KIND, strict=True)]
    return "\n".join(rows) + "\n"


def check(samples, columns=(A, B)):
    np.testing.assert_array_equal(samples.x.numpy(), np.stack(columns, 1))
    assert samples.class_names == ["cat", "dog"]
    assert samples.y.tolist() == (np.arange(N) % 2).tolist()


def comma(value):
    return str(value).replace(".", ",")


def row_names(sign):
    """The table as R's ``write.table`` has it."""
    header = sign.join(f'"{name}"' for name in ("a", "b", "kind"))
    rows = zip(A, B, KIND, strict=True)
    return "\n".join(
        [header, *(sign.join([f'"{a}r"', f"{a}", f"{b}", f'"{k}"']) for a, b, k in rows)]
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (lines(), ""),
        (lines(end=","), "60 of 60 rows end in the delimiter"),
        (lines(end=",,"), "60 of 60 rows end in the delimiter"),
        (lines(header="a,b,kind,"), ""),
        (lines(";"), "separated by ';'"),
        (lines("\t"), "separated by tabs"),
        (lines("|"), "separated by '|'"),
        (lines(" "), "separated by blanks"),
        (lines("   "), "separated by blanks"),
        (lines(";", number=comma), "separated by ';', decimal commas"),
        ("measured by hand\n\n# in 2024\n" + lines(), "3 lines before the header left out"),
        ("\ufeff" + lines(), ""),
        (lines() + "\n\n", ""),
        ("# " + lines(), ""),
        ("# " + lines(" "), "separated by blanks"),
        (lines().replace("\n1.0,", "\n# later, by hand\n1.0,"), "comment lines left out: 1"),
        (lines().replace("\n1.0,", "\n# later\n1.0,") + "% end\n", "comment lines left out: 2"),
        (row_names(","), "names of rows, which the header has no name for, left out"),
        (row_names(" "), "separated by blanks, names of rows"),
    ],
)
def test_a_dialect_is_recognized_and_told(read, text, told):
    samples = read(text)
    check(samples)
    assert told in samples.notes[0]
    assert samples.notes[0].startswith("data.csv: 60 rows, 2 numeric and 0 categorical columns")
    assert bool(told) == ("; " in samples.notes[0])


def test_blanks_are_one_delimiter_where_that_fits(read):
    check(read(lines("  "), delimiter=" "))
    check(read("  " + lines("  ").replace("\n", "\n  "), delimiter=r"\s+"))
    check(read(lines("::"), delimiter="::"))


def test_numbers_of_other_countries(read):
    euro = [f"{v:,.2f}".translate(str.maketrans(",.", ".,")) for v in B * 1000]
    anglo = [f'"{v:,.2f}"' for v in B * 1000]
    for values, sign, told in (
        (euro, ";", "decimal commas, thousands set apart by '.'"),
        (anglo, ",", "thousands set apart by ','"),
    ):
        rows = [sign.join(["a", "b", "kind"])]
        a = [comma(v) for v in A] if sign == ";" else map(str, A)
        rows += map(sign.join, zip(a, values, KIND, strict=True))
        samples = read("\n".join(rows))
        check(samples, (A, B * 1000))
        assert told in samples.notes[0]
    # of numbers that could be either, the user says which
    whole = [f'"{v:,d}"' for v in range(1000, 1000 + N)]
    text = "\n".join(["b,kind", *map(",".join, zip(whole, KIND, strict=True))])
    with pytest.raises(ConfigError, match="column 'b' holds numbers such as '1,000', whose comma"):
        read(text)
    check(read(text, thousands=","), [np.arange(1000.0, 1000 + N)])
    check(read(text, decimal=","), [np.arange(1000, 1000 + N) / 1000])
    mixed = [comma(a) for a in A]
    text = "\n".join(["a;b;kind", *map(";".join, zip(mixed, map(str, B), KIND, strict=True))])
    with pytest.raises(ConfigError, match=r"column 'b' has decimal points \('0.5'\), and others"):
        read(text)


def test_codes_with_commas_stay_texts(read):
    codes = [f'"{k % 3},14,{k % 2}"' for k in range(N)]
    big = [f'"{v:,.1f}"' for v in B * 1000]
    text = "\n".join(["code,b,kind", *map(",".join, zip(codes, big, KIND, strict=True))])
    samples = read(text)
    assert samples.encoder.vocabulary["code"][0] == "0,14,0"
    np.testing.assert_array_equal(samples.x[:, 1].numpy(), B * 1000)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            lines(header="a,b"),
            {},
            "line 2 of .* has 3 fields separated by ',', and the header has 2",
        ),
        (lines() + "1,2\n", {}, r"line 62 of .* has 2 fields .* has 3 \(a, b, kind\)"),
        (lines(header="a,a,kind"), {}, "names the column 'a' twice"),
        (
            lines(";"),
            {"delimiter": ","},
            "no line of .* has a ',': its fields are separated by ';'",
        ),
        (lines(), {"decimal": ";"}, "data.source.decimal is ';': give one of 'auto', '.', ','"),
        (lines(), {"decimal": ",", "thousands": ","}, "are the same sign"),
        (lines(), {"skip_lines": -1}, "data.source.skip_lines is -1"),
        (lines(), {"dates": "days"}, "data.source.dates is 'days'"),
        ("report,of 2024\n" + lines(), {}, "or set data.source.skip_lines if"),
    ],
)
def test_tables_that_do_not_fit_are_refused_with_the_line(read, text, options, message):
    with pytest.raises(ConfigError, match=message):
        read(text, **options)


def test_lines_before_the_header_can_be_given(read):
    check(read("report,of 2024\n" + lines(), skip_lines=1))


def test_other_encodings_are_asked_for(read, tmp_path):
    text = lines().replace("cat", "Kätzchen")
    with pytest.raises(
        ConfigError, match=r"not written in utf-8 \(byte 0xe4\): set data.source.enc"
    ):
        read(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="Python knows no such encoding"):
        table(str(tmp_path / "data.csv"), "kind", encoding="utf-99")
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(lines().replace("cat", "ätz").encode("cp1252")))
    assert table(str(path), "kind", encoding="cp1252").class_names == ["dog", "ätz"]


def test_texts_in_quotes_hold_delimiters_and_lines(read):
    rows = [f'"a;{k % 2}";"one\nline ""{k % 3}""";{k / 8};{kind}' for k, kind in enumerate(KIND)]
    samples = read("\n".join(["code;note;a;kind", *rows]))
    assert samples.encoder.vocabulary["code"] == ["a;0", "a;1"]
    assert samples.encoder.vocabulary["note"][0] == 'one\nline "0"'
    np.testing.assert_array_equal(samples.x[:, 2].numpy(), np.arange(N) / 8)
    with pytest.raises(ConfigError):
        read('a,kind\n"1,cat\n2,dog\n')


def test_a_table_without_a_header_is_told(read):
    text = "\n".join(f"{a},{b}" for a, b in zip(A, B, strict=True))
    with pytest.raises(ConfigError, match="its first line holds numbers: give it a header"):
        read(text)


def with_token(token, rows, values=A):
    text = [str(v) for v in values]
    for row in rows:
        text[row] = token
    return "\n".join(["a,kind", *map(",".join, zip(text, KIND, strict=True))])


def test_one_odd_text_among_numbers_is_named_with_its_row(read):
    text = with_token("?", [16, 40])
    with pytest.raises(ConfigError, match=r"column 'a' holds numbers, but for '\?' in row 17 \(2"):
        read(text)
    samples = read(text, na_values=["?"], missing="mean")
    expected = torch.tensor(A)
    expected[[16, 40]] = torch.nan
    assert torch.equal(samples.x[:, 0].nan_to_num(-1), expected.nan_to_num(-1))
    assert "gaps filled by the mean: a (2)" in samples.notes[0]
    # a target of numbers is no classification of 58 classes
    with pytest.raises(ConfigError, match=r"column 'a' holds numbers, but for '\?' in row 17"):
        read(text, target="a")
    # of few numbers it is a category, and told
    samples = read(with_token("?", [16], np.arange(N) % 3))
    assert samples.encoder.vocabulary["a"] == ["0", "1", "2", "?"]
    assert samples.notes[1] == "column 'a' is read as texts because of '?' in row 17"


def test_texts_for_gaps_are_named(read):
    text = with_token("NA", [3], np.arange(N) % 3)
    with pytest.raises(ConfigError, match=r"'a' \(1, 'NA'\).*keep_default_na=false"):
        read(text)
    samples = read(text, keep_default_na=False)
    assert samples.encoder.vocabulary["a"] == ["0", "1", "2", "NA"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_classes_stay_classes_where_a_row_is_dropped(tmp_path, kind):
    label = pd.array([k % 2 for k in range(N)], dtype="Int64")
    label[5] = pd.NA
    data = pd.DataFrame({"a": A, "label": label})
    path = tmp_path / f"data.{kind}"
    data.to_csv(path, index=False) if kind == "csv" else data.to_parquet(path)
    samples = table(str(path), "label", missing="drop")
    assert (samples.task, samples.class_names, len(samples.y)) == ("classification", ["0", "1"], 59)
    assert "1 row with gaps dropped" in samples.notes[0]


def test_dates_are_days(read):
    days = pd.date_range("2020-02-27", periods=N, freq="36h")
    expected = np.arange(N) * 1.5 + (datetime.date(2020, 2, 27) - datetime.date(1970, 1, 1)).days
    text = "\n".join(["when,kind", *(f"{d},{k}" for d, k in zip(days, KIND, strict=True))])
    samples = read(text)
    check(samples, [expected])
    assert "dates in days since 1970: when" in samples.notes[0]
    samples.encoder.fit(samples.x)
    later = encode_frame(pd.DataFrame({"when": ["1970-01-03"]}), samples.encoder.state_dict())
    assert later.tolist() == [[2.0]]
    assert len(read(text, dates="category").encoder.vocabulary["when"]) == N
    with pytest.raises(ConfigError, match=r"texts of 60 kinds.*a date \(as in 2024-01-31\)"):
        read(text.replace("2020-", "in "), max_categories=20)


DAYS = [datetime.date(2020, 11, 20) + datetime.timedelta(days=k) for k in range(N)]
SINCE = np.array([(day - datetime.date(1970, 1, 1)).days for day in DAYS], dtype=float)


def one_column(values):
    rows = (f"{v};{k}" for v, k in zip(values, KIND, strict=True))
    return "\n".join(["v;kind", *rows])


@pytest.mark.parametrize(
    ("form", "options", "shift"),
    [
        ("%d.%m.%Y", {}, 0),
        ("%d.%m.%Y 6:00", {}, 0.25),
        ("%Y/%m/%d", {}, 0),
        ("%d %b %Y", {}, 0),
        ("%B %d, %Y", {}, 0),
        ("%d/%m/%Y", {"dates": "day_first"}, 0),
        ("%m/%d/%Y 6:00 PM", {"dates": "month_first"}, 0.75),
        ("%Y-%m-%dT12:00:00+06:00", {}, 0.25),
    ],
)
def test_dates_as_people_write_them(read, form, options, shift):
    samples = read(one_column(day.strftime(form) for day in DAYS), **options)
    np.testing.assert_allclose(samples.x[:, 0].numpy(), SINCE + shift, rtol=1e-9)
    assert "dates in days since 1970: v" in samples.notes[0]


def test_new_rows_have_their_dates_read_as_those_of_training(read):
    samples = read(one_column(f"{day:%m/%d/%Y}" for day in DAYS), dates="month_first")
    samples.encoder.fit(samples.x)
    later = encode_frame(pd.DataFrame({"v": ["01/03/1970"]}), samples.encoder.state_dict())
    assert later.tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("write", "expected", "unit"),
    [
        (lambda v: f"${v}", A, "$"),
        (lambda v: f"-${-v}", -A, "$"),
        (lambda v: f"{v} €", A, "€"),
        (lambda v: f"{v}%", A, "%"),
        (lambda v: f"$ {v:,.3f}", 1000 + A, "$"),
        (lambda v: f"{v:_.3f} €".replace(".", ",").replace("_", "."), 1000 + A, "€"),
    ],
)
def test_amounts_are_numbers(read, write, expected, unit):
    samples = read(one_column(map(write, expected)))
    np.testing.assert_array_equal(samples.x[:, 0].numpy(), expected)
    assert f"amounts in {unit}: v" in samples.notes[0]


def test_blanks_that_no_line_is_broken_at_set_thousands_apart(read):
    for blank in "\xa0\u202f":
        samples = read(one_column(f"1{blank}{k:03},5" for k in range(N)))
        np.testing.assert_array_equal(samples.x[:, 0].numpy(), 1000.5 + np.arange(N))


@pytest.mark.parametrize(
    ("odd", "form", "options", "message"),
    [
        (None, "%d/%m/%Y", {}, r"'20/11/2020' in row 1: set .* month_first \(day_first fits all"),
        (None, "%m/%m/2020", {}, r"'11/11/2020' in row 1: .*both fit all of its rows"),
        (
            "13/13/2020",
            "%d/%m/%Y",
            {"dates": "day_first"},
            "'13/13/2020' in row 8, which is no day",
        ),
        ("2020-02-30", "%Y-%m-%d", {}, "'2020-02-30' in row 8, which is no day"),
        (
            "soon",
            "%d.%m.%Y",
            {},
            "column 'v' holds dates, but for 'soon' in row 8: set data.source.na",
        ),
        ("3 €", "$%j", {}, r"holds amounts in \$, but for '3 €' in row 8"),
        ("3", "%j%%", {}, "holds amounts, but for '3' in row 8"),
        ("high", "%j%%", {}, "holds amounts, but for 'high' in row 8"),
        (None, "$1,%j", {}, r"column 'v' holds numbers such as '1,325', whose comma can"),
    ],
)
def test_what_is_no_date_or_amount_is_named_with_its_row(read, odd, form, options, message):
    values = [day.strftime(form) for day in DAYS]
    if odd is not None:
        values[7] = odd
    with pytest.raises(ConfigError, match=message):
        read(one_column(values), max_categories=20, **options)


def test_columns_of_parquet_that_are_numbers(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    day = [datetime.date(2020, 1, 1) + datetime.timedelta(days=k) for k in range(N)]
    columns = {
        "price": [decimal.Decimal(k) / 4 for k in range(N)],
        "day": day,
        "when": pa.array([datetime.datetime(2020, 1, 1, 12)] * N, pa.timestamp("us", "UTC")),
        "took": [datetime.timedelta(seconds=k / 2) for k in range(N)],
        "at": [datetime.time(1, 2, k) for k in range(N)],
        "point": [[k, k + 0.5] for k in range(N)],
        "form": pa.array(KIND.tolist()).dictionary_encode(),
        "kind": KIND.tolist(),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    samples = table(str(tmp_path / "t.parquet"), "kind")
    k, first = np.arange(N), (datetime.date(2020, 1, 1) - datetime.date(1970, 1, 1)).days
    expected = [k / 4, first + k, k * 0 + first + 0.5, k / 2, 3720 + k, k, k + 0.5, k % 2]
    check(samples, expected)
    assert samples.encoder.columns[5:] == ["point[0]", "point[1]", "form"]
    assert samples.encoder.vocabulary == {"form": ["cat", "dog"]}
    for values in ([[1], [1, 2]] * 30, [{"x": 1}] * N, [["u"]] * N):
        pq.write_table(pa.table({"odd": values, "kind": KIND.tolist()}), tmp_path / "t.parquet")
        with pytest.raises(ConfigError, match="column 'odd' holds lists or records"):
            table(str(tmp_path / "t.parquet"), "kind")
    # as a target, lists are labels
    lists = pa.table({"a": A, "labels": [["u"], ["u", "v"]] * 30})
    pq.write_table(lists, tmp_path / "t.parquet")
    samples = table(str(tmp_path / "t.parquet"), "labels")
    assert (samples.task, samples.class_names) == ("multilabel", ["u", "v"])
    assert samples.y[:2].tolist() == [[1, 0], [1, 1]]


ARFF = """% by hand
@relation animals
@attribute a numeric
@ATTRIBUTE 'a b' REAL
@attribute form {'long one', round}
@attribute kind {cat, dog}
@data
% the first
1.5,2,'long one',cat
?,3,round,dog
2.5,4,'long one',dog
"""


def test_arff(read):
    samples = read(ARFF, name="data.arff", missing="mean")
    assert samples.encoder.columns == ["a", "a b", "form"]
    assert samples.encoder.vocabulary == {"form": ["long one", "round"]}
    x = samples.x.nan_to_num(-1).tolist()
    assert x == [[1.5, 2, 0], [-1, 3, 1], [2.5, 4, 0]] and samples.class_names == ["cat", "dog"]
    with pytest.raises(ConfigError, match="is a sparse ARFF"):
        read(ARFF + "{0 1.5, 3 cat}\n", name="data.arff")
    with pytest.raises(ConfigError, match=r"missing in the columns 'a' \(1, '\?'\)"):
        read(ARFF, name="data.arff")


def test_what_is_left_out_and_what_counts_rows_is_told(read):
    data = pd.DataFrame({"id": np.arange(N)[::-1] + 7, "a": A, "b": B, "kind": KIND})
    samples = read(data.to_csv(index=False), drop=["b"])
    assert "; left out: b" in samples.notes[0]
    assert samples.notes[1].startswith("column 'id' has another number in each row, as an id has")
    samples = read(data.to_csv(), columns=["Unnamed: 0", "a"])
    assert samples.notes[1].startswith("column 'Unnamed: 0' has another number in each row")
    samples = read(data.assign(id=np.arange(N) % 9).to_csv(index=False))
    assert len(samples.notes) == 1


def test_categories_that_training_lacks_and_constants_are_told(read, tmp_path):
    data = pd.DataFrame({"a": A, "hue": np.array(["red", "blue"])[np.arange(N) % 2], "c": 1.0})
    data["kind"] = KIND
    read(data.to_csv(index=False))
    first = DataModule(partial(table, str(tmp_path / "data.csv"), "kind"))
    first.prepare()
    assert first.notes[1:] == ["constant in the training split, so of no use: c"]
    data.loc[:9, "hue"] = "green"
    data.to_csv(tmp_path / "new.csv", index=False)
    module = DataModule(partial(table, str(tmp_path / "new.csv"), "kind"), test="all")
    module.load_state_dict(first.state_dict())
    module.prepare()
    assert module.notes[1] == (
        "10 of 60 test rows have in column 'hue' a category that training lacked, such as 'green': "
        "it counts as none"
    )
