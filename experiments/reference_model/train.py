"""Train the reference model: `python -m experiments.reference_model.train --work <folder>`.

Seeded and resumable: the same command continues from the last checkpoint of the work folder. The weights of the
exponential moving average are what is exported, together with the processor, to `<work>/export`.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from experiments.reference_model.architecture import build_model, build_processor, build_tokenizer
from experiments.reference_model.packing import IGNORED, Packed, Packer
from experiments.reference_model.training_data import (
    MENTIONS,
    NO_GLYPH,
    Batch,
    TrainingData,
    is_negated,
    mention_of,
    name_holds,
)
from vtw_search.evaluation.tasks.easy_vqa import COLORS, SHAPES

HERE = Path(__file__).parent
Losses = Callable[[TrainingData, int], Iterator[tuple[str, torch.Tensor]]]


class DenseHeads(nn.Module):
    """Read-outs of the warm-up: shape and colour from the mean patch, the digit under each patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shape, self.color = nn.Linear(width, len(SHAPES)), nn.Linear(width, len(COLORS))
        self.glyph = nn.Linear(width, NO_GLYPH + 1)

    def forward(self, patches: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the cross entropy of the labels that the batch has; patches are (N, 64, width)."""
        pooled, device = patches.mean(1), patches.device
        if (batch.shape >= 0).all():
            shape = functional.cross_entropy(self.shape(pooled), batch.shape.to(device))
            return shape + functional.cross_entropy(self.color(pooled), batch.color.to(device))
        # Four of five patches are background; at equal weight the digits are not learned for a thousand steps.
        weight = torch.full((NO_GLYPH + 1,), 5.0, device=device)
        weight[NO_GLYPH] = 1.0
        return functional.cross_entropy(self.glyph(patches).flatten(0, 1), batch.glyphs.flatten().to(device), weight)


class ReadOuts(nn.Module):
    """Read-outs of the joint phase, taken where an answer begins.

    A yes/no question asks whether a name is the image's, and half of them ask it negated. Seen from the answer alone
    that is a parity, which stays at chance for more than a thousand steps. So a lower layer is asked for the parts
    (what the image shows, which name the question holds, whether it is negated), a higher one for the comparison.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shape, self.color = nn.Linear(width, len(SHAPES)), nn.Linear(width, len(COLORS))
        self.mention, self.negated = nn.Linear(width, len(MENTIONS) + 1), nn.Linear(width, 2)
        self.holds = nn.Linear(width, 2)

    def forward(self, parts: torch.Tensor, comparison: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the cross entropy.

        Args:
            parts, comparison: (questions, width), states of the lower and the higher layer in the order of the batch.
            batch: the images, their labels and questions.
        """
        device, asked = parts.device, len(batch.questions[0])
        questions = [question for pairs in batch.questions for question in pairs]
        terms = [
            (self.mention(parts), torch.tensor([mention_of(text) for text, _ in questions])),
            (self.negated(parts), torch.tensor([int(is_negated(text)) for text, _ in questions])),
            (self.shape(parts), batch.shape.repeat_interleave(asked)),
            (self.color(parts), batch.color.repeat_interleave(asked)),
            (self.holds(comparison), torch.tensor([name_holds(*question) for question in questions])),
        ]
        return torch.stack([functional.cross_entropy(logits, target.to(device)) for logits, target in terms]).sum()


class Checkpoint:
    """Training state as safetensors and JSON, replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self, step: int, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, data: TrainingData
    ) -> None:
        """Write everything that the next step depends on."""
        staging = self.folder.with_suffix(".new")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name, module in modules.items():
            save_file(
                {key: value.clone() for key, value in module.state_dict().items()}, staging / f"{name}.safetensors"
            )
        moments = {
            f"{index}.{key}": value.clone()
            for index, entry in optimizer.state_dict()["state"].items()
            for key, value in entry.items()
        }
        save_file(moments, staging / "optimizer.safetensors")
        (staging / "state.json").write_text(json.dumps({"step": step, "rng": data.rng.bit_generator.state}))
        shutil.rmtree(self.folder, ignore_errors=True)
        staging.rename(self.folder)

    def load(self, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, data: TrainingData) -> int:
        """Restore the state and return the step to continue from; 0 when there is none."""
        if not (self.folder / "state.json").exists():
            return 0
        state = json.loads((self.folder / "state.json").read_text())
        for name, module in modules.items():
            module.load_state_dict(load_file(self.folder / f"{name}.safetensors"))
        restored: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in load_file(self.folder / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            restored.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": restored, "param_groups": optimizer.state_dict()["param_groups"]})
        data.rng.bit_generator.state = state["rng"]
        return int(state["step"])


def learning_rate_factor(step: int, steps: int, ramp: int) -> float:
    """Linear ramp, then half a cosine down to 2 %."""
    if step < ramp:
        return (step + 1) / ramp
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


class Trainer:
    """One phase: a loss over batches, an optimizer, checkpoints and a log."""

    def __init__(self, name: str, config: dict[str, Any], work: Path, modules: dict[str, nn.Module]) -> None:
        self.name, self.config, self.phase, self.modules = name, config, config[name], modules
        self.checkpoint = Checkpoint(work / f"checkpoint_{name}")
        self.log = work / "log.jsonl"
        self.parameters = [p for key, m in modules.items() if key != "ema" for p in m.parameters() if p.requires_grad]
        decayed = [p for p in self.parameters if p.ndim > 1]
        rest = [p for p in self.parameters if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config["weight_decay"]}, {"params": rest, "weight_decay": 0.0}],
            lr=self.phase["learning_rate"], betas=(0.9, 0.98),
        )  # fmt: skip

    def run(self, data: TrainingData, losses: Losses) -> None:
        """Run to the phase's last step; `losses(data, step)` yields named losses, each followed by its backward."""
        start, steps = self.checkpoint.load(self.modules, self.optimizer, data), self.phase["steps"]
        for step in track(range(start, steps), description=self.name, total=steps - start):
            began = time.perf_counter()
            values = self._step(step, data, losses)
            if step % 25 == 0 or step == steps - 1:
                row = {"phase": self.name, "step": step, "seconds": round(time.perf_counter() - began, 3), **values}
                with self.log.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
            if (step + 1) % self.config["save_every"] == 0 or step == steps - 1:
                self.checkpoint.save(step + 1, self.modules, self.optimizer, data)

    def _step(self, step: int, data: TrainingData, losses: Losses) -> dict[str, float]:
        factor = learning_rate_factor(step, self.phase["steps"], self.config["ramp_steps"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.phase["learning_rate"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        values = {}
        for name, value in losses(data, step):
            value.backward()
            values[name] = round(float(value.detach()), 5)
        nn.utils.clip_grad_norm_(self.parameters, self.config["gradient_clip"])
        self.optimizer.step()
        if "ema" in self.modules:
            self._update_average(step)
        return values

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(self.config["ema_decay"], (step + 1) / (step + 10))
        pairs = zip(self.modules["ema"].parameters(), self.modules["model"].parameters(), strict=True)
        for average, current in pairs:
            average.lerp_(current, 1 - decay)


def warm_up(
    config: dict[str, Any], work: Path, model: LlavaForConditionalGeneration, heads: DenseHeads, data: TrainingData
) -> None:
    """Phase 1: the vision tower alone, on dense labels."""
    tower, phase, device = model.model.vision_tower, config["warmup"], next(model.parameters()).device

    def losses(data: TrainingData, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        drawn = {"shapes": data.shapes(phase["shape_images"], 0), "numbers": data.numbers(phase["number_images"], 0)}
        for name, batch in drawn.items():
            yield name, heads(tower(batch.pixels.to(device)).last_hidden_state[:, 1:], batch)

    Trainer("warmup", config, work, {"tower": tower, "heads": heads}).run(data, losses)


def answer_states(
    model: LlavaForConditionalGeneration, packed: Packed, patches: torch.Tensor, layers: list[int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run the decoder on packed rows with the tower's patch features, (N, 64, width).

    Returns:
        The last hidden states and those that enter each of `layers`, (N, T, hidden) each.
    """
    device, image_token = patches.device, model.config.image_token_id
    mask = torch.zeros(packed.mask.shape).masked_fill_(~packed.mask, torch.finfo(torch.float32).min / 2)
    embeds = model.get_input_embeddings()(packed.input_ids.to(device))
    places = (packed.input_ids == image_token)[..., None].to(device)
    embeds = embeds.masked_scatter(places, model.model.multi_modal_projector(patches))
    output = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=mask.to(device),
        position_ids=packed.position_ids.to(device),
        use_cache=False,
        output_hidden_states=True,
    )
    return output.last_hidden_state, [output.hidden_states[layer] for layer in layers]


def train_jointly(
    name: str, config: dict[str, Any], work: Path,
    models: tuple[LlavaForConditionalGeneration, LlavaForConditionalGeneration],
    heads: DenseHeads, read_outs: ReadOuts, data: TrainingData, packer: Packer,
) -> None:  # fmt: skip
    """Phases 2 and 3: the whole model, on packed questions; the dense labels stay as a second loss on the tower."""
    (model, ema), phase = models, config[name]
    device = next(model.parameters()).device

    def loss(batch: Batch) -> torch.Tensor:
        packed = packer.pack(batch.questions)
        patches = model.model.vision_tower(batch.pixels.to(device)).last_hidden_state[:, 1:]
        states, middle = answer_states(model, packed, patches, phase["read_out_layers"])
        scored = packed.labels != IGNORED
        answers = functional.cross_entropy(model.lm_head(states[scored.to(device)]), packed.labels[scored].to(device))
        total = answers + phase["dense_weight"] * heads(patches, batch)
        if (batch.shape >= 0).all():
            begins = scored & ~functional.pad(scored, (1, 0))[:, :-1]
            parts, comparison = (layer[begins.to(device)] for layer in middle)
            total = total + phase["read_out_weight"] * read_outs(parts, comparison, batch)
        return total

    def losses(data: TrainingData, step: int) -> Iterator[tuple[str, torch.Tensor]]:
        yield "shapes", loss(data.shapes(phase["shape_images"], phase["questions_per_shape_image"]))
        yield "numbers", loss(data.numbers(phase["number_images"], phase["questions_per_number_image"]))

    modules = {"model": _Untied(model), "ema": _Untied(ema), "heads": heads, "read_outs": read_outs}
    Trainer(name, config, work, modules).run(data, losses)


class _Untied(nn.Module):
    """View of a model whose tied head is stored once, as safetensors wants it."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.body = model.model


def export(model: nn.Module, processor: Any, folder: Path) -> None:
    """Save a model with the tensor names that every release of transformers and vLLM load."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    weights = folder / "model.safetensors"
    wrapped = "vision_tower.vision_model."
    renamed = {
        name if wrapped in name else name.replace("vision_tower.", wrapped): tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(renamed, weights, metadata={"format": "pt"})


def main() -> None:
    """Train, or continue, and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints, log and export")
    parser.add_argument("--config", type=Path, default=HERE / "config.yaml")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    config = yaml.safe_load(arguments.config.read_text())
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    torch.manual_seed(config["seed"])
    data = TrainingData(config["seed"], config["generated_share"], config["truth_rate"])
    tokenizer = build_tokenizer(data.texts(), config["tokenizer"]["vocab_size"])
    processor = build_processor(tokenizer, config["vision"])
    model, ema = (build_model(tokenizer, config["vision"], config["text"]).to(arguments.device) for _ in range(2))
    heads = DenseHeads(config["vision"]["hidden_size"]).to(arguments.device)
    warm_up(config, arguments.work, model, heads, data)
    ema.load_state_dict(model.state_dict())
    packer = Packer(tokenizer, ema.config.image_seq_length)
    read_outs = ReadOuts(config["text"]["hidden_size"]).to(arguments.device)
    for name in ("joint", "refine"):
        train_jointly(name, config, arguments.work, (model, ema), heads, read_outs, data, packer)
    export(ema, processor, arguments.work / "export")


if __name__ == "__main__":
    main()
