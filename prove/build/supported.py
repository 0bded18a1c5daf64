"""Which heads PROVE can put an objective on: those whose losses are the sum of ``loss_decode`` over one logit map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prove.errors import ProveError

OWN_LOSSES: Mapping[str, str] = {
    "DAHead": "it sums its losses over three maps (position, channel, both)",
    "DDRHead": "it has one loss for each of two maps (context, spatial)",
    "EncHead": "it adds a semantic encoding loss, loss_se, beside loss_decode",
    "IterativeDecodeHead": "it sums the losses of its kernel head over all stages",
    "MaskFormerHead": "its set criterion is not the one of Mask2FormerHead",
    "PIDHead": "it has four losses on three maps, one of them for boundaries",
    "PointHead": "its loss is taken on sampled points, not on pixels",
    "STDCHead": "it learns to find boundaries, not classes",
    "SideAdapterCLIPHead": "it has a set criterion of its own",
    "VPDDepthHead": "it predicts depth, not classes",
}
"""MMSegmentation's heads that compute losses in a way of their own, and how."""


def type_name(config: Mapping[str, Any]) -> str:
    """The class that a config names, without its scope or module: ``mmseg.FCNHead`` is ``FCNHead``."""
    kind = config.get("type", "")
    return kind.__name__ if isinstance(kind, type) else str(kind).rsplit(".", 1)[-1]


def is_mask_classification(head: Mapping[str, Any]) -> bool:
    """Whether a head minimises a set criterion of its own."""
    return "loss_cls" in head and "loss_mask" in head


def check_head(path: str, head: Mapping[str, Any]) -> None:
    """Refuse a head that would not minimise the objective it is given.

    Args:
        path: where the head sits in the model, for the message.

    Raises:
        ProveError: the head has a pixel sampler, or losses of its own.
    """
    name = type_name(head)
    if head.get("sampler") is not None:
        raise ProveError(
            f"The config's {path} has a pixel sampler, {type_name(head['sampler'])}: it would weigh every term.",
            hint='Remove it and ask for hard-pixel mining in the objective: "ce(ohem)".',
        )
    if name in OWN_LOSSES:
        raise ProveError(
            f"The config's {path} is a {name}, on which PROVE can't put an objective: {OWN_LOSSES[name]}.",
            hint="Use a model whose heads train loss_decode on one map of logits.",
        )
    if is_mask_classification(head) and name != "Mask2FormerHead":
        raise ProveError(
            f"The config's {path} is a {name}: of the mask-classification heads PROVE knows Mask2FormerHead only."
        )


def check_one_kind(heads: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse per-pixel heads beside a head with a set criterion: no objective has a meaning in both.

    Args:
        heads: every head of a model as ``(module path, config)``.

    Raises:
        ProveError: both kinds are there.
    """
    masks = [path for path, head in heads if is_mask_classification(head)]
    others = [(path, type_name(head)) for path, head in heads if not is_mask_classification(head)]
    if masks and others:
        path, name = others[0]
        raise ProveError(
            f"The config's {masks[0]} has a set criterion and its {path}, a {name}, is per-pixel: "
            "an objective can't be put on both.",
            hint=f"Take {path.partition('.')[0]} out; m2f + a per-pixel term trains the semantic map directly."
            if masks[0].startswith("decode_head")
            else "Use a model whose heads are all of one kind.",
        )
