"""A DINOv3 ViT-S/16 with a linear head, fine-tuned as a whole.

The head is that of DINOv3's own evaluation (Siméoni 2025, arXiv:2508.10104): dropout, batch norm and a 1x1 convolution
on the last layer's normalised patch tokens. Optimiser and schedule are those of MMSegmentation's Mask2Former on ADE20K,
which fine-tunes a pretrained backbone at a tenth of the head's learning rate.
"""

model = {
    "type": "EncoderDecoder",
    "data_preprocessor": {
        "type": "SegDataPreProcessor",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
        "pad_val": 0,
        "seg_pad_val": 255,
        "size": (512, 512),
    },
    "backbone": {
        "type": "DINOv3Backbone",
        "size": "small",
        "layers": 1,
        "frozen": False,
        "init_cfg": {
            "type": "Pretrained",
            "checkpoint": "https://huggingface.co/timm/vit_small_patch16_dinov3.lvd1689m/resolve/main/model.safetensors",
        },
    },
    "decode_head": {
        "type": "PatchLinearHead",
        "in_channels": 384,
        "channels": 384,
        "in_index": 0,
        "num_classes": 150,
        "dropout_ratio": 0.1,
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
    },
    "train_cfg": {},
    "test_cfg": {"mode": "whole"},
}
optim_wrapper = {
    "type": "OptimWrapper",
    "optimizer": {"type": "AdamW", "lr": 0.0001, "weight_decay": 0.05, "betas": (0.9, 0.999)},
    "paramwise_cfg": {
        "norm_decay_mult": 0.0,
        "custom_keys": {
            "backbone": {"lr_mult": 0.1, "decay_mult": 1.0},
            "cls_token": {"lr_mult": 0.1, "decay_mult": 0.0},
            "reg_token": {"lr_mult": 0.1, "decay_mult": 0.0},
        },
    },
}
param_scheduler = [{"type": "PolyLR", "eta_min": 0, "power": 0.9, "begin": 0, "end": 160000, "by_epoch": False}]
train_cfg = {"type": "IterBasedTrainLoop", "max_iters": 160000, "val_interval": 5000}
auto_scale_lr = {"enable": False, "base_batch_size": 16}
