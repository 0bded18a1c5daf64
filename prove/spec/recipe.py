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

    @property
    def words(self) -> str:
        """What is trained on, where it is not every image of the dataset: ``clear_day alone, 50% real images``."""
        parts = [f"{' and '.join(self.domain_filter)} alone"] if self.domain_filter is not None else []
        if self.real_gen_ratio is not None:
            parts.append(f"{100 * self.real_gen_ratio:g}% real images")
        return ", ".join(parts)
