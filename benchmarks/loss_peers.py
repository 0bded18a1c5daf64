"""The losses of other libraries, called so that they mean what PROVE's terms mean: what a user of each would write."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from loss_inputs import IGNORE
from torch import Tensor
from torch.nn import functional as F

from prove.training.stack import load_stack, quiet_known_warnings

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits [N, C, H, W] and labels [N, H, W] to a scalar."""


@dataclass(frozen=True)
class PeerTerm:
    """A term as a library has it.

    Attributes:
        make: builds it, given the number of images and of classes.
        note: in what it differs, if it does.
        ignores: whether it can leave out pixels by their label.
    """

    make: Callable[[int, int], Loss]
    note: str = ""
    ignores: bool = True


PER_IMAGE = "per image, the classes it holds; no smoothing"
"""What another average over images means: the work is the same, the value is not."""

CLASSES = "all classes, not those present"


def torch_ce(images: int, classes: int) -> Loss:
    return lambda z, y: F.cross_entropy(z, y, ignore_index=IGNORE)


def torch_weighted_ce(images: int, classes: int) -> Loss:
    weight = torch.tensor(class_weight(classes))
    return lambda z, y: F.cross_entropy(z, y, weight.to(z), ignore_index=IGNORE, label_smoothing=0.1)


def class_weight(classes: int) -> list[float]:
    """Weights of the classes in the rows with weights: some rare, some common."""
    return [0.5 + (5 * index % 7) / 4 for index in range(classes)]


# mmsegmentation ------------------------------------------------------------------------------------------------------


def mmseg_ce(images: int, classes: int) -> Loss:
    from mmseg.models.losses import CrossEntropyLoss

    loss = CrossEntropyLoss(avg_non_ignore=True)
    return lambda z, y: loss(z, y, ignore_index=IGNORE)


def mmseg_sigmoid_focal(images: int, classes: int) -> Loss:
    from mmseg.models.losses import FocalLoss

    loss = FocalLoss(use_sigmoid=True, gamma=2.0, alpha=0.5)
    return lambda z, y: loss(z, y, ignore_index=IGNORE) * classes


def mmseg_lovasz(images: int, classes: int) -> Loss:
    from mmseg.models.losses import LovaszLoss

    loss = LovaszLoss(classes="all", per_image=True, reduction="mean")
    return lambda z, y: loss(z, y, ignore_index=IGNORE)


def mmseg_tversky(images: int, classes: int) -> Loss:
    from mmseg.models.losses import TverskyLoss

    loss = TverskyLoss(alpha=0.3, beta=0.7, smooth=1)
    return lambda z, y: loss(z, y)


def mmseg_ohem(images: int, classes: int) -> Loss:
    from mmseg.models.losses import OhemCrossEntropy

    return OhemCrossEntropy(ignore_label=IGNORE, thres=0.7, min_kept=100_000 * images)


# segmentation_models_pytorch -----------------------------------------------------------------------------------------


def smp_sigmoid_focal(images: int, classes: int) -> Loss:
    from segmentation_models_pytorch.losses import FocalLoss

    loss = FocalLoss("multiclass", alpha=0.5, gamma=2.0, ignore_index=IGNORE)
    return lambda z, y: loss(z, y) * classes


def smp_lovasz(images: int, classes: int) -> Loss:
    from segmentation_models_pytorch.losses import LovaszLoss

    return LovaszLoss("multiclass", per_image=True, ignore_index=IGNORE)


def smp_dice(images: int, classes: int) -> Loss:
    from segmentation_models_pytorch.losses import DiceLoss

    return DiceLoss("multiclass", smooth=1.0, ignore_index=IGNORE)


def smp_jaccard(images: int, classes: int) -> Loss:
    from segmentation_models_pytorch.losses import JaccardLoss

    return JaccardLoss("multiclass", smooth=1.0, ignore_index=IGNORE)


