"""A config's model, set right for one job: classes, crop, norms, pretrained weights, objective."""

from __future__ import annotations

import copy
from typing import Any

from prove.build.configs import head_configs, walk
from prove.build.objective import CRITERION, HeadPlan, term_configs
from prove.errors import ProveError


def patch_model(
    config: Any,
    *,
    heads: tuple[HeadPlan, ...],
    num_classes: int,
    crop_size: tuple[int, int],
    class_weight: tuple[float, ...] | None,
    weights: str | None,
    replace_sync_bn: bool = True,
) -> dict[str, Any]:
    """A patched copy of a config's ``model``.

    Args:
        heads: the plan of `prove.build.objective.plan_heads`, made from this same config.
        crop_size: training crop (height, width) in pixels; slide inference follows it.
        class_weight: weights from the training set, for terms that ask for them.
        weights: file with the pretrained backbone, or None to start from random weights.
        replace_sync_bn: SyncBN needs a process group; on one device it is BN.
    """
    model: dict[str, Any] = copy.deepcopy(dict(config))
    if replace_sync_bn:
        for node in walk(model):
            if node.get("type") == "SyncBN":
                node["type"] = "BN"
    _set_pretrained(model, weights)
    preprocessor = model.get("data_preprocessor")
    if isinstance(preprocessor, dict):
        preprocessor.pop("size_divisor", None)
        preprocessor["size"] = crop_size
        preprocessor["seg_pad_val"] = 255
    test = model.get("test_cfg") or {}
    if test.get("mode") == "slide":
        stride = tuple(max(1, side * 3 // 4) for side in crop_size)
        model["test_cfg"] = {**test, "crop_size": crop_size, "stride": stride}
    by_path = dict(head_configs(model))
    for plan in heads:
        head = by_path[plan.path]
        _set_classes(head, num_classes)
        head["ignore_index"] = 255
        terms = term_configs(plan, class_weight)
        if plan.kind == "per_pixel":
            head["loss_decode"] = terms
            continue
        head["type"] = "SemanticMask2FormerHead"
        head["semantic_terms"] = terms
        head["criterion_weight"] = next(str(term.weight) for _, term in plan.terms if term.name == CRITERION)
    return model


def _set_classes(head: Any, num_classes: int) -> None:
    old = head.get("num_classes")
    for node in walk(head):
        if "num_classes" in node:
            node["num_classes"] = num_classes
        weight = node.get("class_weight")
        if old and isinstance(weight, list) and len(weight) == old + 1:  # a set criterion's, with "no object" last
            node["class_weight"] = [1.0] * num_classes + [weight[-1]]


def _set_pretrained(model: Any, weights: str | None) -> None:
    """Point the backbone's weights at a local file, or take them out."""
    for node in walk(model):
        if "pretrained" in node:
            node["pretrained"] = None
        if isinstance(node.get("init_cfg"), dict) and node["init_cfg"].get("type") == "Pretrained":
            node["init_cfg"] = None
    if weights is not None:
        model["backbone"]["init_cfg"] = {"type": "Pretrained", "checkpoint": weights}
