"""Loss terms inside MMSegmentation's heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from prove.catalog.losses import resolve
from prove.losses import build_term
from prove.losses.objective import nothing
from prove.losses.user_terms import load_terms
from prove.spec import parse


@MODELS.register_module()
class ProveTerm(nn.Module):
    """One weighted term of an objective, as an entry of a head's ``loss_decode``.

    Args:
        term: the term as text with its weight or schedule, ``0.3*focal(gamma=2)``.
        loss_name: name of its entry in the losses; starts with ``loss``, or it would not be trained.
        class_weight: one weight per class, for terms whose ``class_weight`` comes from the training set.
        ignore_index: label that is left out.
        definition: the YAML file of a term of the user's own, so that the config stands alone.
    """

    def __init__(
        self,
        term: str,
        loss_name: str,
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        definition: str | None = None,
    ) -> None:
        super().__init__()
        if definition is not None:
            load_terms(definition)
        if not loss_name.startswith("loss"):
            raise ValueError(f"{loss_name!r} would never reach backward: MMSegmentation adds up names with 'loss'")
        self.spec = resolve(parse(term)).primary
        self.loss_name = loss_name
        self.ignore_index = ignore_index
        self.term = build_term(self.spec, ignore_index=ignore_index, class_weight=class_weight)
        self.loss_weight = self.spec.weight.at(0.0)

    def set_progress(self, progress: float) -> None:
        """Move a weight with a schedule to where it is at a progress in [0, 1]; a constant one stays as set."""
        if not self.spec.weight.is_constant:
            self.loss_weight = self.spec.weight.at(progress)

    def check_ignore_index(self, ignore_index: int) -> None:
        """Refuse a head that ignores another label than the one this term was built for."""
        if ignore_index != self.ignore_index:
            raise ValueError(
                f"the head ignores label {ignore_index}, {self.loss_name} was built to ignore {self.ignore_index}"
            )

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        *,
        ignore_index: int,
    ) -> Tensor:
        """Weight times value, a scalar in float32 or better.

        Args:
            cls_score: logits [N, C, H, W].
            label: [N, H, W], int64.
            weight: per-pixel weight [N, H, W], or None.
            ignore_index: the head's; must be the one this term was built for.
        """
        self.check_ignore_index(ignore_index)
        if self.loss_weight == 0:  # not in play: neither its cost nor, on odd logits, its NaN
            return nothing(cls_score)
        value: Tensor = self.term(cls_score, label, weight) if weight is not None else self.term(cls_score, label)
        return value * self.loss_weight


@runtime_checkable
class Scheduled(Protocol):
    """A module whose weight follows the progress of training."""

    def set_progress(self, progress: float) -> None: ...


def set_progress(model: nn.Module, progress: float) -> None:
    """Tell every term how far training is, in [0, 1]: weights with a schedule follow it."""
    for module in model.modules():
        if isinstance(module, Scheduled):
            module.set_progress(progress)


def labels_of(samples: Sequence[Any]) -> Tensor:
    """The labels of a batch of MMSegmentation's data samples, [N, H, W]."""
    return torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in samples])


def semantic_logits(cls_score: Tensor, mask_logits: Tensor, size: tuple[int, int], eps: float = 1e-6) -> Tensor:
    """Logits of the semantic map that a mask-classification model predicts at inference.

    The map is ``s_c = sum_q softmax(cls)_{q,c} * sigmoid(mask)_q`` without the no-object class (Cheng 2022,
    arXiv:2112.01527, section 3.4), masks upsampled to ``size`` first. ``log(s + eps)`` makes it logits: their
    arg max is the prediction and their softmax is ``s`` normalised over classes.

    Args:
        cls_score: [N, Q, C + 1].
        mask_logits: [N, Q, h, w].
        size: height and width of the labels.

    Returns:
        [N, C, H, W] in float32 or better.
    """
    if cls_score.dtype in (torch.float16, torch.bfloat16):
        cls_score, mask_logits = cls_score.float(), mask_logits.float()
    with torch.autocast(cls_score.device.type, enabled=False):
        masks = nn.functional.interpolate(
            mask_logits.to(cls_score.dtype), size=size, mode="bilinear", align_corners=False
        )
        classes = cls_score.softmax(dim=-1)[..., :-1]
        return torch.log(torch.einsum("nqc,nqhw->nchw", classes, masks.sigmoid()) + eps)