def smp_tversky(images: int, classes: int) -> Loss:
    from segmentation_models_pytorch.losses import TverskyLoss

    return TverskyLoss("multiclass", smooth=1.0, alpha=0.3, beta=0.7, ignore_index=IGNORE)


# MONAI ---------------------------------------------------------------------------------------------------------------


def _with_channel(loss: Loss) -> Loss:
    return lambda z, y: loss(z, y[:, None])


def monai_focal(images: int, classes: int) -> Loss:
    from monai.losses import FocalLoss

    loss = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0, ignore_index=IGNORE)
    return lambda z, y: loss(z, y[:, None]) * 0.5


def monai_sigmoid_focal(images: int, classes: int) -> Loss:
    from monai.losses import FocalLoss

    loss = FocalLoss(to_onehot_y=True, gamma=2.0, alpha=0.5, ignore_index=IGNORE)
    return _with_channel(loss)


def monai_dice(images: int, classes: int) -> Loss:
    from monai.losses import DiceLoss

    loss = DiceLoss(
        to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0, ignore_index=IGNORE
    )  # fmt: skip
    return _with_channel(loss)


def monai_jaccard(images: int, classes: int) -> Loss:
    from monai.losses import DiceLoss

    loss = DiceLoss(
        to_onehot_y=True, softmax=True, jaccard=True, batch=True, smooth_nr=2.0, smooth_dr=2.0, ignore_index=IGNORE
    )
    return _with_channel(loss)


def monai_tversky(images: int, classes: int) -> Loss:
    from monai.losses import TverskyLoss

    loss = TverskyLoss(
        to_onehot_y=True, softmax=True, batch=True, alpha=0.3, beta=0.7, smooth_nr=1.0, smooth_dr=1.0,
        ignore_index=IGNORE,
    )  # fmt: skip
    return _with_channel(loss)


def monai_distance(images: int, classes: int) -> Loss:
    from monai.losses import BoundaryLoss

    loss = BoundaryLoss(include_background=True, to_onehot_y=True, softmax=True)
    return lambda z, y: loss(z, y[:, None]) * classes


def monai_hausdorff(images: int, classes: int) -> Loss:
    from monai.losses import HausdorffDTLoss

    return _with_channel(HausdorffDTLoss(include_background=True, to_onehot_y=True, softmax=True))


# kornia --------------------------------------------------------------------------------------------------------------


def kornia_focal(images: int, classes: int) -> Loss:
    from kornia.losses import focal_loss

    def loss(z: Tensor, y: Tensor) -> Tensor:
        total = focal_loss(z, y, alpha=None, gamma=2.0, reduction="sum", ignore_index=IGNORE)
        return 0.5 * total / (y != IGNORE).sum()

    return loss


def kornia_lovasz(images: int, classes: int) -> Loss:
    from kornia.losses import lovasz_softmax_loss

    return lovasz_softmax_loss


def kornia_dice(images: int, classes: int) -> Loss:
    from kornia.losses import dice_loss

    return lambda z, y: dice_loss(z, y, average="macro", ignore_index=IGNORE)


def kornia_tversky(images: int, classes: int) -> Loss:
    from kornia.losses import tversky_loss

    return lambda z, y: tversky_loss(z, y, alpha=0.3, beta=0.7, ignore_index=IGNORE)


def kornia_jaccard(images: int, classes: int) -> Loss:
    from kornia.losses import tversky_loss

    return lambda z, y: tversky_loss(z, y, alpha=1.0, beta=1.0, ignore_index=IGNORE)


# torchvision ---------------------------------------------------------------------------------------------------------


def torchvision_sigmoid_focal(images: int, classes: int) -> Loss:
    from torchvision.ops import sigmoid_focal_loss

    def loss(z: Tensor, y: Tensor) -> Tensor:
        valid = y != IGNORE
        one_hot = F.one_hot(torch.where(valid, y, 0), classes).permute(0, 3, 1, 2).to(z.dtype)
        per_class = sigmoid_focal_loss(z, one_hot, alpha=0.5, gamma=2.0, reduction="none")
        return torch.where(valid[:, None], per_class, 0.0).sum() / valid.sum()

    return loss


