"""A linear head on a DINOv3 ViT-S/16 that stays as it is.

Optimiser, batch size and length are the defaults of DINOv3's published evaluation (dinov3/eval/segmentation/config.py:
AdamW, 1e-3 for 16 images, weight decay 1e-2, gradients clipped at 35, 40,000 iterations). Its one-cycle schedule is
replaced by a warm-up and MMSegmentation's polynomial decay, which can be stretched to any length. Only where there is a
`paramwise_cfg`, even one that changes nothing, does MMEngine leave frozen parameters out of the optimiser.
"""

_base_ = ["dinov3_linear.py"]
model = {"backbone": {"frozen": True}}
optim_wrapper = {
    "_delete_": True,
    "type": "OptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 0.001, "weight_decay": 0.01, "betas": (0.9, 0.999)},
    "clip_grad": {"max_norm": 35, "norm_type": 2},
    "paramwise_cfg": {"norm_decay_mult": 1.0},
}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 1e-6, "begin": 0, "end": 1500, "by_epoch": False},
    {"type": "PolyLR", "eta_min": 0, "power": 0.9, "begin": 1500, "end": 40000, "by_epoch": False},
]
train_cfg = {"type": "IterBasedTrainLoop", "max_iters": 40000, "val_interval": 5000}
