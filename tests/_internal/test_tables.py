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

from mcunc._internal.tables import _LABEL, RULES, read_table

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


def text(columns, mark=",", header=True, end="\n"):
    """A table of text from a dict of columns."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=mark, lineterminator=end)
    writer.writerows([list(columns)] if header else [])
    writer.writerows(zip(*(map(str, values) for values in columns.values()), strict=True))
    return file.getvalue()


def table(names=("a", "b", "c"), label="label", labels=LABELS, before=(), after=()):
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
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", [True, False])
def test_separators_and_byte_order_marks_change_nothing(mark, encoding, header):
    assert_right(read(text(table(), mark, header), encoding=encoding))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t + "\n\n,,,\n",
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("\n", "\r"),
        lambda t: t.replace(",", ", "),
        lambda t: t.replace("a,b,c,label", '"a", "b", "c", "label"'),
        lambda t: re.sub(r"([^,\n]+)", r'"\1"', t),
        lambda t: "# " + t,  # numpy.savetxt
        lambda t: "sep=,\n" + t,  # Excel
        lambda t: "\n" + t,
        lambda t: t.rstrip("\n"),
    ],
)
def test_ways_to_write_a_table_change_nothing(change):
    assert_right(read(change(text(table()))))


@pytest.mark.parametrize(
    "label",
    ["label", "Labels ", "TARGET", "targets", "y", "y_true", "true", "True Label", "true-class",
     "trueLabel", "class", "ground_truth", "GroundTruth", "gt", "gt_label", "actual", "class_id",
     "label_true", "target class", "labels_gt", "gold", "goldLabel"],
)  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_labels_are_known_by_their_names(label, first):
    columns = table(label=label)
    assert_right(read(text(({label: None} if first else {}) | columns)))


@pytest.mark.parametrize(
    "names",
    [("a", "b", "c"), ("0", "1", "2"), ("logit_0", "logit_1", "logit_2"), ("logit0", "logit1",
     "logit2"), ("logits[0]", "logits[1]", "logits[2]"), ("Logit 0", "Logit 1", "Logit 2"),
     ("score_cat", "score_dog", "score_cow"), ("class 0", "class 1", "class 2"),
     ("1", "2", "3"), ("out.1", "out.2", "out.3")],
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


def test_a_column_of_zeros_is_a_logit_where_the_names_say_so():
    """That of the class that the others are compared with."""
    columns = table(SPECIES, labels=SPECIES[LABELS]) | {"setosa": [0] * N}
    assert (read(text(columns))[0][:, 0] == 0).all()
    columns = table(("logit_0", "logit_1", "logit_2")) | {"logit_0": [0] * N}
    assert (read(text(columns))[0][:, 0] == 0).all()


def test_masked_classes_stay_infinite():
    columns = table(("logit_0", "logit_1", "logit_2")) | {"logit_0": ["-inf"] * N}
    assert (read(text(columns))[0][:, 0] == -np.inf).all()


@pytest.mark.parametrize(
    "options",
    [
        {"logits": ["a", "b", "c"], "label": "species"},
        {"logits": ["[abc]"], "label": "species"},
        {"logits": ["a", "*"], "label": "species", "groups": "id"},
    ],
)
def test_columns_can_be_named(options):
    before = ("id",) if "groups" in options else ("id", "pred", "")
    found = read(text(table(label="species", before=before)), **options)
    assert_right(found)
    assert (found[2] is not None) == ("groups" in options)


def test_columns_without_names_are_called_by_their_numbers():
    content = text(table(before=("id",)), header=False)
    assert_right(read(content, logits=["column 2", "column 3", "column 4"], label="column 5"))


def test_named_columns_come_in_the_order_they_are_named():
    found = read(text(table(("2", "0", "1"))), logits=["0", "1", "2"], label="label")
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
    with pytest.raises(ValueError, match="--logits: names 2 arrays"):
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
    with pytest.raises(ValueError, match=r"a\.csv: .*--logits") as info:
        read(text(columns))
    if name != "height":  # which nothing but its place tells
        assert repr(name or f"unnamed column {1 if first else 5}") in str(info.value)
    assert "index=False" in str(info.value)


@pytest.mark.parametrize("name", ["id", "pred", "fold", "count", "height", "x_coord"])
def test_without_a_header_it_is_refused_by_its_content(name):
    with pytest.raises(ValueError, match=r"'column \d'.*--logits"):
        read(text(table(before=(name,)), header=False))


CASES = {
    "no label": (table(label="species"), "no columns called label .*'a', 'b', 'c', 'species'"),
    "pred as label": (table(label="pred"), "no columns called label .* it with --label"),
    "two labels": (table() | {"y_true": LABELS}, "2 columns called label .*'label', 'y_tr"),
    "fractions": (table(labels=LABELS + 0.5), "has '2.5' in 'label', which is no name"),
    "other classes": (table(labels=LABELS + 1), "has '3' in 'label', which is no name .*'a', 'b'"),
    "below nought": (table(labels=LABELS - 1), "has '-1' in 'label', which is no name"),
    "other names": (table(SPECIES, labels=["rose"] * N), "row 2 has 'rose' in 'label'"),
    "no class 2": (
        table(("logit_1", "logit_2", "logit_3"), labels=LABELS.clip(1)), "not clearly one; "
    ),
    "a gap": (
        table(("logit_0", "logit_1", "logit_3")), "has '2' in 'label', which is no name"
    ),
    "two kinds of logits": (
        table([f"logit_{name}" for name in "abc"])
        | {f"logit_{name}_T": LOGITS[:, 0] for name in "abc"}, "'logit_c_T' does not look .*no case"
    ),
    "labels from one and a measurement": (
        table(labels=LABELS + 1, before=("height",)), "'height' does not .*no case"
    ),
    "labels from one and another": (
        table(labels=LABELS + 1, after=("height",)), "'a' does not .*no case.* count from 0"
    ),
    "an index among numbers": (
        {"0": range(N), **table(("1", "2", "3"))}, "'0' does not look .*whole"
    ),
    "a measurement among numbers": (
        {"0": COLUMNS["height"], **table(("1", "2", "3"))}, "'3' does not look .*no case"
    ),
    "a measurement among names": (
        table(SPECIES, labels=SPECIES[LABELS], before=("height",)), "'height' does not .*no case"
    ),
    "an odd one": (table(("logit_0", "logit_1", "logit_top")), "in all or none: .*'logit_top'"),
    "no label here": (table(labels=["", *LABELS[1:]]), "row 2 has '' in 'label', .*remove rows"),
    "NaN as label": (table(labels=["nan", *LABELS[1:]]), "row 2 has 'nan' in 'label'"),
    "probabilities": (table(("prob_a", "prob_b", "prob_c")), "'prob_a' is by its name no logit"),
    "one logit": (
        {"logit": LOGITS[:, 0], "label": LABELS, "z": LABELS, "gt": LABELS}, "2 columns called"
    ),
    "a single output": (
        {"logit": LOGITS[:, 0], "label": LABELS, "group": LABELS}, "'2' in 'label', .*'group'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_a_table_that_is_not_clear_is_refused(what):
    columns, message = CASES[what]
    with pytest.raises(ValueError, match=f"a\\.csv: .*{message}"):
        read(text(columns))


TEXTS = {
    "an empty cell": ("a,b,label\n1.5,2.5,0\n.5,,1\n", "row 3 has '' in 'b', .*remove such rows"),
    "NaN": ("a,b,label\n1.5,NaN,0\n", "row 2 has 'NaN' in 'b', which is no number; .*remove such"),
    "NA": ("a,b,label\n1.5,N/A,0\n", "row 2 has 'N/A' in 'b', which is no number; .*remove such"),
    "decimal commas": ("a;b;label\n1,5;2;0\n", "row 2 has '1,5' in 'a', .*write a decimal point"),
    "and no header": ("1,5;2,5;0\n1,2;2;1\n", "row 1 has '1,5' in .*write a decimal point"),
    "in quotes": ('a,b,label\n"1,5",2,0\n', "row 2 has '1,5' in 'a', .*write a decimal point"),
    "as separators": ("a,b,label\n1,5,2,5,0\n", "row 2 has 5 cells, the first row has 3; .*point"),
    "that nobody sees": ("1,5,2,5,0\n2,6,1,2,1\n", "'column 1' does .*whole.* decimal point"),
    "thousands": ('a,b,label\n"1,234.5",2.5,0\n', "row 2 has '1,234.5' .*no separators of thous"),
    "Swiss thousands": ("a;b;label\n1'234.5;2.5;0\n", "row 2 has .1'234.5. .*no separators of"),
    "a word": ("a,b,label\n1.5,high,0\n", "row 2 has 'high' in 'b', .*leave it out"),
    "a row of means": ("a,b,label\n1.5,2,0\nmean,2,1\n", "'mean' in 'a'.*remove such rows"),
    "an error of Excel": ("a,b,label\n1.5,#N/A,0\n", "'#N/A' in 'b', .* remove such rows"),
    "lists": ('logits,label\n"[1.5, 2.5]",0\n', "needs two or more columns of logits"),
    "one name twice": ("a,a,label\n1.5,2.5,0\n", "different names, .*'a', 'a'; if one is"),
    "in other letters": ("a,A,label\n1.5,2.5,0\n", "different names, .*'a', 'A'; if one is"),
    "two labels": ("a,label,label\n1.5,2.5,0\n", "2 columns called label .*'label', 'label'"),
    "a comma at the end": ("a,b,label,\n1.5,2.5,0,\n", "'unnamed column 4' is by its name"),
    "numbers as header": ("0,1,2\n1.5,2.5,0\n", "row 1 is a header of numbers .*labels label"),
    "label first": ("0,1.5,2.5\n1,2.5,.5\n", "row 1 has '2.5' in 'column 3', which is no name"),
    "labels from one": ("1.5,2.5,1\n2.5,.5,2\n", "has '2' in 'column 3', which is no name"),
    "spaces": ("a b label\n1 2 0\n", "row 1 has 1 cells, .* semicolons or tabs"),
    "two columns": ("logit,label\n1.5,0\n", "has 'logit'; .* a column of zeros"),
    "a single logit": ("logit,label,gap\n1.5,0,1\n", "does not look like logits"),
    "another table below": ("a,b,label\n1.5,2.5,0\n\nmean,2\n", "row 4 has 2 cells, the first ro"),
    "UTF-16 unmarked": ("a\0,\0b\0,\0l\0\n\0", "is no text in UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("what", TEXTS)
def test_a_text_that_is_no_such_table_is_refused(what):
    content, message = TEXTS[what]
    with pytest.raises(ValueError, match=rf"a\.csv: .*{message}"):
        read(content)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "species"}, "has no columns called species .*'a', 'b', 'c', .*--label"),
        ({"groups": "patient"}, "has no columns called patient .*--groups"),
        ({"logits": ["a", "z*"]}, r"--logits: no column is called 'z\*'; there are 'a', 'b', 'c'$"),
        ({"logits": ["a"]}, "needs two or more columns .* has 'a'; .* column of zeros"),
    ],
)
def test_columns_that_are_not_there_are_named(options, message):
    with pytest.raises(ValueError, match=f"a\\.csv: {message}"):
        read(text(table()), **options)


def test_the_rules_name_the_words_they_go_by():
    for word in _LABEL:
        assert word.removesuffix("s") in RULES.replace("GroundTruth", "groundtruth")
        assert_right(read(text(table(label=word))))
