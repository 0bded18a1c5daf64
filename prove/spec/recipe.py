"""What a job is trained on and how its images are changed, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What of a job decides its training data.

    Attributes:
        strategy: canonical text, such as ``gen_cycleGAN+std_cutmix``.
        domain_filter: the conditions that are trained on, sorted; None for all.
        real_gen_ratio: share of real images in an epoch, in [0, 1]; None where nothing is generated.
    """

    strategy: str = "baseline"
    domain_filter: tuple[str, ...] | None = None
    real_gen_ratio: float | None = None
