"""The entries of the loss catalogue: definitions, parameters with their ranges, sources, costs."""

from __future__ import annotations

from prove.catalog.loss_entry import LossEntry, Param
from prove.catalog.registry import Registry
from prove.spec.expr import Value

SCHEMES = ("median_frequency", "inverse", "effective_number")
"""Values of ``class_weight`` that are computed from the pixel counts of the training set."""

_DISTANCES = "distance transforms of whole images, in scipy on the CPU"


def _classes(default: str, where: str) -> Param:
    doc = f"which classes the mean runs over: all, present (in the labels {where}), or a list of class indices"
    return Param("classes", default, ("word", "classes"), doc, words=("all", "present"))


def _mining(only_with: tuple[str, Value] | None = None) -> tuple[Param, ...]:
    with_ohem = ("ohem", True)
    return (
        Param("ohem", False, ("flag",), "train on the hard pixels only", only_with=only_with),
        Param(
            "thresh",
            0.7,
            ("number",),
            "ohem only: a pixel is hard when p_y is below it",
            low=0.0,
            high=1.0,
            above_low=True,
            only_with=with_ohem,
        ),
        Param(
            "min_kept",
            100_000,
            ("integer",),
            "ohem only: pixels kept at least, times the images of the batch",
            low=1,
            only_with=with_ohem,
        ),
    )


def _alpha(doc: str, high_with: tuple[str, Value, float] | None = None) -> Param:
    return Param("alpha", 0.5, ("number", "numbers"), doc, low=0.0, above_low=True, high_with=high_with)


def _part(name: str, default: float, what: str, *, above_low: bool = False) -> Param:
    return Param(name, default, ("number",), f"weight of {what}", low=0.0, above_low=above_low)


_GAMMA = Param("gamma", 2.0, ("number",), "how fast easy pixels fade; 0 is cross-entropy", low=0.0)
_SMOOTH = Param("smooth", 1.0, ("number",), "s, in pixels: keeps tiny classes from swinging", low=0.0)
_FALSE_POSITIVES = Param("alpha", 0.3, ("number",), "weight of false positives", low=0.0)
_FALSE_NEGATIVES = Param("beta", 0.7, ("number",), "weight of false negatives", low=0.0, above_low=True)
_IN_BATCH = _classes("present", "of the batch")

