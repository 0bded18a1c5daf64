"""The published set criteria, on the inputs that `prove.losses.SetCriterion` takes; no model around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prove.build.configs import shipped
from prove.losses import semantic_to_mask_targets
from prove.training.stack import load_stack

Criterion = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], dict[str, Tensor]]
"""From class logits [N, Q, C + 1] and mask logits [N, Q, h, w] by layer, and labels [N, H, W], to weighted losses."""

SHIPPED = "mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py"


def mmseg_criterion(classes: int, queries: int, num_points: int) -> Criterion:
    """That of MMSegmentation's Mask2Former head, which is MMDetection's, as its config for Cityscapes sets it."""
    load_stack()
    from mmdet.registry import TASK_UTILS
    from mmengine.config import Config
    from mmengine.structures import PixelData
    from mmseg.models.decode_heads import Mask2FormerHead
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    config = Config.fromfile(shipped(SHIPPED)).model.decode_head
    config.loss_cls.class_weight = [1.0] * classes + config.loss_cls.class_weight[-1:]
    head = Mask2FormerHead.__new__(Mask2FormerHead)  # without the layers of a model
    torch.nn.Module.__init__(head)
    head.num_classes, head.num_queries, head.ignore_index = classes, queries, 255
    head.class_weight = config.loss_cls.class_weight
    for part in ("loss_cls", "loss_mask", "loss_dice"):
        setattr(head, part, MODELS.build(config[part]))
    train = config.train_cfg
    head.assigner = TASK_UTILS.build(train.assigner)
    head.sampler = TASK_UTILS.build(train.sampler, default_args={"context": head})
    head.num_points, head.oversample_ratio = num_points, train.oversample_ratio
    head.importance_sample_ratio = train.importance_sample_ratio

    def criterion(cls: Sequence[Tensor], masks: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        samples = [SegDataSample(gt_sem_seg=PixelData(data=image[None])) for image in labels]
        losses = head.loss_by_feat(list(cls), list(masks), *head._seg_data_to_instance_data(samples))
        return {name: value.sum() for name, value in losses.items()}  # some have a dimension of one entry

    return criterion


def hugging_face_criterion(classes: int, queries: int, num_points: int) -> Criterion:
    """Hugging Face's `Mask2FormerLoss` with its default configuration, weighted as that says."""
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    config = Mask2FormerConfig(num_labels=classes, num_queries=queries, train_num_points=num_points)
    weights = {
        "loss_cross_entropy": config.class_weight,
        "loss_mask": config.mask_weight,
        "loss_dice": config.dice_weight,
    }
    names = {"loss_cross_entropy": "loss_cls", "loss_mask": "loss_mask", "loss_dice": "loss_dice"}
    module = Mask2FormerLoss(config, weights)

    def criterion(cls: Sequence[Tensor], masks: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        targets = semantic_to_mask_targets(labels)
        binary = [each.masks.to(masks[0].dtype) for each in targets]
        deep = [
            {"masks_queries_logits": m, "class_queries_logits": c} for c, m in zip(cls[:-1], masks[:-1], strict=True)
        ]
        found = module(masks[-1], cls[-1], binary, [each.classes for each in targets], deep)
        losses = {}
        for layer in ["", *(str(index) for index in range(len(deep)))]:
            for part, name in names.items():
                value = found[f"{part}_{layer}" if layer else part]
                losses[f"d{layer}.{name}" if layer else name] = weights[part] * value
        return losses

    return criterion