PEERS: dict[str, dict[str, PeerTerm]] = {
    "torch": {"ce": PeerTerm(torch_ce), "weighted_ce": PeerTerm(torch_weighted_ce)},
    "mmseg": {
        "ce": PeerTerm(mmseg_ce),
        "sigmoid_focal": PeerTerm(mmseg_sigmoid_focal, "ignored pixels count in its divisor"),
        "lovasz": PeerTerm(mmseg_lovasz),
        "tversky": PeerTerm(mmseg_tversky, f"per image; {CLASSES}"),
        "ohem": PeerTerm(mmseg_ohem),
    },
    "smp": {
        "sigmoid_focal": PeerTerm(smp_sigmoid_focal),
        "lovasz": PeerTerm(smp_lovasz, "classes present in the image, not all"),
        "dice": PeerTerm(smp_dice),
        "jaccard": PeerTerm(smp_jaccard),
        "tversky": PeerTerm(smp_tversky),
    },
    "MONAI": {
        "focal": PeerTerm(monai_focal),
        "sigmoid_focal": PeerTerm(monai_sigmoid_focal),
        "dice": PeerTerm(monai_dice, CLASSES),
        "jaccard": PeerTerm(monai_jaccard, CLASSES),
        "tversky": PeerTerm(monai_tversky, CLASSES),
        "distance": PeerTerm(monai_distance, ignores=False),
        "hausdorff": PeerTerm(monai_hausdorff, ignores=False),
    },
    "kornia": {
        "focal": PeerTerm(kornia_focal),
        "lovasz": PeerTerm(kornia_lovasz, ignores=False),
        "dice": PeerTerm(kornia_dice, PER_IMAGE),
        "jaccard": PeerTerm(kornia_jaccard, PER_IMAGE),
        "tversky": PeerTerm(kornia_tversky, PER_IMAGE),
    },
    "torchvision": {"sigmoid_focal": PeerTerm(torchvision_sigmoid_focal)},
}
"""By library and term. A library without a cross-entropy of its own is used with torch's, as its users do."""

LEFT_OUT = (
    "mmseg `DiceLoss`: one ratio over all classes, and ignored pixels count",
    "mmseg `BoundaryLoss`: needs a head that predicts boundaries",
    "smp `TverskyLoss(gamma)`: the power of the mean, not the mean of the powers",
    "smp `SoftCrossEntropyLoss`: ignored pixels count in its divisor",
    "MONAI `GeneralizedDiceLoss`: another loss",
)
"""Losses by a name that PROVE has too, and of another meaning."""


def load_peers() -> None:
    """Import every library once, before anything is measured."""
    load_stack()
    quiet_known_warnings()
    for module in ("kornia.losses", "monai.losses", "segmentation_models_pytorch.losses", "torchvision.ops"):
        importlib.import_module(module)


def peer_of(library: str, terms: Sequence[str]) -> PeerTerm | None:
    """The sum of terms as users of a library write it; None where it lacks one of them.

    A library without a cross-entropy gets torch's, if it has the rest.
    """
    own = PEERS[library]
    from_torch = {} if all(name in PEERS["torch"] for name in terms) else PEERS["torch"]
    found = [own.get(name) or from_torch.get(name) for name in terms]
    there = [term for term in found if term is not None]
    if len(there) < len(found):
        return None

    def make(images: int, classes: int) -> Loss:
        made = [term.make(images, classes) for term in there]
        if len(made) == 1:
            return made[0]
        return lambda z, y: torch.stack([loss(z, y) for loss in made]).sum()

    notes = "; ".join(term.note for term in there if term.note)
    return PeerTerm(make, notes, all(term.ignores for term in there))
