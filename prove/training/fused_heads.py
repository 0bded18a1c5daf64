"""MMSegmentation's per-pixel heads, made to evaluate all terms of their objective in one go.

The stock `loss_by_feat` upsamples the logits to the size of the labels, sixteen times the data and more, and hands
them to one loss after the other. Here the terms get the head's own logits and upsample them on the way, in tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any, TypeGuard

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from prove.errors import ProveError
from prove.losses.backends import chosen_backend
from prove.losses.evaluate import evaluate
from prove.losses.objective import nothing
from prove.losses.user_terms import scalar
from prove.training.mixing import labelled, over_labels
from prove.training.objective import ProveTerm


def fuse_heads(model: nn.Module) -> None:
    """Let every head whose losses are PROVE's terms evaluate them together; other heads stay as they are."""
    for head in model.modules():
        if _is_stock(head) and terms_of(head):
            head.__dict__["loss_by_feat"] = MethodType(_loss_by_feat, head)


def _is_stock(head: nn.Module) -> bool:
    return isinstance(head, BaseDecodeHead) and all(
        getattr(type(head), name) is getattr(BaseDecodeHead, name) for name in ("loss_by_feat", "_stack_batch_gt")
    )


def require_mixable(path: str, head: Any) -> None:
    """Refuse a head that would train on a batch of MixUp as if its images had one label each.

    Args:
        path: where the head sits in the model, for the message.

    Raises:
        ProveError: neither `fuse_heads` nor PROVE's Mask2Former head has the say over its losses.
    """
    own = head.__dict__.get("loss_by_feat")
    if getattr(own, "__func__", None) is not _loss_by_feat and not hasattr(head, "losses_for"):
        raise ProveError(
            f"std_mixup can't mix the losses of {path}: {type(head).__name__} computes them in a way of its own.",
            hint="std_cutmix mixes images and labels, and needs nothing of a head.",
        )


def terms_of(head: Any) -> list[ProveTerm]:
    """The terms of a head, when they can be evaluated together.

    None if any of its losses is something else, was changed or is watched by a hook, if the head samples pixels, or
    if two terms have one name: MMSegmentation's own way honours all that.
    """
    losses = head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]
    terms = [loss for loss in losses if _is_plain(loss)]
    names = {term.loss_name for term in terms}
    return terms if len(terms) == len(losses) == len(names) and head.sampler is None else []


def _is_plain(loss: nn.Module) -> TypeGuard[ProveTerm]:
    return type(loss) is ProveTerm and not any(_changed(module) for module in (loss, loss.term))


def _changed(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "forward" in vars(module) or "value" in vars(module) or any(hooks)


def _loss_by_feat(head: Any, seg_logits: Tensor, batch_data_samples: Sequence[Any]) -> dict[str, Tensor]:
    def losses_for(labels: Tensor, maps: Tensor | None) -> dict[str, Tensor]:
        terms = terms_of(head)
        if not terms:  # somebody has put another loss there since
            samples = [labelled(*each) for each in zip(batch_data_samples, labels, strict=True)]
            found: dict[str, Tensor] = BaseDecodeHead.loss_by_feat(head, seg_logits, samples)
            return found
        return weighted(
            terms, seg_logits, labels, head.ignore_index, align_corners=head.align_corners, distance_maps=maps
        )

    return over_labels(batch_data_samples, losses_for)


def weighted(
    terms: Sequence[ProveTerm],
    logits: Tensor,
    labels: Tensor,
    ignore_index: int,
    *,
    align_corners: bool | None = None,
    distance_maps: Tensor | None = None,
) -> dict[str, Tensor]:
    """Weight times value of each term by the name of its loss; a term of weight 0 costs nothing.

    Args:
        logits: [N, C, h, w]; labels: [N, H, W], as for `prove.losses.evaluate.evaluate`.
    """
    for term in terms:
        term.check_ignore_index(ignore_index)
    active = {term.loss_name: term.term for term in terms if term.loss_weight != 0}
    values: Mapping[str, Tensor] = {}
    if active:
        values = evaluate(
            active, logits, labels, ignore_index, align_corners=align_corners, distance_maps=distance_maps,
            backend=chosen_backend(),
        ).values  # fmt: skip
    return {
        term.loss_name: scalar(values[term.loss_name], f"{term.spec.name}: value") * term.loss_weight
        if term.loss_name in active
        else nothing(logits)
        for term in terms
    }


def methods(terms: Sequence[ProveTerm], logits: Tensor, labels: Tensor, align_corners: bool | None) -> dict[str, str]:
    """How each term is computed on a batch like this one, by the name of its loss."""
    with torch.no_grad():
        found = evaluate(
            {term.loss_name: term.term for term in terms}, logits, labels, terms[0].ignore_index,
            align_corners=align_corners, backend=chosen_backend(),
        )  # fmt: skip
    return {name: found.method(name) for name in found.values}