_PER_PIXEL = (
    LossEntry(
        name="ce",
        summary="Cross-entropy, with class weights, label smoothing and online hard example mining.",
        formula="sum(v * w_y * -log p_y) / sum(v * w_y), with v = 1 at valid pixels; label smoothing as in PyTorch",
        params=(
            Param(
                "class_weight",
                None,
                ("word", "numbers"),
                "weight per class: a list, or computed from the training set's pixel counts (auto means "
                "median_frequency), mean 1",
                words=("none", *SCHEMES),
                synonyms=(("auto", "median_frequency"),),
            ),
            Param(
                "beta",
                0.9999999,
                ("number",),
                "effective_number only: pixels count up to about 1 / (1 - beta) (Cui 2019)",
                low=0.0,
                high=1.0,
                above_low=True,
                below_high=True,
                only_with=("class_weight", "effective_number"),
            ),
            Param(
                "label_smoothing",
                0.0,
                ("number",),
                "share of the target spread evenly over all classes",
                low=0.0,
                high=1.0,
                below_high=True,
            ),
            *_mining(),
        ),
        paper="Shrivastava 2016 (OHEM), Szegedy 2016 (label smoothing), Eigen & Fergus 2015 (median frequency), "
        "Cui 2019 (effective number)",
        averages="valid pixels, weighted by class and pixel weight",
        pixel_weight="multiplies the class weight, above and below the line",
        cost="one softmax; with ohem the k-th smallest probability as well",
        avoid="alone, when rare classes matter: frequent classes dominate the mean",
        fused=True,
    ),
    LossEntry(
        name="focal",
        summary="Cross-entropy that fades out on pixels that are right already.",
        formula="sum(v * alpha_y * (1 - p_y)^gamma * -log p_y) / sum(v); form=sigmoid: sum over pixels and classes of "
        "v * a * (1 - q)^gamma * -log q, over sum(v), with q = sigmoid(z_c), a = alpha for the own class and "
        "q = sigmoid(-z_c), a = 1 - alpha for the others",
        params=(
            _GAMMA,
            _alpha(
                "scale, or one weight per class; it does not enter the divisor. With form=sigmoid the weight of a "
                "pixel's own class, 1 - alpha that of the others",
                high_with=("form", "sigmoid", 1.0),
            ),
            Param(
                "form",
                "softmax",
                ("word",),
                "softmax over the classes, or sigmoid: one against all, summed over the classes",
                words=("softmax", "sigmoid"),
            ),
            *_mining(only_with=("form", "softmax")),
        ),
        paper="Lin 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002, eq. 5; Shrivastava 2016 (OHEM)",
        averages="valid pixels (with ohem: those kept); form=sigmoid sums over the classes of a pixel",
        pixel_weight="multiplies each pixel, above and below the line",
        cost="one softmax; with ohem the k-th smallest probability as well; with form=sigmoid a sigmoid per class",
        avoid="with noisy labels: it dwells on exactly the pixels that are labelled wrong",
        fused=True,
        unfused_because="only with form=sigmoid: it has no softmax to share",
    ),
    LossEntry(
        name="lovasz",
        summary="Lovász-Softmax: the convex surrogate of the Jaccard loss, 1 - IoU.",
        formula="mean over classes of dot(sorted errors, Lovász gradient); error = |[y = c] - p_c|",
        params=(
            _classes("all", "of the image, or of the batch when per_image=false"),
            Param("per_image", True, ("flag",), "one IoU per image, then the mean; otherwise one for the batch"),
            Param(
                "method",
                "auto",
                ("word",),
                "exact sorts the errors, binned counts them in bins; auto is exact on small inputs and binned on large "
                "ones, with a certified relative error of at most 1e-3. In plain torch all three sort",
                words=("auto", "exact", "binned"),
            ),
        ),
        paper="Berman 2018, The Lovász-Softmax loss, arXiv:1705.08790, Alg. 1",
        averages="classes, then images that have a valid pixel",
        pixel_weight="refused: a ranking of pixels has no per-pixel weight",
        cost="binned: a few passes over the probabilities; exact: a sort per class and image, several times as much",
        avoid="as the only term from random weights: its gradient is weak when everything is wrong",
        fused=True,
    ),
    LossEntry(
        name="boundary",
        summary="Cross-entropy between the Sobel edges of the prediction and those of the labels.",
        formula="weighted mean of BCE(S(p_c), S([y = c])), S = Sobel magnitude / sqrt(20)",
        params=(
            Param(
                "pos_weight",
                "balanced",
                ("word", "number"),
                "weight of an edge pixel; balanced gives edges and the rest half of the mean each",
                words=("balanced",),
                low=0.0,
                above_low=True,
            ),
        ),
        paper="Sobel edges as in gated shape supervision, Takikawa 2019, arXiv:1907.05740; 3x3 Sobel operator",
        averages="all classes and all pixels whose 3x3 neighbourhood is valid, pooled",
        pixel_weight="multiplies the weight of each pixel in the mean",
        cost="one softmax and a pass over the neighbourhoods of each probability",
        avoid="with polygon labels whose contours are off by pixels",
        fused=True,
    ),
    LossEntry(
        name="dice",
        summary="Soft Dice loss per class over the batch: 1 - F1, without thresholds.",
        formula="mean over classes of 1 - (2*I + s) / (P + G + s); I = sum(v*p*g), P = sum(v*p), G = sum(v*g)",
        params=(_SMOOTH, Param("squared", False, ("flag",), "P = sum(v*p^2), as in V-Net"), _IN_BATCH),
        paper="Milletari 2016, V-Net, arXiv:1606.04797 (squared=true); Sudre 2017, arXiv:1707.03237",
        averages="classes, over the whole batch",
        pixel_weight="multiplies each pixel in I, P and G",
        cost="one softmax, read twice",
        avoid="with classes=all on crops: classes that are not in the batch add a gradient against themselves",
        fused=True,
    ),
    LossEntry(
        name="jaccard",
        summary="Soft Jaccard loss per class over the batch: 1 - IoU, without thresholds.",
        formula="mean over classes of 1 - (I + s) / (P + G - I + s); I, P, G as in dice",
        params=(_SMOOTH, _IN_BATCH),
        paper="Rahman & Wang 2016, Optimizing Intersection-Over-Union in Deep Neural Networks, ISVC, "
        "doi:10.1007/978-3-319-50835-1_22",
        averages="classes, over the whole batch",
        pixel_weight="multiplies each pixel in I, P and G",
        cost="one softmax, read twice",
        avoid="beside dice: the two rank predictions alike; and with classes=all on crops, as dice",
        fused=True,
    ),
    LossEntry(
        name="tversky",
        summary="Dice with separate weights for false positives and false negatives.",
        formula="mean over classes of 1 - (I + s) / (I + alpha*(P - I) + beta*(G - I) + s); I, P, G as in dice",
        params=(_FALSE_POSITIVES, _FALSE_NEGATIVES, _SMOOTH, _IN_BATCH),
        paper="Salehi 2017, Tversky loss function for image segmentation, arXiv:1706.05721",
        averages="classes, over the whole batch",
        pixel_weight="multiplies each pixel in I, P and G",
        cost="one softmax, read twice",
        avoid="when precision and recall matter alike: then it is dice",
        fused=True,
    ),
    LossEntry(
        name="focal_tversky",
        summary="Tversky loss raised to a power that favours classes that are still bad.",
        formula="mean over classes of T_c^(1/gamma), T_c the tversky loss of the class",
        params=(
            _FALSE_POSITIVES,
            _FALSE_NEGATIVES,
            Param("gamma", 4.0 / 3.0, ("number",), "above 1 in the paper; 1 is tversky", low=0.0, above_low=True),
            _SMOOTH,
            _IN_BATCH,
        ),
        paper="Abraham & Khan 2018, A Novel Focal Tversky Loss Function, arXiv:1810.07842",
        averages="classes, over the whole batch",
        pixel_weight="multiplies each pixel in I, P and G",
        cost="one softmax, read twice",
        avoid="with gamma well above 1 near the end of training: the gradient grows where the loss vanishes",
        fused=True,
    ),
    LossEntry(
        name="boundary_focal",
        summary="Focal loss that counts pixels near an edge of the labels more.",
        formula="sum(v * (1 + edge_weight * e) * alpha_y * (1 - p_y)^gamma * -log p_y) / sum(v); e in [0, 1]: Sobel "
        "magnitude / sqrt(20) of the one-hot labels, its maximum over the classes, dilated by width",
        params=(
            _GAMMA,
            _alpha("scale, or one weight per class; it does not enter the divisor"),
            Param("edge_weight", 4.0, ("number",), "what a full edge adds to the weight 1 of a pixel", low=0.0),
            Param(
                "width",
                1,
                ("integer",),
                "pixels by which edges are dilated, a maximum over (2*width + 1)^2; 0 leaves them 2 pixels wide",
                low=0,
            ),
        ),
        paper="Lin 2017, arXiv:1708.02002, with a weight for borders in the spirit of Ronneberger 2015, U-Net, "
        "arXiv:1505.04597, eq. 2; 3x3 Sobel operator",
        averages="valid pixels; the edge weight does not enter the divisor",
        pixel_weight="multiplies each pixel, above and below the line",
        cost="one softmax and a pass over the neighbourhoods of the labels",
        avoid="with polygon labels whose contours are off by pixels",
        fused=True,
    ),
    LossEntry(
        name="distance",
        summary="Boundary loss of Kervadec: probability mass times its signed distance to the class in the labels.",
        formula="sum over classes c of sum(v * p_c * phi_c) / sum(v); phi_c: Euclidean distance to the class outside, "
        "-(distance to the rest - 1) inside, 0 everywhere for a class that is absent from the image or fills it",
        params=(
            Param(
                "classes",
                "all",
                ("word", "classes"),
                "which classes the sum runs over: all (the same as present: an absent class adds 0), or a list of "
                "class indices",
                words=("all",),
                synonyms=(("present", "all"),),
            ),
        ),
        paper="Kervadec 2019, Boundary loss for highly unbalanced segmentation, arXiv:1812.07032",
        averages="valid pixels; a sum over classes, in pixels of distance; it may be negative",
        pixel_weight="multiplies each pixel, above and below the line; the distances stay",
        cost="two distance transforms per class present and image, in the data workers or in the step; one softmax",
        avoid="alone or at full weight from the start: the paper begins at 0.01 beside a region loss and raises it, "
        "as linear(0.01->1) does",
        unfused_because=_DISTANCES,
    ),
    LossEntry(
        name="hausdorff",
        summary="Hausdorff loss of Karimi: squared errors times powers of the distance to both boundaries.",
        formula="mean over classes of sum(v * (p_c - g_c)^2 * (d(p_c)^alpha + d(g_c)^alpha)) / sum(v); d: Euclidean "
        "distance to the boundary of {p_c > 0.5}, or of {y = c}; 0 where that set is empty or the whole image",
        params=(
            Param("alpha", 2.0, ("number",), "how much far errors count more; 1 to 3 in the paper", low=0.0),
            _classes("all", "of the batch"),
        ),
        paper="Karimi & Salcudean 2019, Reducing the Hausdorff Distance, arXiv:1904.10030 (distance transform form)",
        averages="valid pixels, then classes; in pixels of distance to the power of alpha",
        pixel_weight="multiplies each pixel, above and below the line; the distances stay",
        cost="up to four distance transforms per class and image in every step: many times cross-entropy",
        avoid="at a constant weight: its scale is squared pixels; the paper sets the weight anew after every epoch so "
        "that it equals the dice loss beside it",
        unfused_because=_DISTANCES,
    ),
)

