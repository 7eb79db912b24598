"""The models of ``coverage.py``, as their libraries build them, with random weights.

This list only grows: a model that fails, or is not run, counts as not reached.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

#: Sizes of the dimensions that are named in shapes: what a static run takes, and (min, opt, max) of a dynamic one.
STATIC = {"batch": 2, "sequence": 16}
DYNAMIC = {"batch": (1, 2, 4), "sequence": (4, 16, 24)}


@dataclass(frozen=True)
class Feature:
    """One input.

    Attributes:
        shape: sizes; a name of ``STATIC`` is dynamic in a dynamic run.
        high: integers from 0 to below it, int64; None for normal floats, float32.
        mask: whether it is an attention mask: int64 ones, with zeros at the end of the later rows.
    """

    shape: tuple[int | str, ...]
    high: int | None = None
    mask: bool = False

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.high is None and not self.mask else torch.int64

    def sample(self, sizes: dict[str, int], generator: torch.Generator) -> torch.Tensor:
        """Random values."""
        shape = [sizes[size] if isinstance(size, str) else size for size in self.shape]
        if self.mask:
            lengths = shape[1] - torch.arange(shape[0]) % max(1, shape[1] - 1)
            return (torch.arange(shape[1]) < lengths[:, None]).long()
        if self.high is not None:
            return torch.randint(0, self.high, shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        return _images(noise, generator) if len(shape) == 4 and shape[1] == 3 else noise


def _images(noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images with large patches, noise, and contrasts of their own: pooled noise is the same for each of them."""
    count, _, *size = noise.shape
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    patches = F.interpolate(coarse, size=tuple(size), mode="bilinear", align_corners=False)
    contrast = 0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    return contrast * (patches / patches.std(dim=(1, 2, 3), keepdim=True) + 0.3 * noise)


