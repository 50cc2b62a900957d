"""Tasks: found by name, and asked for all that hangs on them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.loss import adapt_loss
from truerisk.task import Task, all_tasks, config_has_samples, get_task, infer_task
from truerisk.task.classification import Classification
from truerisk.task.multilabel import MultiLabel
from truerisk.task.next_token import NextToken

CONF = Path(__file__).parents[2] / "conf"
BCE = ["classification", "multilabel"]
NAMES = ["classification", "regression", "multilabel", "next_token", "function"]


def test_every_file_of_the_folder_is_a_task():
    assert list(all_tasks()) == NAMES
    assert all(get_task(name).name == name for name in NAMES)


def test_an_unknown_task_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'regresion': did you mean 'regression'\?"):
        get_task("regresion")


def test_a_run_that_broke_off_early_has_no_task_and_no_errors():
    task = get_task("")
    assert type(task) is Task
    assert (task.figure_name, task.error_title, task.has_samples) == ("risk.png", None, True)


@pytest.mark.parametrize("task", all_tasks().values(), ids=NAMES)
def test_the_losses_a_task_lists_are_options_that_fit(task):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    for option in task.losses:
        loss = instantiate(OmegaConf.load(CONF / "loss" / f"{option}.yaml"))
        assert adapt_loss(loss, task, 1 if option == "value" else 4).task is task


@pytest.mark.parametrize("task", all_tasks().values(), ids=NAMES)
def test_a_task_has_errors_where_it_has_a_title_for_them(task):
    outputs = task.try_outputs(torch.zeros(()), 3, 4)
    loss = nn.CrossEntropyLoss(reduction="none") if task.name in NAMES[:4:3] else None
    fitted = type("Fitted", (), {"loss": loss, "output_size": 4, "logistic": False})
    errors = task.compute_errors(fitted, outputs, task.try_targets(outputs))
    assert (errors is None) == (task.error_title is None)
    assert errors is None or errors.shape == (3,)


@pytest.mark.parametrize(
    ("values", "options", "name"),
    [
        (["a", "b"], {}, "classification"),
        ([True, False], {}, "classification"),
        (range(30), {}, "classification"),
        (range(30), {"max_classes": 20}, "regression"),
        ([[1, 2], [0, 1]], {"max_classes": 20}, "regression"),
        ([0.5, 1.0], {}, "regression"),
        ([0.5, 1.0], {"name": "classification"}, "classification"),
        ([[0, 1]], {"name": "multilabel"}, "multilabel"),
        ([[0, 1], [1, 1]], {}, "multilabel"),
        ([[0.0, 1.0], [1.0, 1.0]], {}, "regression"),
        ([[0.0, 1.0], [1.0, 1.0]], {"suited": BCE}, "multilabel"),
        ([[0, 1], [1, 0]], {}, "classification"),
        ([[0.0, 1.0], [1.0, 0.0]], {"suited": BCE}, "classification"),
        ([[0.0, 1.0], [1.0, 0.0]], {}, "regression"),
        ([[3], [1], [3]], {"max_classes": 20}, "classification"),
        ([3, 1, 3], {"suited": ["regression"]}, "regression"),
        ([[0, 1], [1, 1]], {"suited": ["regression"]}, "regression"),
        ([True, False], {"suited": ["regression"]}, "regression"),
        (["a", "b"], {"suited": ["regression"]}, "classification"),
        ([0.0, 1.0], {"suited": BCE}, "classification"),
        ([0.0, 0.5], {"suited": BCE}, "regression"),
        (np.array([None, [1], [1, 2]], dtype=object)[1:], {}, "multilabel"),
    ],
)
def test_what_targets_ask_for(values, options, name):
    assert infer_task(np.array(values), **options).name == name


def test_one_hot_rows_and_column_vectors_are_class_labels():
    y, names = Classification().read_targets(np.array([[0.0, 1, 0], [1, 0, 0]]))
    assert (y.tolist(), names) == ([1, 0], [0, 1, 2])
    y, names = Classification().read_targets(np.array([[7], [5], [7]]))
    assert (y.tolist(), names) == ([1, 0, 1], [5, 7])


def test_lists_of_labels_keep_the_order_of_names_that_were_given():
    lists = np.array([None, ["b"], ["c", "a"], []], dtype=object)[1:]
    y, names = MultiLabel().read_targets(lists)
    assert (y.tolist(), names) == ([[0, 1, 0], [1, 0, 1], [0, 0, 0]], ["a", "b", "c"])
    y, _ = MultiLabel().read_targets(lists[:1], ["c", "b", "a"])
    assert y.tolist() == [[0, 1, 0]]
    with pytest.raises(ConfigError, match="label 'c' is not among those trained on"):
        MultiLabel().read_targets(lists, ["a", "b"])
    moved = MultiLabel().renumber_targets(y, ["c", "b", "a"], ["b", "z"])
    assert moved.tolist() == [[1, 0]] and MultiLabel().find_classes(y) == [1]


def test_labels_of_mixed_kinds_have_an_order():
    values = np.array([1, "unknown", 0, 1], dtype=object)
    y, names = Classification().read_targets(values)
    assert (y.tolist(), names) == ([1, 2, 0, 1], [0, 1, "unknown"])


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("classification", [[0, 2], [1, 0]], "class labels are one number a sample"),
        ("classification", np.array([None, [1], [1, 2]], dtype=object)[1:], "holds lists"),
        ("regression", ["a", "b"], "the target is not a number"),
        ("regression", [1.0, np.inf], "NaN or infinite"),
        ("multilabel", [[0, 2]], "0 or 1 for each label"),
        ("multilabel", [["a", "b"]], "texts or lists"),
        ("next_token", [[0.5]], "whole numbers"),
        ("next_token", [1, 2], "for every place of a sequence"),
        ("next_token", [[0, -1]], "below 0"),
    ],
)
def test_targets_of_another_kind_are_refused(task, values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        get_task(task).read_targets(np.array(values))


def test_the_error_of_several_labels_is_their_mean():
    outputs = torch.tensor([[2.0, -1.0], [-1.0, -1.0], [1.0, 1.0]])
    y = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    fitted = adapt_loss(nn.BCEWithLogitsLoss(reduction="none"), "multilabel", 2)
    assert fitted.compute_errors(outputs, y).tolist() == [0.0, 0.5, 1.0]
    expected = nn.functional.binary_cross_entropy_with_logits(outputs, y, reduction="none")
    torch.testing.assert_close(fitted(outputs, y), expected.mean(1))
    assert MultiLabel().count_outputs(True, 2) == 2


def test_the_loss_of_a_sequence_is_the_mean_of_its_tokens():
    torch.manual_seed(0)
    outputs, y = torch.randn(5, 7, 3), torch.randint(3, (5, 7))
    fitted = adapt_loss(nn.CrossEntropyLoss(reduction="none"), "next_token", 3)
    expected = -outputs.log_softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1).mean(1)
    torch.testing.assert_close(fitted(outputs, y), expected)
    wrong = (outputs.argmax(-1) != y).float().mean(1)
    torch.testing.assert_close(fitted.compute_errors(outputs, y), wrong)
    mapped = torch.vmap(fitted, (0, None))(torch.stack([outputs, outputs]), y)
    torch.testing.assert_close(mapped, torch.stack([expected, expected]))


def test_a_scalar_loss_of_tokens_is_refused_as_any():
    with pytest.raises(ConfigError, match="reduction: none"):
        adapt_loss(nn.CrossEntropyLoss(), "next_token", 3)


def test_a_vocabulary_counts_inputs_and_targets():
    x, y = torch.tensor([[0, 5]]), torch.tensor([[5, 2]])
    assert NextToken().count_targets(x, y, None) == 6
    assert NextToken().count_targets(y, torch.tensor([[7, 0]]), None) == 8


def test_a_configuration_tells_whether_there_are_samples():
    assert config_has_samples("truerisk.data.DataModule")
    assert not config_has_samples("truerisk.data.NoData")
