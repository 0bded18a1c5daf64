"""The set criterion: its reference, finite differences, and what must hold for any input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from set_criterion_batches import IGNORE, gradients, predictions, scene
from torch import Tensor
from torch.nn import functional as F

from prove.errors import ProveError
from prove.losses import CriterionSettings, SetCriterion, semantic_to_mask_targets
from prove.losses.reference.set_criterion import reference_criterion
from prove.losses.set_criterion import Points
from prove.losses.set_criterion.points import LossPoints

VARIANTS: dict[str, dict[str, Any]] = {
    "m2f": {},
    "focal": {"cls": "focal"},
    "random": {"points": "random"},
    "full": {"points": "full", "dice_weight": 2.0},
    "final": {"deep_supervision": False},
    "half": {"deep_weight": 0.5},
    "weights": {"no_object": 0.05, "class_weight": 1.5, "mask_weight": 3.0, "dice_weight": 0.7},
    "sampling": {"oversample_ratio": 1.7, "importance_sample_ratio": 0.3},
}
POINTS = 61


def batch(
    layers: int = 2, images: int = 2, queries: int = 7, classes: int = 5, seed: int = 0, kinds: int = 4, scale: int = 4
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Predictions in float64, and labels that are ``scale`` times as large."""
    labels = scene(images, classes, (5 * scale, 7 * scale), seed=seed, kinds=kinds)
    cls, masks = predictions(layers, images, queries, classes, (5, 7), seed=seed, labels=labels, dtype=torch.float64)
    return cls, masks, labels


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "shape",
    [{}, {"queries": 3, "classes": 8, "kinds": 6}, {"classes": 1}, {"images": 3, "layers": 3, "seed": 4}, {"scale": 1}],
    ids=str,
)
def test_equals_the_reference(variant: str, shape: dict[str, int]) -> None:
    cls, masks, labels = batch(**shape)
    criterion = SetCriterion(cls[0].shape[2] - 1, num_points=POINTS, **VARIANTS[variant])
    points = criterion.draw_points(cls, labels, torch.Generator().manual_seed(1))
    found = criterion(cls, masks, labels, points=points)
    expected = reference_criterion(cls, masks, labels, criterion.settings, points)
    assert found.terms.keys() == expected.keys()
    for name, value in expected.items():
        assert found.terms[name].item() == pytest.approx(value.item(), abs=1e-9)
        assert value.item() > 0
    ours, theirs = gradients(found.total, cls + masks), gradients(sum(expected.values()), cls + masks)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_finite_differences(variant: str) -> None:
    labels = scene(2, 3, (6, 8), kinds=2)
    cls, masks = predictions(2, 2, 3, 3, (3, 4), dtype=torch.float64)
    criterion = SetCriterion(3, num_points=20, **VARIANTS[variant])
    points = criterion.draw_points(cls, labels, torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(
        lambda *leaves: criterion(leaves[:2], leaves[2:], labels, points=points).total, (*cls, *masks)
    )


def test_full_is_cross_entropy_and_dice_of_upsampled_masks() -> None:
    cls, masks, labels = batch(layers=1, images=1)
    out = SetCriterion(5, points="full")(cls, masks, labels)
    queries, targets = out.assignments[0][0]
    classes, truth = semantic_to_mask_targets(labels)[0]
    assert len(queries) == len(classes) == 4
    logits = F.interpolate(masks[0], labels.shape[1:], mode="bilinear")[0, queries]
    wanted = truth[targets].double()
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy(p, wanted)
    dice = 1 - (2 * (p * wanted).sum((1, 2)) + 1) / (p.sum((1, 2)) + wanted.sum((1, 2)) + 1)
    assert out.terms["loss_mask"].item() == pytest.approx(5 * cross_entropy.item(), rel=1e-12)
    assert out.terms["loss_dice"].item() == pytest.approx(5 * dice.mean().item(), rel=1e-12)


def test_full_does_not_depend_on_how_many_masks_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cls, masks, labels = batch()
    expected = SetCriterion(5, points="full", num_points=POINTS)(cls, masks, labels, generator=seeded())
    before = gradients(expected.total, masks)
    monkeypatch.setattr("prove.losses.set_criterion.masks.PIXELS_AT_ONCE", {True: 3 * labels[0].numel()})
    found = SetCriterion(5, points="full", num_points=POINTS)(cls, masks, labels, generator=seeded())
    torch.testing.assert_close(found.terms, expected.terms, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradients(found.total, masks), before, rtol=1e-14, atol=1e-18)


def test_uncertain_points_are_where_the_mask_is_undecided() -> None:
    """A mask that is right, and sure of it but along one column: all that costs anything is among the uncertain points.

    Three candidates for each point, so these hold 3 times what random points would; a quarter is random beside them.
    """
    masks = torch.full((1, 1, 16, 16), 9.0)
    masks[..., 8] = 0.0
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    uncertain, random = (
        SetCriterion(1, points=points, num_points=20000)([torch.zeros(1, 1, 2)], [masks], labels, generator=seeded())
        for points in ("uncertain", "random")
    )
    assert uncertain.terms["loss_mask"] / random.terms["loss_mask"] == pytest.approx(3.25, rel=0.05)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_total_is_the_sum_of_terms_and_points_are_those_that_are_drawn() -> None:
    cls, masks, labels = batch(layers=3)
    for variant in VARIANTS.values():
        criterion = SetCriterion(5, num_points=POINTS, **variant)
        torch.manual_seed(7)
        found = criterion(cls, masks, labels)
        assert found.total.item() == pytest.approx(sum(value.item() for value in found.terms.values()), rel=1e-13)
        torch.manual_seed(7)
        points = criterion.draw_points(cls, labels)
        again = criterion(cls, masks, labels, points=points)
        assert {k: v.item() for k, v in again.terms.items()} == {k: v.item() for k, v in found.terms.items()}
        with_generator = criterion(cls, masks, labels, generator=torch.Generator().manual_seed(7))
        assert with_generator.total.item() == found.total.item()
    torch.manual_seed(8)
    assert SetCriterion(5, num_points=POINTS)(cls, masks, labels).total != found.total


def test_intermediate_layers_count_what_their_weight_says() -> None:
    """The final layer's terms are the same whatever the others are; their points come from the same draws."""
    cls, masks, labels = batch(layers=3)

    def terms(**changed: Any) -> dict[str, float]:
        out = SetCriterion(5, num_points=POINTS, **changed)(cls, masks, labels, generator=seeded())
        return {name: value.item() for name, value in out.terms.items()} | {"total": out.total.item()}

    full, half, none, final = terms(), terms(deep_weight=0.5), terms(deep_weight=0.0), terms(deep_supervision=False)
    assert set(final) == {"loss_cls", "loss_mask", "loss_dice", "total"}
    assert none["total"] == pytest.approx(final["total"], rel=1e-14)
    for name, value in full.items():
        if name.startswith("d"):
            assert half[name] == pytest.approx(0.5 * value, rel=1e-14)
        elif name != "total":
            assert half[name] == none[name] == final[name] == value
    assert {name[:2] for name in full if name.startswith("d")} == {"d0", "d1"}


def test_the_final_layer_sees_the_same_points_with_and_without_the_others() -> None:
    cls, _, labels = batch(layers=3)
    deep, alone = (
        SetCriterion(5, num_points=POINTS, deep_supervision=each).draw_points(cls, labels, seeded())
        for each in (True, False)
    )
    assert torch.equal(deep.matching[-1:], alone.matching)
    assert torch.equal(deep.loss[-1].candidates, alone.loss[0].candidates)
    assert torch.equal(deep.loss[-1].random, alone.loss[0].random)
    drawn = torch.cat([deep.matching.flatten(), *(x.flatten() for p in deep.loss for x in (p.candidates, p.random))])
    assert len(drawn.unique()) > 0.99 * len(drawn)  # no layer, image or mask shares its points with another


def test_weights_multiply_their_part_where_they_do_not_change_the_matching() -> None:
    cls, masks, labels = batch(layers=1, kinds=1)  # one class: which query is best does depend on the weights
    masks[0].data[:, 1:] = -50.0  # but here there is no doubt
    masks[0].data[:, 0] = 3.0

    def terms(**changed: Any) -> dict[str, float]:
        out = SetCriterion(5, num_points=POINTS, **changed)(cls, masks, labels, generator=seeded())
        assert out.assignments[0][0].queries.tolist() == [0]
        return {name: value.item() for name, value in out.terms.items()}

    base = terms()
    for part in ("class", "mask", "dice"):
        name = "loss_cls" if part == "class" else f"loss_{part}"
        standard = 2.0 if part == "class" else 5.0
        changed = terms(**{f"{part}_weight": 3.0 * standard})
        assert changed.pop(name) == pytest.approx(3.0 * base[name], rel=1e-13)
        assert changed.items() <= base.items()


def test_no_object_weighs_queries_without_a_class() -> None:
    """Of T matched and Q - T other queries, with values a and b: (sum a + w sum b) / (T + w (Q - T))."""
    cls, masks, labels = batch(layers=1)
    values = {}
    for weight in (0.0, 0.05, 0.1, 1.0):
        out = SetCriterion(5, num_points=POINTS, no_object=weight)(cls, masks, labels, generator=seeded())
        values[weight] = out.terms["loss_cls"].item() / 2
    matched = sum(len(pairs.queries) for pairs in out.assignments[0])
    others = 14 - matched
    a, b = values[0.0] * matched, values[1.0] * 14 - values[0.0] * matched
    for weight, value in values.items():
        assert value == pytest.approx((a + weight * b) / (matched + weight * others), rel=1e-12)
    truth = torch.full((2, 7), 5)
    for image, pairs in enumerate(out.assignments[0]):
        truth[image, pairs.queries] = semantic_to_mask_targets(labels)[image].classes[pairs.targets]
    assert values[1.0] == pytest.approx(F.cross_entropy(cls[0].flatten(0, 1), truth.flatten()).item(), rel=1e-12)


def test_focal_discounts_what_is_easy() -> None:
    cls = torch.zeros(1, 1, 4, dtype=torch.float64)
    cls[..., 2] = 3.0
    masks = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    labels = torch.full((1, 4, 4), 2)
    p = torch.softmax(cls[0, 0], 0)[2].item()
    plain, focal = (SetCriterion(3, cls=kind, num_points=9)([cls], [masks], labels).terms for kind in ("ce", "focal"))
    assert plain["loss_cls"].item() == pytest.approx(-2 * torch.tensor(p).log().item(), rel=1e-6)
    assert focal["loss_cls"].item() == pytest.approx((1 - p) ** 2 * plain["loss_cls"].item(), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), queries=st.integers(1, 8), classes=st.integers(1, 6), images=st.integers(1, 3),
    variant=st.sampled_from(sorted(VARIANTS)),
)  # fmt: skip
def test_the_order_of_queries_means_nothing(seed: int, queries: int, classes: int, images: int, variant: str) -> None:
    """Points go to masks in the order of their queries, so all masks are given the same ones here."""
    cls, masks, labels = batch(2, images, queries, classes, seed=seed)
    criterion = SetCriterion(classes, num_points=31, **VARIANTS[variant])
    drawn = criterion.draw_points(cls, labels, torch.Generator().manual_seed(seed))
    shared = tuple(
        LossPoints(p.candidates[:1].expand_as(p.candidates), p.random[:1].expand_as(p.random)) for p in drawn.loss
    )
    points = Points(drawn.matching, shared)
    order = torch.randperm(queries, generator=torch.Generator().manual_seed(seed))
    found = criterion(cls, masks, labels, points=points)
    moved = criterion([x[:, order] for x in cls], [x[:, order] for x in masks], labels, points=points)
    for name, value in found.terms.items():
        assert moved.terms[name].item() == pytest.approx(value.item(), rel=1e-11, abs=1e-13)
        assert value.isfinite()


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_to_find(variant: str) -> None:
    """Without a class, only "no object" is learned; the masks keep a graph and get no gradient."""
    cls, masks, labels = batch()
    labels[:] = IGNORE
    out = SetCriterion(5, num_points=POINTS, **VARIANTS[variant])(cls, masks, labels)
    nothing = F.cross_entropy(cls[-1].flatten(0, 1), torch.full((14,), 5)).item()
    if variant not in ("focal", "weights"):
        assert out.terms["loss_cls"].item() == pytest.approx(2 * nothing, rel=1e-12)
    assert out.terms["loss_mask"].item() == out.terms["loss_dice"].item() == 0
    found = gradients(out.total, cls + masks)
    assert all(g.isfinite().all() for g in found)
    assert found[1].abs().max() > 0
    assert all(g.abs().max() == 0 for g in found[2:])
    assert [len(pairs.queries) for pairs in out.assignments[-1]] == [0, 0]