@dataclass(frozen=True)
class Model:
    """A model of the list.

    Attributes:
        name: ``"library/model"``.
        build: makes it; with random weights, on the CPU.
        inputs: positional inputs.
        keywords: keyword inputs.
        dynamic: whether a dynamic run is asked of it; a model that torch.export itself fixes to one size says why.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[Feature, ...] = ()
    keywords: dict[str, Feature] = field(default_factory=dict)
    dynamic: bool = True


def _image(size: int) -> tuple[Feature, ...]:
    return (Feature(("batch", 3, size, size)),)


def _torchvision(name: str, size: int = 224, **options: Any) -> Model:
    def build() -> nn.Module:
        models = importlib.import_module("torchvision.models")
        model: nn.Module = models.get_model(name, weights=None, **options)
        return model

    return Model(f"torchvision/{name}", build, _image(size))


def _segmentation(name: str) -> Model:
    return _torchvision(name, 224, weights_backbone=None)


def _video(name: str) -> Model:
    model = _torchvision(name)
    return Model(model.name, model.build, (Feature(("batch", 3, 8, 112, 112)),))


def _raft() -> Model:
    def build() -> nn.Module:
        flow = importlib.import_module("torchvision.models.optical_flow")
        model: nn.Module = flow.raft_small(weights=None)
        return model

    frame = Feature(("batch", 3, 128, 128))
    # Both frames' features are computed as one batch and parted by chunk(2). torch.export makes of it the guard
    # (3 * batch - 1) // batch == 2 and solves that to batch == 2: "Specializations unexpectedly required".
    return Model("torchvision/raft_small", build, (frame, frame), dynamic=False)


class SSDLiteNetwork(nn.Module):
    """Backbone and head of SSDlite; what follows is decoding and NMS on the host."""

    def __init__(self) -> None:
        super().__init__()
        detection = importlib.import_module("torchvision.models.detection")
        whole = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        self.backbone, self.head = whole.backbone, whole.head

    def forward(self, images: torch.Tensor) -> Any:
        """Class logits and box regressions of all anchors."""
        return self.head(list(self.backbone(images).values()))


def _timm(name: str, size: int = 224) -> Model:
    def build() -> nn.Module:
        model: nn.Module = importlib.import_module("timm").create_model(name, pretrained=False)
        return model

    return Model(f"timm/{name}", build, _image(size))


_TOKENS = Feature(("batch", "sequence"), high=99)
_MASK = Feature(("batch", "sequence"), mask=True)
_TEXT = {"input_ids": _TOKENS, "attention_mask": _MASK}

_SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
_CAUSAL: dict[str, Any] = {**_SMALL, "num_key_value_heads": 2, "use_cache": False}


def _hf(
    name: str,
    model: str,
    config: str,
    options: dict[str, Any],
    keywords: dict[str, Feature],
    *,
    part: str | None = None,
    dynamic: bool = True,
) -> Model:
    def build() -> nn.Module:
        transformers = importlib.import_module("transformers")
        built: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**options))
        return built if part is None else built.get_submodule(part)

    return Model(f"transformers/{name}", build, (), keywords, dynamic)


_T5: dict[str, Any] = {
    "vocab_size": 99,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "use_cache": False,
    "decoder_start_token_id": 0,
}
_SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 99,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "use_cache": False,
}
_WHISPER: dict[str, Any] = {
    **_SEQ2SEQ,
    "num_mel_bins": 20,
    "max_source_positions": 40,
    "max_target_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_VISION: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 64,
    "patch_size": 8,
}
_PIXELS = {"pixel_values": Feature(("batch", 3, 64, 64))}

MODELS: tuple[Model, ...] = (
    _torchvision("alexnet"),
    _torchvision("convnext_tiny"),
    _torchvision("densenet121"),
    _torchvision("efficientnet_b0"),
    _torchvision("efficientnet_v2_s"),
    _torchvision("googlenet", init_weights=False),
    _torchvision("inception_v3", 299, init_weights=False),
    _torchvision("maxvit_t"),
    _torchvision("mnasnet0_5"),
    _torchvision("mobilenet_v2"),
    _torchvision("mobilenet_v3_small"),
    _torchvision("regnet_x_400mf"),
    _torchvision("regnet_y_400mf"),
    _torchvision("resnet18"),
    _torchvision("resnext50_32x4d"),
    _torchvision("shufflenet_v2_x0_5"),
    _torchvision("squeezenet1_1"),
    _torchvision("swin_t"),
    _torchvision("swin_v2_t", 256),
    _torchvision("vgg11"),
    _torchvision("vgg11_bn"),
    _torchvision("vit_b_16"),
    _torchvision("wide_resnet50_2"),
    _segmentation("deeplabv3_mobilenet_v3_large"),
    _segmentation("fcn_resnet50"),
    _segmentation("lraspp_mobilenet_v3_large"),
    _raft(),
    Model("torchvision/ssdlite320_mobilenet_v3_large", SSDLiteNetwork, _image(320)),
    _video("r3d_18"),
    _video("swin3d_t"),
    _timm("efficientnet_b0"),
    _timm("convnext_tiny"),
    _timm("mixer_s32_224"),
    _timm("regnety_002"),
    _timm("deit_tiny_patch16_224"),
    _timm("levit_128"),
    _timm("mobilevit_s", 256),
    _timm("ghostnet_100"),
    _timm("nfnet_f0", 192),
    _timm("beit_base_patch16_224"),
    _timm("eva02_tiny_patch14_224"),
    _timm("repvgg_a0"),
    _timm("hrnet_w18_small"),
    _timm("resnest14d"),
    _timm("ese_vovnet19b_dw"),
    _hf("bert", "BertModel", "BertConfig", _SMALL, _TEXT),
    _hf("roberta", "RobertaModel", "RobertaConfig", {**_SMALL, "pad_token_id": 1}, _TEXT),
    _hf(
        "distilbert",
        "DistilBertModel",
        "DistilBertConfig",
        {"vocab_size": 99, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96},
        _TEXT,
    ),
    _hf("electra", "ElectraModel", "ElectraConfig", {**_SMALL, "embedding_size": 32}, _TEXT),
    _hf(
        "deberta-v2",
        "DebertaV2Model",
        "DebertaV2Config",
        {
            **_SMALL,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
        _TEXT,
    ),
    _hf(
        "gpt2",
        "GPT2Model",
        "GPT2Config",
        {
            "vocab_size": 99,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "use_cache": False,
        },
        _TEXT,
    ),
    _hf("llama", "LlamaForCausalLM", "LlamaConfig", _CAUSAL, _TEXT),
    _hf("qwen2", "Qwen2ForCausalLM", "Qwen2Config", _CAUSAL, _TEXT),
    _hf("gemma", "GemmaForCausalLM", "GemmaConfig", {**_CAUSAL, "head_dim": 16}, _TEXT),
    _hf("mistral", "MistralForCausalLM", "MistralConfig", _CAUSAL, _TEXT),
    _hf("t5-encoder", "T5EncoderModel", "T5Config", _T5, _TEXT),
    _hf("t5", "T5Model", "T5Config", _T5, {**_TEXT, "decoder_input_ids": _TOKENS}),
    _hf(
        "bart",
        "BartModel",
        "BartConfig",
        {**_SEQ2SEQ, "max_position_embeddings": 64},
        {**_TEXT, "decoder_input_ids": _TOKENS},
    ),
    _hf(
        "whisper-encoder",
        "WhisperModel",
        "WhisperConfig",
        _WHISPER,
        {"input_features": Feature(("batch", 20, 80))},
        part="encoder",
    ),
    _hf(
        "whisper-decoder",
        "WhisperModel",
        "WhisperConfig",
        _WHISPER,
        {"input_ids": _TOKENS, "encoder_hidden_states": Feature(("batch", 40, 64))},
        part="decoder",
    ),
    _hf(
        "clip-text",
        "CLIPTextModel",
        "CLIPTextConfig",
        {**_SMALL, "eos_token_id": 98},
        _TEXT,
    ),
    _hf("clip-vision", "CLIPVisionModel", "CLIPVisionConfig", _VISION, _PIXELS),
    _hf("vit", "ViTModel", "ViTConfig", _VISION, _PIXELS),
    _hf("dinov2", "Dinov2Model", "Dinov2Config", _VISION, _PIXELS),
    _hf(
        "swin",
        "SwinModel",
        "SwinConfig",
        {
            "image_size": 64,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        _PIXELS,
    ),
    _hf(
        "segformer",
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [16, 32, 48, 64],
            "num_attention_heads": [1, 2, 4, 4],
            "decoder_hidden_size": 32,
        },
        _PIXELS,
    ),
    _hf(
        "detr",
        "DetrForObjectDetection",
        "DetrConfig",
        {
            "d_model": 64,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 96,
            "decoder_ffn_dim": 96,
            "num_queries": 10,
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "backbone": None,
        },
        {"pixel_values": Feature(("batch", 3, 128, 128))},
    ),
    _hf(
        "wav2vec2",
        "Wav2Vec2Model",
        "Wav2Vec2Config",
        {
            **{k: v for k, v in _SMALL.items() if k != "max_position_embeddings"},
            "conv_dim": (32, 32),
            "conv_stride": (5, 2),
            "conv_kernel": (10, 3),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
        {"input_values": Feature(("batch", 800))},
    ),
    _hf("albert", "AlbertModel", "AlbertConfig", {**_SMALL, "embedding_size": 32}, _TEXT),
    _hf("mpnet", "MPNetModel", "MPNetConfig", {**_SMALL, "pad_token_id": 1}, _TEXT),
)
