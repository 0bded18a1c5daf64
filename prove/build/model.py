"""A config's model, set right for one job: classes, crop, norms, pretrained weights, objective."""

from __future__ import annotations

import copy
from typing import Any

from prove.build.configs import head_configs, is_pretrained, walk
from prove.build.objective import CRITERION, CRITERION_PARTS, HeadPlan, term_configs
from prove.build.supported import type_name


def patch_model(
    config: Any,
    *,
    heads: tuple[HeadPlan, ...],
    num_classes: int,
    crop_size: tuple[int, int],
    class_weight: tuple[float, ...] | None,
    weights: str | None,
) -> dict[str, Any]:
    """A patched copy of a config's ``model``.

    Args:
        heads: the plan of `prove.build.objective.plan_heads`, made from this same config.
        crop_size: training crop (height, width) in pixels; slide inference follows it.
        class_weight: weights from the training set, for terms that ask for them.
        weights: file with the pretrained backbone, or None to start from random weights.
    """
    model: dict[str, Any] = copy.deepcopy(dict(config))
    for node in walk(model):
        if type_name(node) in ("SyncBN", "SyncBatchNorm"):
            node["type"] = "BN"  # SyncBN needs a process group; on one device it is BN
    _set_pretrained(model, weights)
    preprocessor = model.get("data_preprocessor")
    if isinstance(preprocessor, dict):
        preprocessor.pop("size_divisor", None)
        preprocessor["size"] = crop_size
        preprocessor["seg_pad_val"] = 255
    test = model.get("test_cfg") or {}
    if test.get("mode") == "slide":
        shares = [step / side for step, side in zip(test["stride"], test["crop_size"], strict=True)]
        stride = tuple(max(1, round(side * share)) for side, share in zip(crop_size, shares, strict=True))
        model["test_cfg"] = {**test, "crop_size": crop_size, "stride": stride}
    by_path = dict(head_configs(model))
    for plan in heads:
        head = by_path[plan.path]
        _set_classes(head, num_classes)
        head["ignore_index"] = 255
        terms = term_configs(plan, class_weight)
        if plan.kind == "per_pixel":
            head["loss_decode"] = terms
            for binary in ("out_channels", "threshold"):  # for one sigmoid map; left out, they follow num_classes
                head.pop(binary, None)
            continue
        head["type"] = "SemanticMask2FormerHead"
        for own in (*CRITERION_PARTS, "train_cfg", "loss_decode"):  # its criterion, points and matching; never read
            head.pop(own, None)
        head["criterion"] = next(str(term) for _, term in plan.terms if term.name == CRITERION)
        head["semantic_terms"] = terms
    return model


def _set_classes(head: Any, num_classes: int) -> None:
    head["num_classes"] = num_classes
    for node in walk(head):
        if "num_classes" in node:
            node["num_classes"] = num_classes


def _set_pretrained(model: Any, weights: str | None) -> None:
    """Where the config names pretrained weights: point it at a local file, or take them out."""
    if isinstance(model.get("pretrained"), str):  # the old way to write what follows
        model["backbone"]["init_cfg"] = {"type": "Pretrained", "checkpoint": model["pretrained"]}
        model["pretrained"] = None
    for node in walk(model):
        if isinstance(node.get("pretrained"), str):
            node["pretrained"] = weights
        own = node.get("init_cfg")
        listed = own if isinstance(own, list | tuple) else [own] if own else []
        if not any(is_pretrained(each) for each in listed):
            continue
        if weights is not None:
            kept = [{**each, "checkpoint": weights} if is_pretrained(each) else each for each in listed]
        else:
            kept = [each for each in listed if not is_pretrained(each)]
        node["init_cfg"] = kept if len(kept) > 1 else next(iter(kept), None)
