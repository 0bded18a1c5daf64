"""Batches and terms that the tests of the losses share."""

import torch

from prove.catalog.losses import resolve
from prove.losses import build_term
from prove.spec import parse

IGNORE = 255

TERMS = (
    "ce",
    "ce(label_smoothing=0.1)",
    "ohem(min_kept=4)",
    "focal",
    "focal(gamma=0.5, alpha=1)",
    "focal(ohem, min_kept=4, thresh=0.4)",
    "focal(form=sigmoid)",
    "focal(form=sigmoid, gamma=0.5, alpha=0.25)",
    "lovasz",
    "lovasz(classes=present)",
    "lovasz(classes=[0, 1], per_image=false, method=exact)",
    "boundary",
    "boundary(pos_weight=3)",
    "dice",
    "dice(squared=true, smooth=0)",
    "dice(classes=all)",
    "jaccard",
    "jaccard(smooth=0, classes=all)",
    "tversky",
    "tversky(alpha=0.9, beta=0.2, smooth=0, classes=all)",
    "focal_tversky",
    "focal_tversky(gamma=0.6, alpha=0.7, beta=0.3, smooth=0.5, classes=[0, 1])",
    "boundary_focal",
    "boundary_focal(gamma=0.5, alpha=1, edge_weight=20, width=0)",
    "distance",
    "distance(classes=[0, 1])",
    "hausdorff",
    "hausdorff(alpha=1.5, classes=present)",
)
"""Every term, with each of its parameters off its default at least once."""


def term(text, **options):
    return build_term(resolve(parse(text)).primary, **options)


def batch(n=2, c=4, h=7, w=6, ignored=0.2, seed=0, dtype=torch.float64, scale=2.0):
    """Logits and labels: blobs of classes, so that there are edges, insides and ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, c, h, w, generator=generator, dtype=torch.float64)
    coarse = torch.randint(0, c, (n, (h + 2) // 3, (w + 2) // 3), generator=generator)
    labels = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :h, :w].clone()
    labels[torch.rand(n, h, w, generator=generator) < ignored] = IGNORE
    return logits.to(dtype), labels


def value_and_gradient(module, logits, labels, weight=None):
    leaf = logits.detach().clone().requires_grad_()
    value = module(leaf, labels) if weight is None else module(leaf, labels, weight)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient
