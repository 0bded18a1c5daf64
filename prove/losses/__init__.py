"""The losses as torch modules, and the `Objective` that sums them; usable in any training loop."""

from prove.losses.boundary import Boundary
from prove.losses.cross_entropy import CrossEntropy
from prove.losses.dice import Dice
from prove.losses.focal import Focal
from prove.losses.lovasz import Lovasz
from prove.losses.objective import Objective, ObjectiveOutput, build_term
from prove.losses.pixels import Pixels
from prove.losses.term import Term
from prove.losses.weights import class_weights

__all__ = [
    "Boundary",
    "CrossEntropy",
    "Dice",
    "Focal",
    "Lovasz",
    "Objective",
    "ObjectiveOutput",
    "Pixels",
    "Term",
    "build_term",
    "class_weights",
]
