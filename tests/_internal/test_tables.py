"""Tables of logits: the same numbers whatever the layout, or a refusal with column and cure.

The tables have 300 rows and three classes; the label is the class of the largest logit.
"""

import csv
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest

from mcunc._internal.tables import _LABELS, RULES, read_table

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(300, 3)).round(6)
LABELS = LOGITS.argmax(axis=1)
N = len(LABELS)
SPECIES = np.array(["setosa", "Versicolor", "blue flag"])
COLUMNS = {
    "id": range(1000, 1000 + N), "index": range(N), "": range(N), "Unnamed: 0": range(N),
    "running": range(N), "count": RNG.integers(0, 9, N), "x_coord": RNG.random(N),
    "height": RNG.random(N), "pred": LABELS, "predicted_label": LABELS, "yhat": LABELS,
    "confidence": RNG.random(N), "max prob": RNG.random(N), "split": ["test"] * N,
    "fold": RNG.integers(0, 5, N), "filename": [f"{i}.png" for i in range(N)],
    "imagePath": [f"{i}.png" for i in range(N)], "note": ["good"] * N, "entropy": RNG.random(N),
    "patient": [f"p{i // 3}" for i in range(N)],
}  # fmt: skip


def text(columns, mark=","):
    """A table of text from a dict of columns."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=mark, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(map(str, values) for values in columns.values()), strict=True))
    return file.getvalue()


def table(names=("0", "1", "2"), label="label", labels=LABELS, before=(), after=()):
    """Columns of a table: those before, logits, label, those after."""
    columns = {name: COLUMNS[name] for name in before}
    columns |= dict(zip(names, LOGITS.T, strict=True)) | {label: labels}
    return columns | {name: COLUMNS[name] for name in after}


def read(content, name="a.csv", encoding="utf-8", **options):
    Path(name).write_bytes(content.encode(encoding))
    return read_table(name, **options)


def assert_right(found):
    np.testing.assert_array_equal(found[0], LOGITS)
    np.testing.assert_array_equal(found[1], LABELS)
    assert (found[0].argmax(axis=1) == found[1]).mean() == 1


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Layouts that say the same ---------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_and_byte_order_marks_change_nothing(mark, encoding):
    assert_right(read(text(table(), mark), encoding=encoding))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t + "\n\n,,,\n",
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("\n", "\r"),
        lambda t: t.replace(",", ", "),
        lambda t: t.replace("0,1,2,label", '"0", "1", "2", "label"'),
        lambda t: re.sub(r"([^,\n]+)", r'"\1"', t),
        lambda t: "# " + t,  # numpy.savetxt
        lambda t: "sep=,\n" + t,  # Excel
        lambda t: "sep=;\r\n" + t.replace(",", ";").replace("\n", "\r\n"),
        lambda t: "\n" + t.replace(",", "\t"),
        lambda t: (
            t.replace("\n", ",a\u2028b\x0cc\n")
            .replace("label,a\u2028b\x0cc", "label,note")
            .replace("0,1,2,", "logit_0,logit_1,logit_2,")
        ),
        lambda t: "\n" + t,
        lambda t: t.rstrip("\n"),
    ],
)
def test_ways_to_write_a_table_change_nothing(change):
    assert_right(read(change(text(table()))))


@pytest.mark.parametrize("label", [*_LABELS, "Labels ", "TARGET"])
@pytest.mark.parametrize("first", [True, False])
def test_labels_are_known_by_their_names(label, first):
    columns = table(label=label)
    assert_right(read(text(({label: None} if first else {}) | columns)))


@pytest.mark.parametrize(
    "names",
    [("0", "1", "2"), ("logit_0", "logit_1", "logit_2"), ("logit0", "logit1", "logit2"),
     ("logits[0]", "logits[1]", "logits[2]"), ("Logit 0", "Logit 1", "Logit 2"),
     ("logit_cat", "logit_dog", "logit_cow")],
)  # fmt: skip
def test_logits_are_known_by_their_names(names):
    assert_right(read(text(table(names))))


def test_columns_called_logits_are_taken_and_the_rest_is_left_out():
    rest = [name for name in COLUMNS if name]
    names = ("logit_0", "logit_1", "logit_2")
    assert_right(read(text(table(names, before=rest[:6], after=rest[6:]))))


def test_labels_may_be_the_names_of_the_columns():
    for names in (SPECIES, [f"logit_{name}" for name in SPECIES]):
        for labels in (SPECIES[LABELS], [f" {name.upper()}" for name in SPECIES[LABELS]]):
            assert_right(read(text(table(names, labels=labels))))
    # Numbered from one, from nought, with gaps and in another order.
    for numbers in ([1, 2, 3], [0, 1, 2], [3, 5, 8], [2, 0, 1]):
        labels = np.array(numbers)[LABELS]
        assert_right(read(text(table(map(str, numbers), labels=labels))))
        assert_right(read(text(table([f"logit_{i}" for i in numbers], labels=labels * 1.0))))


def test_a_column_of_zeros_may_be_a_logit():
    """That of the class that the others are compared with."""
    for names in (SPECIES, ("logit_0", "logit_1", "logit_2")):
        columns = table(names, labels=SPECIES[LABELS] if names is SPECIES else LABELS)
        assert (read(text(columns | {names[0]: [0] * N}))[0][:, 0] == 0).all()


def test_masked_classes_stay_infinite():
    columns = table(("logit_0", "logit_1", "logit_2")) | {"logit_0": ["-inf"] * N}
    assert (read(text(columns))[0][:, 0] == -np.inf).all()


@pytest.mark.parametrize(
    "options",
    [
        {"logits": ["0", "1", "2"], "label": "species"},
        {"logits": ["[012]"], "label": "species"},
        {"logits": ["0", "*"], "label": "species", "groups": "id"},
    ],
)
def test_columns_can_be_named(options):
    before = ("id",) if "groups" in options else ("id", "pred", "")
    found = read(text(table(label="species", before=before)), **options)
    assert_right(found)
    assert (found[2] is not None) == ("groups" in options)


def test_columns_that_are_named_need_no_class_in_their_names():
    names = ("score a", "score b", "score c")
    assert_right(read(text(table(names, before=("height",))), logits=["score *"]))


def test_named_columns_come_in_the_order_they_are_named():
    found = read(text(table(("2", "0", "1"))), logits=["0", "1", "2"])
    np.testing.assert_array_equal(found[0], LOGITS[:, [1, 2, 0]])
    np.testing.assert_array_equal(found[1], LABELS)


def test_groups_are_read_as_they_are():
    columns = table(after=("patient",))
    found = read(text(columns), groups="patient")
    assert_right(found)
    names = np.array(COLUMNS["patient"])
    np.testing.assert_array_equal(found[2], names)
    np.savez("a.npz", logits=LOGITS, labels=LABELS, groups=names, patient=np.arange(N) // 150)
    np.testing.assert_array_equal(read_table("a.npz")[2], names)
    np.testing.assert_array_equal(read_table("a.npz", groups="patient")[2], np.arange(N) // 150)


def test_missing_ids_reach_the_report():
    groups = np.where(np.arange(N) == 3, np.nan, np.arange(N) // 2)
    np.savez("a.npz", logits=LOGITS, labels=LABELS, groups=groups)
    assert np.isnan(read_table("a.npz")[2][3])


def test_arrays_can_be_named():
    np.savez("a.npz", out=LOGITS, y=LABELS)
    assert_right(read_table("a.npz", label="y", logits=["out"]))
    with pytest.raises(ValueError, match=r"no array logits and no labels; it has out, y; .*--lab"):
        read_table("a.npz")
    with pytest.raises(ValueError, match=r"has no array groups; it has out, y"):
        read_table("a.npz", label="y", logits=["out"], groups="groups")
    with pytest.raises(ValueError, match="has no array out y; it has out, y"):
        read_table("a.npz", label="y", logits=["out", "y"])


def test_tab_separated_files_have_an_ending_of_their_own():
    assert_right(read(text(table(), "\t"), "a.tsv"))


def test_a_large_table_is_read_quickly():
    """10,000 rows of 100 logits: about 0.6 s; ten times as long is a fault on any machine."""
    row = np.random.default_rng(1).normal(size=100)
    header = ",".join([*(f"logit_{i}" for i in range(100)), "label\n"])
    content = header + (",".join(map(str, row.tolist())) + ",7\n") * 10_000
    Path("a.csv").write_text(content, encoding="utf-8")
    start = time.process_time()
    logits, labels, _ = read_table("a.csv")
    assert time.process_time() - start < 6
    assert logits.shape == (10_000, 100)
    assert (logits == row).all()
    assert (labels == 7).all()


# What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("first", [True, False])
def test_a_column_that_is_no_logit_is_named(name, first):
    """With a cure; nothing else is taken for a logit, whatever its name or content."""
    columns = table(**{"before" if first else "after": (name,)})
    message = (
        f"column '{name or 'unnamed column'}' is the label of no case; .*index=False.*--logits"
    )
    with pytest.raises(ValueError, match=rf"a\.csv: {message}"):
        read(text(columns))


LOGIT_NAMES = {
    "numbered": (("logit_0", "logit_1", "logit_2"), LABELS),
    "named": ([f"logit_{name}" for name in SPECIES], SPECIES[LABELS]),
    "named, labels as positions": ([f"logit_{name}" for name in SPECIES], LABELS),
}


@pytest.mark.parametrize("extra", ["logit_max", "logit_entropy", "logits_argmax", "logit index"])
@pytest.mark.parametrize("kind", LOGIT_NAMES)
@pytest.mark.parametrize("first", [True, False])
def test_a_summary_called_logit_is_no_class(extra, kind, first):
    names, labels = LOGIT_NAMES[kind]
    columns, summary = table(names, labels=labels), {extra: LOGITS.max(axis=1)}
    columns = summary | columns if first else columns | summary
    message = r"a\.csv: column '.*' is the label of no case; .*--logits"
    with pytest.raises(ValueError, match=message):
        read(text(columns))
    assert_right(read(text(columns), logits=list(names)))


def test_numbers_from_one_without_the_last_may_be_numbers_from_nought():
    columns = table(("logit_1", "logit_2", "logit_3"), labels=LABELS.clip(1))
    with pytest.raises(ValueError, match="column 'logit_3' is the label of no case"):
        read(text(columns))
    assert (read(text(columns), logits=["logit_*"])[1] == LABELS.clip(1) - 1).all()


CASES = {
    "no label": (table(label="species"), "no columns called label .*'0', '1', '2', 'species'"),
    "pred as label": (table(label="pred"), "no columns called label .* one with --label"),
    "two labels": (table() | {"y_true": LABELS}, "2 columns called label .*'label', 'y_tr"),
    "fractions": (table(labels=LABELS + 0.5), "the label '2.5', which is no name"),
    "other classes": (table(labels=LABELS + 1), "the label '3', which is no name .*'0', '1'"),
    "below nought": (table(labels=LABELS - 1), "the label '-1', which is no name"),
    "other names": (table(SPECIES, labels=["rose"] * N), "row 2 has the label 'rose'"),
    "numbers for names": (table(SPECIES), "the label '2', which is no name .*logit_0, logit_1, …"),
    "a gap": (table(("logit_0", "logit_1", "logit_3")), "the label '2', which is no name"),
    "a score and a guess": (
        {"score": LOGITS[:, 0], "pred": LABELS, "label": LABELS}, "the label '2', which is no name"
    ),
    "a class without cases": (table(labels=LABELS.clip(1)), "column '0' is the label of no case"),
    "a measurement among names": (
        table(SPECIES, labels=SPECIES[LABELS], before=("height",)), "'height' is the label of no"
    ),
    "an odd one": (table(("logit_0", "logit_1", "logit_top")), "the label '2', which is no name"),
    "no label here": (table(labels=["", *LABELS[1:]]), "row 2 has the label '', .*remove rows"),
    "NaN as label": (table(labels=["nan", *LABELS[1:]]), "row 2 has the label 'nan'"),
    "a single output": (
        {"logit": LOGITS[:, 0], "label": LABELS, "group": LABELS}, "has 'logit'; .*column of zeros"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_a_table_that_is_not_clear_is_refused(what):
    columns, message = CASES[what]
    with pytest.raises(ValueError, match=f"a\\.csv: .*{message}"):
        read(text(columns))


TEXTS = {
    "an empty cell": ("0,1,label\n1.5,2.5,0\n.5,,1\n", "row 3 has '' in '1', .*remove such rows"),
    "NaN": ("0,1,label\n1.5,NaN,0\n2,1,1\n", "row 2 has 'NaN' in '1', which is no number"),
    "decimal commas": ("0;1;label\n1,5;2;0\n2;1;1\n", "'1,5' in '0', .*write a decimal point"),
    "as separators": ("0,1,label\n1,5,2,5,0\n", "row 2 has 5 cells, the header has 3; .*point"),
    "thousands": ('0,1,label\n"1,234.5",2.5,0\n2,1,1\n', "row 2 has '1,234.5' .*of thousands"),
    "a row of means": ("0,1,label\n1.5,2,0\nmean,2,1\n", "'mean' in '0'.*remove such rows"),
    "lists": ('logits,label\n"[1.5, 2.5]",0\n', "needs two or more columns of logits"),
    "one name twice": ("a,a,label\n1.5,2.5,0\n", "different names: has 'a', 'a'; if"),
    "in other letters": ("a,A,label\n1.5,2.5,0\n", "different names: has 'a', 'A'; if"),
    "two labels": ("a,label,label\n1.5,2.5,0\n", "2 columns called label .*'label', 'label'"),
    "no header": ("1.5,2.5,0\n.5,1.5,1\n", "no columns called label .*header, has '1.5', '2.5'"),
    "a comma at the end": ("0,1,label,\n1,2,0,\n1,2,1,\n", "'unnamed column' is the label of no"),
    "spaces": ("a b label\n1 2 0\n", "no columns called label .*has 'a b label'"),
    "another table below": ("0,1,label\n1,2,0\n\nmean,2\n", "row 4 has 2 cells, the header has 3"),
    "UTF-16": ("\ufeff0,1,label\n1,2,0\n", "is no text in UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("what", TEXTS)
def test_a_text_that_is_no_such_table_is_refused(what):
    content, message = TEXTS[what]
    with pytest.raises(ValueError, match=rf"a\.csv: .*{message}"):
        read(content, encoding="utf-16" if what == "UTF-16" else "utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "species"}, "has no columns called species; .*'0', '1', '2', .*--label"),
        ({"groups": "patient"}, "has no columns called patient; .*--groups"),
        ({"logits": ["0", "z*"]}, r"--logits: no column is called 'z\*'; there are '0', '1', '2'$"),
        ({"logits": ["0"]}, "needs two or more columns .* has '0'; .* column of zeros"),
    ],
)
def test_columns_that_are_not_there_are_named(options, message):
    with pytest.raises(ValueError, match=f"a\\.csv: {message}"):
        read(text(table()), **options)


def test_the_rules_name_the_words_they_go_by():
    words = f"{', '.join(_LABELS[:-1])} or {_LABELS[-1]}"
    assert words in RULES