def test_nothing_to_find_and_nothing_to_weigh() -> None:
    cls, masks, labels = batch()
    labels[:] = IGNORE
    out = SetCriterion(5, num_points=POINTS, no_object=0.0)(cls, masks, labels)
    assert out.total.item() == 0
    assert all(g.abs().max() == 0 for g in gradients(out.total, cls + masks))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("variant", ["m2f", "focal", "full"])
def test_huge_logits_and_half_precision(dtype: torch.dtype, variant: str) -> None:
    cls, masks, labels = batch()
    leaves = [(1e4 * x.detach().sign()).to(dtype).requires_grad_() for x in cls + masks]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = SetCriterion(5, num_points=POINTS, **VARIANTS[variant])(leaves[:2], leaves[2:], labels)
    assert out.total.isfinite()
    assert out.total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    found = gradients(out.total, leaves)
    assert all(g.isfinite().all() and g.dtype == dtype for g in found)


def test_half_precision_is_that_of_the_inputs_alone() -> None:
    cls, masks, labels = batch()
    rounded = [x.detach().to(torch.bfloat16) for x in cls + masks]
    criterion = SetCriterion(5, num_points=POINTS)
    points = criterion.draw_points(cls, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = criterion(rounded[:2], rounded[2:], labels, points=points)
    wide = [x.double() for x in rounded]
    expected = reference_criterion(wide[:2], wide[2:], labels, criterion.settings, points)
    for name, value in expected.items():
        assert found.terms[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_mask_targets() -> None:
    labels = torch.tensor([[[3, 3], [0, 255]], [[255, 255], [255, 255]]], dtype=torch.uint8)
    first, second = semantic_to_mask_targets(labels)
    assert first.classes.tolist() == [0, 3]
    assert first.masks.tolist() == [[[False, False], [True, False]], [[True, True], [False, False]]]
    assert second.classes.shape == (0,)
    assert second.masks.shape == (0, 2, 2)
    (alone,) = semantic_to_mask_targets(labels[0], ignore_index=3)
    assert alone.classes.tolist() == [0, 255]
    with pytest.raises(ProveError, match="expected integers"):
        semantic_to_mask_targets(labels.float())
    with pytest.raises(ProveError, match=r"squeeze\(1\)"):
        semantic_to_mask_targets(labels[:, None])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"point": "random"}, "Unknown setting of the set criterion 'point'.*'points'"),
        ({"points": "ful"}, "Unknown value of points 'ful'.*'full'"),
        ({"cls": "bce"}, "Unknown value of cls 'bce'"),
        ({"deep_supervision": 1}, "deep_supervision is true or false"),
        ({"no_object": -0.1}, "no_object is a finite number at least 0"),
        ({"deep_weight": float("nan")}, "deep_weight is a finite number"),
        ({"mask_weight": "5"}, "mask_weight is a finite number"),
        ({"num_points": 0}, "num_points is a whole number"),
        ({"num_points": 10.0}, "num_points is a whole number"),
        ({"oversample_ratio": 0.5}, "oversample_ratio is a finite number at least 1"),
        ({"importance_sample_ratio": 1.1}, r"in \[0, 1\]"),
    ],
)
def test_refuses_settings(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ProveError, match=f"(?s){message}"):
        SetCriterion(5, **changed)


