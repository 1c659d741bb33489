"""Real processors of the families, sized to their tiny models, over a tokenizer of single characters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.video_processing_utils import VideoProcessorMixin

from experiments.model_coverage.families.llava_next import PINPOINTS

BEGIN, END, UNKNOWN, FIRST_CHARACTER = "<s>", "</s>", "<unk>", 30
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789 \n.,:;?!'#|<>()[]_-/"
# One turn of a user, as far as the families' own templates differ.
TEMPLATE = (
    "{{ BEFORE }}{% for part in messages[0]['content'] %}{{ IMAGE if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ AFTER }}{% endif %}"
)


class NoVideo(VideoProcessorMixin):
    """Takes the place of a family's video processor, which needs torchvision; images do not pass it."""

    num_frames = fps = None

    def __init__(self) -> None: ...


def tokenizer(special: Mapping[int, str], named: Mapping[str, str], begins: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer of lower-case characters, with ids from 30 on.

    Args:
        special: token id, below 29, -> text that is one token.
        named: attribute of the tokenizer -> its special token.
        begins: whether it puts `<s>` before a text that has none.
    """
    ids = {**{number: f"<unused{number}>" for number in range(3, 29)}, 0: "<pad>", 1: BEGIN, 2: END, 29: UNKNOWN}
    ids |= special | dict(enumerate(CHARACTERS, FIRST_CHARACTER))
    core = Tokenizer(models.WordLevel({text: number for number, text in ids.items()}, unk_token=UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    if begins:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[(BEGIN, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=ids[0], bos_token=ids[1], eos_token=ids[2], unk_token=UNKNOWN,
        extra_special_tokens=[text for text in special.values() if text not in named.values()],
        model_specific_special_tokens=dict(named),
    )  # fmt: skip


@dataclass(frozen=True)
class Family:
    """How the processor of a family is made.

    Attributes:
        processor, image_processor: names of the classes.
        special: token id -> text, as the tiny config has them.
        image: what the chat template writes for an image.
        before, after: what it writes before the user's turn, and after it, where the answer begins.
        image_settings, settings: of the image processor and of the processor.
        named: attribute of the tokenizer -> its special token.
        begins: whether the tokenizer puts `<s>` before a text that has none.
        video: whether the processor has a video processor.
        templated: whether checkpoints have a chat template.
    """

    processor: str
    image_processor: str
    special: Mapping[int, str]
    image: str = "<image>\n"
    before: str = "USER: "
    after: str = " ASSISTANT:"
    image_settings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    begins: bool = False
    video: bool = False
    templated: bool = True

    def build(self) -> Any:
        """Return the processor."""
        template = TEMPLATE
        for name in ("before", "image", "after"):
            template = template.replace(name.upper(), repr(getattr(self, name)))
        return getattr(transformers, self.processor)(
            image_processor=getattr(transformers, self.image_processor)(**self.image_settings),
            tokenizer=tokenizer(self.special, self.named, self.begins),
            chat_template=template if self.templated else None,
            **({"video_processor": NoVideo()} if self.video else {}),
            **self.settings,
        )


def square(side: int) -> dict[str, int]:
    """Return the size of a square picture."""
    return {"height": side, "width": side}


IMAGE_AND_VIDEO = {3: "<image>", 4: "<video>"}
CLASS_TOKEN_CUT: dict[str, Any] = {
    "patch_size": 4,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
LLAVA = {"size": {"shortest_edge": 12}, "crop_size": square(12)}
QWEN_SPECIAL = {
    3: "<|image_pad|>",
    4: "<|video_pad|>",
    5: "<|vision_start|>",
    6: "<|vision_end|>",
    7: "<|im_start|>",
    8: "<|im_end|>",
}
CHATML: dict[str, Any] = {"before": "<|im_start|>user\n", "after": "<|im_end|>\n<|im_start|>assistant\n"}
QWEN: dict[str, Any] = {
    "image_processor": "Qwen2VLImageProcessorPil",
    "special": QWEN_SPECIAL,
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "image_settings": {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 1024}},
    "video": True,
    **CHATML,
}
IDEFICS: dict[str, Any] = {
    "special": {
        3: "<image>", 4: "<fake_token_around_image>", 5: "<global-img>", 6: "<end_of_utterance>", 7: "<|im_start|>",
        8: "<video>", **{10 + 3 * row + col: f"<row_{row + 1}_col_{col + 1}>" for row in range(3) for col in range(3)},
    },
    "image": "<image>",
    "before": "<|im_start|>User:",
    "after": "<end_of_utterance>\nAssistant:",
    "image_settings": {"size": {"longest_edge": 72}, "max_image_size": {"longest_edge": 24}},
    "settings": {"image_seq_len": 9},
}  # fmt: skip

FAMILIES: dict[str, Family] = {
    "llava": Family(
        "LlavaProcessor", "CLIPImageProcessorPil", {3: "<image>"}, image_settings=LLAVA, settings=CLASS_TOKEN_CUT,
        begins=True,
    ),
    "vipllava": Family(
        "LlavaProcessor", "CLIPImageProcessorPil", {3: "<image>"}, image_settings=LLAVA, settings=CLASS_TOKEN_CUT,
        begins=True, before="###Human: ", after="###Assistant:",
    ),
    "llava_next": Family(
        "LlavaNextProcessor", "LlavaNextImageProcessorPil", {3: "<image>", 4: "[INST]", 5: "[/INST]"},
        image_settings={**LLAVA, "image_grid_pinpoints": PINPOINTS}, settings=CLASS_TOKEN_CUT, begins=True,
        before="[INST] ", after=" [/INST]",
    ),
    "llava_onevision": Family(
        "LlavaOnevisionProcessor", "LlavaOnevisionImageProcessorPil", {**QWEN_SPECIAL, **IMAGE_AND_VIDEO},
        image_settings={"size": square(12), "image_grid_pinpoints": [[12, 12], [12, 24], [24, 12], [24, 24]]},
        settings={
            "num_image_tokens": 9, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_2",
        },
        video=True, **CHATML,
    ),
    "llava_next_video": Family(
        "LlavaNextVideoProcessor", "LlavaNextImageProcessorPil", IMAGE_AND_VIDEO,
        image_settings={
            "size": {"shortest_edge": 8}, "crop_size": square(8), "image_grid_pinpoints": [[8, 16], [16, 8], [16, 16]],
        },
        settings=CLASS_TOKEN_CUT, begins=True, video=True,
    ),
    "video_llava": Family(
        "VideoLlavaProcessor", "VideoLlavaImageProcessor", IMAGE_AND_VIDEO, image_settings=LLAVA,
        settings=CLASS_TOKEN_CUT, begins=True, video=True,
    ),
    "qwen2_vl": Family("Qwen2VLProcessor", **QWEN),
    "qwen2_5_vl": Family("Qwen2_5_VLProcessor", **QWEN),
    "qwen3_vl": Family("Qwen3VLProcessor", **QWEN),
    "internvl": Family(
        "InternVLProcessor", "GotOcr2ImageProcessorPil",
        {3: "<IMG_CONTEXT>", 4: "<img>", 5: "</img>", 7: "<|im_start|>", 8: "<|im_end|>", 9: "<video>"},
        image="<IMG_CONTEXT>\n", image_settings={"size": square(24), "max_patches": 6},
        settings={"image_seq_length": 9}, video=True, **CHATML,
        named={
            "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "idefics3": Family("Idefics3Processor", "Idefics3ImageProcessorPil", **IDEFICS),
    "smolvlm": Family("SmolVLMProcessor", "SmolVLMImageProcessorPil", video=True, **IDEFICS),
    "gemma3": Family(
        "Gemma3Processor", "Gemma3ImageProcessorPil",
        {3: "<image_soft_token>", 4: "<start_of_image>", 5: "<end_of_image>", 7: "<start_of_turn>", 8: "<end_of_turn>"},
        image="<start_of_image>", before="<s><start_of_turn>user\n",
        after="<end_of_turn>\n<start_of_turn>model\n", image_settings={"size": square(24)},
        settings={"image_seq_length": 9}, begins=True,
        named={"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
    ),
    "paligemma": Family(
        "PaliGemmaProcessor", "SiglipImageProcessorPil", {3: "<image>"}, templated=False,
        named={"image_token": "<image>"}, image_settings={"size": square(12), "image_seq_length": 9},
    ),
    "mistral3": Family(
        "PixtralProcessor", "PixtralImageProcessorPil",
        {3: "[IMG]", 4: "[IMG_BREAK]", 5: "[IMG_END]", 6: "[INST]", 7: "[/INST]"}, image="[IMG]", before="<s>[INST]",
        after="[/INST]", image_settings={"size": {"longest_edge": 32}, "patch_size": square(4)},
        settings={"patch_size": 4, "spatial_merge_size": 2}, begins=True,
    ),
}  # fmt: skip
