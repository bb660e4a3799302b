"""Does a model draw what held-out captions ask for? Shapes, read back from the pixels; and diffusers' own recipe.

    python benchmarks/shapes.py data/shapes
    logsnr train captions-32 --data.source data/shapes --condition.text-layers 3 --out runs/shapes
    python benchmarks/captions_shapes.py measure runs/shapes --data data/shapes --sheet sheet.png
    python benchmarks/captions_shapes.py train-theirs runs/shapes theirs --seconds 3600 --cached-text
    python benchmarks/captions_shapes.py measure theirs --data data/shapes
    python benchmarks/captions_shapes.py probe

measure draws a picture of each of 500 captions of two groups whose combinations are in no training picture, and of the
12 of one group, at each guidance scale, as `logsnr sample` does: 20 steps of stock DPM-Solver++ with noise, picture k
from seed k. `shapes.agreement` says what counts as right. Beside the shares stand 95 % intervals (Wilson), what the
reader says of true pictures of the same captions, and chance: the drawn pictures under each other's captions.

train-theirs is the recipe of diffusers' examples/text_to_image/train_text_to_image.py, by its defaults and with
--use_ema, on the network of a run, with its data and its frozen text encoder: a fresh network as stock begins it, the
noise schedule of Stable Diffusion (scaled linear betas from .00085 to .012, epsilon), the plain loss, batches of 16,
no caption dropped, AdamW with 1e-4, betas .9 and .999 and weight decay .01, gradients clipped at 1, EMAModel as it
comes. The rate is constant, which in diffusers means that the 500 steps of warm-up are left out. Captions are encoded
anew in each step; with --cached-text once before, in no counted time. What differs is in its favour: pictures lie in
memory, and the encoder is told what is padding, as when it is drawn. It has --seconds of the processor on one thread,
so that a busy machine changes little, and leaves a model folder.

probe says after which layer of MiniLM the state of a colour's word tells on which side its group is, in "left of a blue
square" and the like: a linear judge is fitted on 1,100 captions and asked of 500 others. Chance is 50 %.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapes
import torch
from diffusers import DDPMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import logsnr
from logsnr.evaluation.ridge import fitted
from logsnr.folders.run_folder import read_run
from logsnr.models.prompted import PromptedUNet
from logsnr.models.text_encoders import MINILM, Remembered, TextEncoder, open_text_encoder
from logsnr.sampling.sample import SDE
from logsnr.tasks.text_to_image import TEXT_TO_IMAGES

NAMES = ("colour", "shape", "count", "relation")
Right = Mapping[str, tuple[int, int]]
"""By attribute, how many pictures are right, and of how many that were asked for it."""
Row = tuple[str, Right]


def measure(source: str, data: Path, num: int, scales: Sequence[float], steps: int, sheet: Path | None) -> None:
    """Print the tables, and write a sheet of pictures at the best scale."""
    listed = json.loads((data / "held_out.json").read_text())
    asked = [shapes.Attributes(**{name: each[name] for name in shapes.Attributes._fields}) for each in listed]
    one = [each for each in asked if each.relation is None]
    two = [each for each in asked if each.relation is not None][:num]
    pipeline = logsnr.load(source)

    drawn: dict[float, Tensor] = {}
    tables: tuple[list[Row], list[Row]] = ([], [])
    for scale in scales:
        prompts = [each.caption for each in (*two, *one)]
        options = logsnr.SampleOptions(
            num=len(prompts), steps=steps, scheduler=SDE, prompts=prompts, guidance_scale=scale
        )
        drawn[scale] = logsnr.sample(pipeline, options)
        found = shapes.read(drawn[scale])
        tables[0].append((f"scale {scale:g}", rights(found[: len(two)], two)))
        tables[1].append((f"scale {scale:g}", rights(found[len(two) :], one)))

    best = int(np.argmax([mean_share(right) for _, right in tables[0]]))
    generator = np.random.default_rng(0)
    true = shapes.as_tensor([shapes.draw(each, generator)[0] for each in two])
    found, shuffled = shapes.read(drawn[scales[best]])[: len(two)], [two[k] for k in generator.permutation(len(two))]
    tables[0].append(("true pictures", rights(shapes.read(true), two)))
    tables[0].append((f"chance, scale {scales[best]:g}", rights(found, shuffled)))
    for words, table in zip(("two groups", "one group"), tables, strict=True):
        print(f"{len(two if words == 'two groups' else one)} held-out captions of {words}, % right:\n")
        print(markdown(table))
    if sheet is not None:
        pictures = (drawn[scales[best]][: min(64, num)] * 255).round().byte().permute(0, 2, 3, 1).numpy()
        shapes.tiled(list(pictures)).save(sheet)
        print(f"{sheet}, at scale {scales[best]:g}:")
        shapes.print_captions(two[:64])


def rights(found: Sequence[Sequence[shapes.Found]], asked: Sequence[shapes.Attributes]) -> Right:
    """How often what was found is what was asked for."""
    each = [shapes.agreement(*pair) for pair in zip(found, asked, strict=True)]
    of = {name: [right[name] for right in each if name in right] for name in NAMES}
    return {name: (sum(values), len(values)) for name, values in of.items() if values}


def mean_share(right: Right) -> float:
    return float(np.mean([count / of for count, of in right.values()]))


def markdown(rows: Sequence[Row]) -> str:
    """A row a scale, a column an attribute: the share in percent, and its interval."""
    names = list(rows[0][1])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, right in rows:
        cells = []
        for name in names:
            low, high = wilson(*right[name])
            cells.append(f"{100 * right[name][0] / right[name][1]:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def wilson(right: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The interval that holds a rate with 95 %, where `right` of `of` were. (Wilson 1927)"""
    share, spread = right / of, z**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return middle - half, middle + half