def test_settings_can_be_given_as_data_and_changed_by_name() -> None:
    criterion = SetCriterion(5, CriterionSettings(points="full", no_object=0.3), no_object=0.2)
    assert criterion.settings == CriterionSettings(points="full", no_object=0.2)
    assert "no_object=0.2" in repr(criterion)


def test_refuses_what_does_not_fit() -> None:
    cls, masks, labels = batch()
    criterion = SetCriterion(5, num_points=POINTS)

    def refused(message: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(ProveError, match=message):
            criterion(*arguments, **options)

    refused("2 layers of class logits and 1 of mask logits", cls, masks[:1], labels)
    refused("at least one", [], [], labels)
    refused(r"In layer 0 the class logits are \[2, 7, 5\]", [x[..., 1:] for x in cls], masks, labels)
    refused("In layer 1", [cls[0], cls[1][:, 1:]], masks, labels)
    refused("In layer 0 .*mask logits", cls, [x[0] for x in masks], labels)
    refused("expected floating point", [x.long() for x in cls], masks, labels)
    refused("for 2 images", cls, masks, labels[:1])
    refused("expected integers", cls, masks, labels.double())
    refused(r"squeeze\(1\)", cls, masks, labels[:, None])
    wrong = labels.clone()
    wrong[1, 3, 4] = 7
    refused("Label 7 at image 1, row 3, column 4 is not a class", cls, masks, wrong)
    wrong[1, 3, 4] = -1
    refused("Label -1 at image 1", cls, masks, wrong)
    fewer = SetCriterion(5, num_points=POINTS - 1).draw_points(cls, labels)
    refused("The points are", cls, masks, labels, points=fewer)
    refused("The points are", cls[1:], masks[1:], labels, points=criterion.draw_points(cls, labels))
    refused(r"class logits are one tensor \[2, 2, 7, 6\]; expected at least one", torch.stack(cls), masks, labels)
    refused(r"mask logits are one tensor \[2, 7, 5, 7\]", cls[-1:], masks[-1], labels)
    refused("class logits are a list that holds a list", [each.tolist() for each in cls], masks, labels)
    refused("Labels are a list", cls, masks, labels.tolist())
    for arguments, message in (
        ((torch.stack(cls), labels), "class logits are one tensor"),  # its first dimension would pass for the layers
        (([], labels), "class logits are an empty list"),
        (([cls[0][0]], labels), r"class logits are \[7, 6\]"),
        ((cls, None), "Labels are a NoneType"),
    ):
        with pytest.raises(ProveError, match=message):
            criterion.draw_points(*arguments)
    for count in (0, "19", 2.5, True, None):
        with pytest.raises(ProveError, match=f"num_classes is a whole number of at least 1, not {count!r}"):
            SetCriterion(count)
    with pytest.raises(ProveError, match="ignore_index is a whole number, not None"):
        SetCriterion(19, ignore_index=None)


@pytest.mark.parametrize("variant", ["m2f", "focal", "random", "full", "final"])
def test_minimising_it_finds_the_scene(variant: str) -> None:
    """Free logits, no model: every part falls in every trained layer, and the semantic map becomes the labels."""
    torch.manual_seed(0)
    labels = scene(2, 6, (16, 20))
    cls, masks = predictions(2, 2, 10, 6, (16, 20))
    criterion = SetCriterion(6, num_points=200, **VARIANTS[variant])
    optimiser = torch.optim.Adam([*cls, *masks], lr=0.3)
    first = None
    for _ in range(80):
        optimiser.zero_grad()
        out = criterion(cls, masks, labels)
        first = first or out.terms
        out.total.backward()
        optimiser.step()
    # at points on a contour the labels are mixtures, which no mask reaches: uncertain points are mostly there
    assert all(value < 0.4 * first[name] for name, value in out.terms.items())
    scores = torch.einsum("nqc,nqhw->nchw", cls[-1].softmax(2)[..., :-1], masks[-1].sigmoid())
    valid = labels != IGNORE
    assert (scores.argmax(1) == labels)[valid].float().mean() > 0.97
    chosen = cls[-1].argmax(2)
    assert [(row < 6).sum() for row in chosen] == [len(image[image != IGNORE].unique()) for image in labels]