_CRITERIA = (
    LossEntry(
        name="m2f",
        summary="The set criterion of mask-classification models such as Mask2Former: matched queries, after every "
        "layer.",
        formula="sum over decoder layers l of w_l * (class_weight*cls + mask_weight*mask + dice_weight*dice), w_l = "
        "deep_weight but 1 for the last; each query is matched to one class of the image or to none (Hungarian "
        "matching on the same three costs)",
        params=(
            Param(
                "cls",
                "ce",
                ("word",),
                "classification of the queries: softmax cross-entropy, or its focal form (gamma 2)",
                words=("ce", "focal"),
            ),
            Param(
                "points",
                "uncertain",
                ("word",),
                "pixels that mask and dice are taken on: mostly where the mask is uncertain, drawn at random, or all",
                words=("uncertain", "random", "full"),
            ),
            Param("deep_supervision", True, ("flag",), "train every decoder layer, or the last one alone"),
            Param(
                "deep_weight",
                1.0,
                ("number",),
                "weight of each layer before the last; to train the last alone, write deep_supervision=false",
                low=0.0,
                above_low=True,
                only_with=("deep_supervision", True),
            ),
            Param(
                "no_object",
                0.1,
                ("number",),
                'weight of "no object", the class of a query that is matched to nothing, where a class weighs 1',
                low=0.0,
                above_low=True,
            ),
            _part("class_weight", 2.0, "classification, in the matching as well", above_low=True),
            _part("mask_weight", 5.0, "the masks' binary cross-entropy, in the matching as well"),
            _part("dice_weight", 5.0, "the masks' dice loss, in the matching as well"),
            Param("num_points", 12_544, ("integer",), "points per mask, for the matching and for the losses", low=1),
            Param(
                "oversample_ratio",
                3.0,
                ("number",),
                "candidates drawn for each uncertain point",
                low=1.0,
                only_with=("points", "uncertain"),
            ),
            Param(
                "importance_sample_ratio",
                0.75,
                ("number",),
                "share of the points that are the most uncertain candidates; the rest is drawn at random",
                low=0.0,
                high=1.0,
                only_with=("points", "uncertain"),
            ),
        ),
        paper="Cheng 2022, Mask2Former, arXiv:2112.01527, section 3.3; Cheng 2021, MaskFormer, arXiv:2107.06278; "
        "points as in PointRend, Kirillov 2020, arXiv:1912.08193; focal: Lin 2017, arXiv:1708.02002",
        kind="criterion",
        averages="cls: all queries, weighted by class; mask and dice: points, then the masks of the batch",
        pixel_weight="refused: queries are classified, not pixels",
        cost="a matching for each layer and image on the CPU; with points=full all masks at the labels' size",
        avoid="with any other model: only mask classification has queries",
        unfused_because="it is taken on queries and points, not on a map of logits",
        not_all_zero=("mask_weight", "dice_weight"),
    ),
)

LOSSES: Registry[LossEntry] = Registry("loss", (*_PER_PIXEL, *_CRITERIA))
