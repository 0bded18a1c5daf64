"""Each loss written a second time, straight from its formula: slow, plain, in float64.

The wiring proof compares the modules with these on a real batch, so nothing here is shared with them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from prove.errors import unknown
from prove.losses.reference import per_pixel, region, shape
from prove.losses.reference.params import Reference
from prove.losses.user_terms import own_reference
from prove.spec.expr import LossTerm


def reference(
    term: LossTerm,
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    class_weight: Sequence[float] | None = None,
) -> Tensor:
    """The unweighted value of one resolved term, differentiable.

    Args:
        term: a resolved term with a per-pixel definition.
        logits: [N, C, H, W]; labels: [N, H, W].
        class_weight: the weights meant by a scheme such as ``class_weight=median_frequency``.

    Returns:
        A float64 scalar.

    Raises:
        ProveError: there is no reference of that name.
    """
    own = own_reference(term, logits, labels, ignore_index)
    if own is not None:
        return own
    if term.name not in _REFERENCES:
        raise unknown("reference loss", term.name, _REFERENCES)
    labels = labels.long()
    return _REFERENCES[term.name](dict(term.params), logits.double(), labels, labels != ignore_index, class_weight)


_REFERENCES: dict[str, Reference] = {
    "ce": per_pixel.ce,
    "focal": per_pixel.focal,
    "lovasz": region.lovasz,
    "dice": region.dice,
    "boundary": shape.boundary,
    "jaccard": region.jaccard,
    "tversky": region.tversky,
    "focal_tversky": region.focal_tversky,
    "boundary_focal": per_pixel.boundary_focal,
    "distance": shape.distance,
    "hausdorff": shape.hausdorff,
}