def train_theirs(arguments: argparse.Namespace) -> None:
    """The recipe, for so many seconds of the processor, and its model folder."""
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    record, config = read_run(arguments.run)
    if record["network"]["vocabulary"] is not None:
        raise SystemExit(f"The text encoder of {arguments.run} is trained along, and this recipe wants a frozen one.")
    data = TEXT_TO_IMAGES.open_data(config)
    encoder = TEXT_TO_IMAGES.unlearned(config, record["network"]).encoder
    unet = UNet2DConditionModel.from_config(record["network"]["unet_config"]).train()
    parts = list(data.in_order("train", 1000))
    clean = torch.cat([part.clean for part in parts])
    tokens = [torch.cat([part.condition[name] for part in parts]) for name in ("input_ids", "attention_mask")]
    half = arguments.mixed_precision == "bf16"
    reader = TextEncoder(encoder.tokenizer, copy.deepcopy(encoder.model).bfloat16()) if half else encoder
    encode = Remembered(reader) if arguments.cached_text else reader
    if isinstance(encode, Remembered):
        encode.remember(*data.examples.unique_tokens())

    schedule: Any = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=arguments.learning_rate, betas=(0.9, 0.999), weight_decay=1e-2)
    ema = EMAModel(unet.parameters(), foreach=True)
    step, order = 0, torch.empty(0, dtype=torch.long)
    begun = time.process_time()
    with tqdm(
        total=arguments.seconds, unit="s", bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}", mininterval=5
    ) as bar:
        while (spent := time.process_time() - begun) < arguments.seconds:
            if not len(order):
                order = torch.randperm(len(clean))
            rows, order = order[:16], order[16:]
            noise, t = torch.randn_like(clean[rows]), torch.randint(0, 1000, (len(rows),))
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                words = encode(*(values[rows] for values in tokens))
                output = unet(schedule.add_noise(clean[rows], noise, t), t, words, return_dict=False)[0]
            loss = functional.mse_loss(output.float(), noise)
            loss.backward()
            nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.step(unet.parameters())
            step += 1
            bar.set_postfix_str(f"step {step}, loss {loss:.4f}", refresh=False)
            bar.update(spent - bar.n)
    ema.copy_to(unet.parameters())
    made = TEXT_TO_IMAGES.pipeline(PromptedUNet.of(unet.eval(), encoder), schedule, TEXT_TO_IMAGES.facts(data))
    made.save_pretrained(arguments.out)
    print(f"{step} steps of 16 in {time.process_time() - begun:.0f} s of the processor: {arguments.out}")


def probe(seed: int = 0) -> None:
    """Print, by layer, how often a linear judge reads from the word of a group's colour on which side the group is."""
    generator = np.random.default_rng(seed)
    pairs = shapes.combinations()[1]
    asked = [pairs[k] for k in generator.permutation(len(pairs))[:1600]]
    encoder = open_text_encoder(MINILM)
    tokens = encoder.tokenizer.tensors([each.caption for each in asked])
    with torch.no_grad():
        layers = encoder.model(**tokens, output_hidden_states=True).hidden_states
    places = []
    for row, each in zip(tokens["input_ids"].tolist(), asked, strict=True):
        words = encoder.tokenizer.tokenizer.convert_ids_to_tokens(row)
        places.append((words.index(each.colour1), len(words) - 1 - words[::-1].index(each.colour2)))
    first = torch.tensor([each.relation in ("left of", "above") for each in asked])
    sides = torch.stack([first, ~first], 1).double()
    print("| after layer | % read right |\n|---|---|")
    for layer, states in enumerate(layers):
        found = functional.normalize(states[torch.arange(len(asked))[:, None], torch.tensor(places)], dim=-1)
        judge = fitted(found[:1100].flatten(0, 1), sides[:1100].flatten()[:, None])
        said = judge(found[1100:].flatten(0, 1)) + judge.mean > 0.5
        right = said[:, 0] == sides[1100:].flatten().bool()
        print(f"| {layer} | {100 * right.double().mean():.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="print how often the captions are drawn")
    measuring.add_argument("model", help="a run or a model folder")
    measuring.add_argument("--data", type=Path, required=True, help="the folder that shapes.py made")
    measuring.add_argument("--num", type=int, default=500, help="captions of two groups")
    measuring.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 3.0, 5.0])
    measuring.add_argument("--steps", type=int, default=20)
    measuring.add_argument("--sheet", type=Path, help="write 64 of the pictures at the best scale into this PNG")
    training = commands.add_parser("train-theirs", help="train the run's network by diffusers' recipe")
    training.add_argument("run", type=Path)
    training.add_argument("out", type=Path, help="the model folder to write")
    training.add_argument("--seconds", type=float, default=1800.0, help="of the processor")
    training.add_argument("--learning-rate", type=float, default=1e-4)
    training.add_argument("--cached-text", action="store_true", help="encode each caption once, before")
    training.add_argument("--mixed-precision", choices=("no", "bf16"), default="no")
    training.add_argument("--seed", type=int, default=0)
    commands.add_parser("probe", help="print after which layer of MiniLM words know their side")
    arguments = parser.parse_args()
    if arguments.command == "train-theirs":
        train_theirs(arguments)
    elif arguments.command == "probe":
        probe()
    else:
        chosen = (arguments.num, arguments.scales, arguments.steps, arguments.sheet)
        measure(arguments.model, arguments.data, *chosen)


if __name__ == "__main__":
    main()
