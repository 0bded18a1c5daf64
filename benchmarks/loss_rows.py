"""What `benchmarks/losses.py` measures, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from loss_peers import class_weight


@dataclass(frozen=True)
class Row:
    """An objective to measure.

    Attributes:
        text: as PROVE writes it; ``{weights}`` stands for one weight per class.
        terms: its terms as `PEERS` names them; none where only PROVE is measured.
        time: at most, on a CPU, as a multiple of `F.cross_entropy`; None where nothing is asked.
        memory: at most, on a CPU, in multiples of the logits.
        slow: measured only on request.
    """

    text: str
    terms: tuple[str, ...] = ()
    time: float | None = None
    memory: float | None = None
    slow: bool = False

    @property
    def alone(self) -> bool:
        """Nothing is asked of it: measured at the first size only."""
        return self.time is None

    @property
    def name(self) -> str:
        return self.text.replace("class_weight=[{weights}]", "class_weight=[...]")

    def written(self, classes: int) -> str:
        return self.text.replace("{weights}", ", ".join(f"{weight:g}" for weight in class_weight(classes)))

    @property
    def limits(self) -> dict[str, float]:
        """On a CPU."""
        asked = {"time": self.time, "memory": self.memory}
        return {name: limit for name, limit in asked.items() if limit is not None}

    @property
    def cuda_limits(self) -> dict[str, float]:
        if self.alone:
            return {}
        return {"time": 3.0} if "lovasz" in self.text else {"copies": 1.5}


ROWS = (
    Row("ce", ("ce",), 1.2, 1.3),
    Row("ce(class_weight=[{weights}], label_smoothing=0.1)", ("weighted_ce",), 1.2, 1.3),
    Row("ce + focal", ("ce", "focal"), 1.3, 1.3),
    Row("ce + dice", ("ce", "dice"), 1.5, 1.3),
    Row("ce + tversky", ("ce", "tversky"), 1.5, 1.3),
    Row("ce + focal + dice", ("ce", "focal", "dice"), 1.7, 1.3),
    Row("ce + lovasz", ("ce", "lovasz"), 2.5, 1.5),
    Row("ce + lovasz(method=binned)", (), 2.5, 1.5),
    Row("ce + lovasz(method=exact)", (), 9.0, 4.0),
    Row("ce + boundary", (), 2.5, 2.0),
    Row("focal", ("focal",)),
    Row("focal(form=sigmoid)", ("sigmoid_focal",)),
    Row("lovasz", ("lovasz",)),
    Row("dice", ("dice",)),
    Row("jaccard", ("jaccard",)),
    Row("tversky", ("tversky",)),
    Row("focal_tversky"),
    Row("boundary"),
    Row("boundary_focal"),
    Row("distance", ("distance",), slow=True),
    Row("hausdorff(classes=all)", ("hausdorff",), slow=True),
    Row("ce(ohem)", ("ohem",)),
)
FROM_STRIDE_4 = {"upsampled time": 0.5, "upsampled memory": 0.2}
"""At most, from stride-4 logits, of the time and the memory of upsampling and the same objective unfused."""
CUDA_FROM_STRIDE_4 = {"time": 0.25}
