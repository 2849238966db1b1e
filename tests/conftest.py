"""Checkpoints of learned models, tiny and with random weights, saved to folders as a user would
have them."""

import gc
import os
from pathlib import Path

# Idle OpenMP threads must not spin beside those of the other test processes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

SIDE = 128
"""Of the images that the tiny SAM 2 sees."""


def pytest_collection_finish() -> None:
    """Later collections, of which each stage has some, need not look at all that was imported."""
    gc.collect()
    gc.freeze()


def tiny_depth_anything(kind: str) -> torch.nn.Module:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        image_size=42, patch_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, out_indices=[1, 2],
        reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, reassemble_factors=[2, 1], neck_hidden_sizes=[16, 16],
        fusion_hidden_size=16, head_hidden_size=8, depth_estimation_type=kind, max_depth=20,
    )  # fmt: skip
    return DepthAnythingForDepthEstimation(config)


def tiny_depth_pro() -> torch.nn.Module:
    from transformers import DepthProConfig, DepthProForDepthEstimation

    encoder = {
        "model_type": "dinov2", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 1, "patch_size": 4,
        "image_size": 16,
    }  # fmt: skip
    config = DepthProConfig(
        patch_size=16, fusion_hidden_size=16, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[10, 8],
        scaled_images_ratios=[0.5, 1.0], scaled_images_overlap_ratios=[0.0, 0.2], scaled_images_feature_dims=[12, 12],
        image_model_config=encoder, patch_model_config=dict(encoder), fov_model_config=dict(encoder),
    )  # fmt: skip
    return DepthProForDepthEstimation(config)


def tiny_sam2() -> torch.nn.Module:
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    backbone = Sam2HieraDetConfig(
        hidden_size=12, image_size=SIDE, patch_stride=4, patch_kernel_size=7, patch_padding=3,
        blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[12, 24, 48, 96], global_attention_blocks=[3],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[96, 48, 24, 12], fpn_hidden_size=128,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision, image_size=SIDE,
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE, "mask_input_channels": 8},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32},
        memory_attention_hidden_size=128, memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8], memory_encoder_hidden_size=128, mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32, memory_fuser_num_layers=1,
    )  # fmt: skip
    model = Sam2VideoModel(config)
    model.mask_decoder.pred_obj_score_head.proj_out.bias.data += (
        5  # else random weights see nothing at all
    )
    return model


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny models by name."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    models = {
        "depth_anything": tiny_depth_anything("relative"),
        "metric": tiny_depth_anything("metric"),
        "depth_pro": tiny_depth_pro(),
        "sam2": tiny_sam2(),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return {name: folder / name for name in models}
