"""The report: numbers equal to a recount of the weights, readable, every dense layer with its reason."""

import re

import pytest
from pruner_nets import ERA, PRUNED, net, run, train
from torch.optim import AdamW

from campfire import Era, Pruner


def test_report_is_what_a_recount_of_the_weights_says():
    model = net()
    rules = {"stem": None, "body": "window:mode=campfire", "point": "ck", "head": "fine-fc"}
    *_, pruner = run(model, rules, Era(0, 2, 0.6), epochs=3)
    report = pruner.report()
    assert [r.name for r in report.layers] == ["stem", "body", "point", "head"]
    for row in report.layers:
        weight = model.get_submodule(row.name).weight.detach()
        kernels = weight.reshape(weight.shape[0] * weight.shape[1], -1)
        assert row.kept_weights == int(weight.count_nonzero())
        assert row.weights == weight.numel()
        assert row.kept_kernels == int(kernels.any(1).sum())
        assert row.kernels == len(kernels)
        assert row.true == pytest.approx(float((weight == 0).float().mean()))
        assert row.requested == (0.6 if row.structure else 0.0)
        assert (row.reason is None) == (row.structure is not None)
    convs = [model.stem.weight, model.body.weight, model.point.weight]
    assert report.convs.weights == sum(w.numel() for w in convs)
    assert report.convs.kept == sum(int(w.count_nonzero()) for w in convs)
    assert report.model.weights == sum(p.numel() for p in model.parameters())
    zeros = sum(int((model.get_submodule(n).weight == 0).sum()) for n in ("body", "point", "head"))
    assert report.model.weights - report.model.kept == zeros
    assert pruner.sparsity == report.pruned.sparsity == pytest.approx(1 - report.pruned.kept / report.pruned.weights)


def test_report_reads_well():
    *_, pruner = run(net(), {"body": "window:mode=campfire", "head": None}, Era(0, 2, 0.6), epochs=3)
    text = str(pruner.report())
    assert re.search(r"body +16x8x3x3 +window:mode=campfire +0\.600 +0\.778 +256 / 1,152 +128 / 128", text)
    assert re.search(r"stem +8x3x3x3 +dense: no rule matches it", text)
    assert re.search(r"head +10x64x1x1 +dense: a rule leaves it dense", text)
    assert "whole model: 0.3" in text


def test_report_before_anything_happened():
    report = Pruner(net(), "ck", ERA).report()
    assert report.pruned.sparsity == 0.0
    assert [r.true for r in report.layers] == [0.0] * 4
    assert {r.shape for r in report.layers if r.structure} == set(PRUNED.values())


def test_adamw_reaches_the_same_counts():
    model = net()
    optimizer = AdamW(model.parameters(), lr=0.01)
    pruner = Pruner(model, "ck", ERA).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(7))
    assert [layer.kept for layer in pruner.layers.values()] == [9 * 39, 77]


@pytest.mark.parametrize("allocation", ["uniform", "erk"])
def test_forecast_is_what_the_end_of_the_schedule_has(allocation: str):
    rules = {"stem": None, "body": "window", "point": "ck", "head": "fine-fc"}
    begun = Pruner(net(), rules, ERA, allocation=allocation)
    before = begun.forecast()
    *_, ended = run(net(), rules, ERA, allocation=allocation)
    for row, end in zip(before.layers, ended.report().layers, strict=True):
        assert (row.name, row.kept_weights, row.requested) == (end.name, end.kept_weights, end.requested)
    assert before.model == ended.report().model
    assert begun.sparsity == 0
    assert "kernels kept" not in str(before)


def test_forecast_of_what_scores_decide_is_the_target():
    rows = Pruner(net(), "ck", ERA, allocation="global").forecast().layers
    assert {row.requested for row in rows if row.structure} == {ERA.target}
