"""What every loss term is: a module from logits and labels to one number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from prove.errors import ProveError
from prove.losses.pixels import Pixels


class Term(nn.Module, ABC):
    """A loss term. A subclass sets ``name`` and computes `value`.

    A term has no parameters and no buffers: casting or moving a model leaves it as it is.

    Attributes:
        name: its name in the catalogue.
        refuses_weight: why a weight per pixel has no meaning here; empty when it is taken.
        ignore_index: the label of pixels that are left out.
    """

    name: ClassVar[str]
    refuses_weight: ClassVar[str] = ""

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    @abstractmethod
    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar of the logits' type with their graph."""

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The unweighted value of the term.

        Ignored pixels have no influence and an exactly zero gradient, whatever their logits are. A batch in which
        every pixel is ignored gives 0 with a zero gradient. Autocast is off inside.

        Args:
            logits: [N, C, H, W], C >= 2, any floating type.
            labels: [N, H, W], integers in [0, C) or ``ignore_index``.
            weight: [N, H, W] weights per pixel, finite and >= 0, or None.

        Returns:
            A scalar, float64 for float64 logits and float32 otherwise.

        Raises:
            ProveError: as `Pixels.of`, or a ``weight`` that this term refuses.
        """
        from prove.losses.backends import chosen_backend
        from prove.losses.evaluate import evaluate  # which knows all terms

        found = evaluate({self.name: self}, logits, labels, self.ignore_index, weight=weight, backend=chosen_backend())
        return found.values[self.name]

    def check_weight(self) -> None:
        """Refuse a weight per pixel by name where it has no meaning."""
        if self.refuses_weight:
            raise ProveError(
                f"{self.name} takes no weight per pixel: {self.refuses_weight}.",
                hint=f"Leave {self.name} out of this objective, or the weight per pixel out of the training.",
            )
