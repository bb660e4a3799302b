"""What a card says of a model: the metadata that the Hub takes, figures with their protocols, what isn't known."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from huggingface_hub import ModelCard
from loopback_card import complaints
from loopback_hub import LoopbackHub
from published_parts import NAMES, pipeline, published, session, training

from logsnr.publishing.card import render_card, render_stock_card
from logsnr.sampling.few_evaluations import TUNED, Curve
from logsnr.settings.objective import HybridConfig, SimpleWeighting, VlbConfig
from logsnr.settings.run import RunConfig
from logsnr.settings.schedule import ScheduleConfig
from logsnr.training.effort import Effort

ELBO: dict[str, Any] = {
    "bits_per_dim": {"total": 1.25, "standard_error": 0.01, "prior": -1e-9, "kl": 0.75, "decoder": 0.5},
    "num_images": 250,
    "decoder": "discretised Gaussian, 8 bit",
    "gap": 0.2,
    "gap_standard_error": 0.1,
}


# The text


def test_metadata_is_what_the_hub_takes(at_hub: LoopbackHub) -> None:
    metrics = {"fid": {"value": 12.5, "protocol": {"images": 5000}}, "elbo": ELBO}
    for made in (published(), published(None), published(metrics=metrics), published(training=None, license=None)):
        for text in (render_card(made), render_stock_card(made)):
            assert complaints(text, "model") == ([], [])
            ModelCard(text).validate()
    data = ModelCard(render_card(published(metrics=metrics))).data
    assert data.library_name == "diffusers"
    assert data.pipeline_tag == "unconditional-image-generation"
    assert data.license == "apache-2.0"
    assert data.tags == ["logsnr", "diffusion", "pixel-space", "class-conditional"]
    assert data.model_name == "shapes"
    assert {r.metric_type: r.metric_value for r in data.eval_results} == {"fid": 12.5, "elbo": 1.25}
    assert ModelCard(render_card(published())).data.eval_results is None


def test_the_same_facts_give_the_same_text() -> None:
    made = published()
    assert render_card(made) == render_card(made)


def test_figures_come_with_their_protocol_or_not_at_all() -> None:
    metrics = {
        "fid": {"value": 12.5, "interval": [11.0, 14.0], "same_n": {"n": 500, "generated": 13.0, "real": 0.25}},
        "elbo": ELBO,
        "protocol": {"images": "5000 generated", "features_hash": "a|b"},
        "memorisation": {"copying": 0.25},
    }
    text = render_card(published(metrics=metrics))
    assert "| FID, lower is better | 12.5 (11 to 14) | 13 of 500 drawn images, 0.25 of as many real ones |" in text
    assert (
        "| ELBO, bits per dimension, lower is better | 1.25 ± 0.01 | by term: prior 0.0000, kl 0.7500, "
        "decoder 0.5000 (discretised Gaussian, 8 bit); of 250 held-out images, 0.2 ± 0.1 above as many training "
        "images |"
    ) in text
    assert "Protocol: images: 5000 generated; features hash: a\\|b." in text
    assert "in 25 % of cases; 50 % is chance" in text
    assert "Recall" not in text
    assert "None were measured" not in text
    assert "None were measured" in render_card(published())


def test_a_figure_of_another_kind_brings_its_words() -> None:
    entry = {"title": "Share of words in a|b", "direction": "higher is better", "value": 0.75, "beside": "0.9 of data"}
    text = render_card(published(metrics={"words": entry, "bits": entry | {"standard_error": 0.01, "title": "Bits"}}))
    assert "| Share of words in a\\|b, higher is better | 0.75 | 0.9 of data |" in text
    assert "| Bits, higher is better | 0.75 ± 0.01 | 0.9 of data |" in text
    assert {r.metric_name: r.metric_value for r in ModelCard(text).data.eval_results} == {
        "Share of words in a|b": 0.75,
        "Bits": 0.75,
    }


def test_what_was_asked_for_stands_beside_real_images_and_chance() -> None:
    share = {"value": 0.25, "interval": [0.2, 0.3], "num": 500}
    entry = {"drawn": share, "real": share | {"value": 0.96}, "chance": 0.05, "judge": "a_judge"}
    unchecked = "Whether an image is of the class asked for isn't checked."
    text = render_card(published(metrics={"asked": {"captions": entry | {"candidates": 20}}}))
    assert (
        "| Shows what was asked for: caption among 20, higher is better | 25.0 % (20.0 to 30.0) | "
        "96.0 % of real images that show it; chance is 5.0 % |"
    ) in text
    assert "Judge of caption among 20: a\\_judge." in text
    assert unchecked in text
    text = render_card(published(metrics={"asked": {"classes": entry, "attributes": {"a|b": entry}}}))
    assert "| Shows what was asked for: class, higher" in text
    assert "| Shows what was asked for: a\\|b, higher" in text
    assert "Judge of class, a\\|b: a\\_judge." in text
    assert unchecked not in text
    assert [(r.metric_type, r.metric_name, r.metric_value) for r in ModelCard(text).data.eval_results] == [
        ("accuracy", "Shows what was asked for: class", 0.25),
        ("accuracy", "Shows what was asked for: a|b", 0.25),
    ]


def mean_of(value: float) -> dict[str, float]:
    return {"value": value, "standard_error": value / 100}


def repaired(psnr: float) -> dict[str, Any]:
    fidelity = {"psnr": mean_of(psnr), "ssim": mean_of(0.75)}
    covered = {"nominal": 0.9, "value": 0.875, "standard_error": 0.01}
    return {
        "draw": fidelity,
        "mean": fidelity | {"psnr": mean_of(psnr + 3)},
        "feature_distance": mean_of(0.125),
        "coverage": {"pixels": covered, "projections": covered},
    }


def test_repair_comes_with_its_code_and_the_figures_that_there_are() -> None:
    protocol = {"images": "32 held-out images, 19 draws of each", "method": "moment, 20 steps", "seed": "0"}
    of_mask = {
        "model": repaired(20.0),
        "gaussian": repaired(15.0),
        "plain": {"name": "holes filled with the mean", "feature_distance": mean_of(1.5)}
        | {"psnr": mean_of(12.0), "ssim": mean_of(0.5)},
        "protocol": protocol | {"features": "a_network"},
    }
    of_jpeg = {key: value for key, value in of_mask.items() if key != "gaussian"}
    of_mask["method"] = {"coverage": repaired(1.0)["coverage"]}
    of_jpeg["model"] = repaired(30.0) | {"coverage": {"pixels": None, "projections": None}}
    metrics = {"restoration": {"missing 0.6 + noise 0.05": of_mask, "jpeg 10": of_jpeg}}
    text = render_card(published(metrics=metrics))
    beginning = "| missing 0.6 + noise 0.05 | "
    shown = "0.750 / 0.750 | 0.125 | 87.5 ± 1.0 % / 87.5 ± 1.0 % (90 %) |"
    assert f"{beginning}this model | 23.00 / 20.00 | {shown}" in text
    assert f"{beginning}Gaussian | 18.00 / 15.00 | {shown}" in text
    assert f"{beginning}holes filled with the mean | 12.00 | 0.500 | 1.500 |  |" in text
    assert "| jpeg 10 | this model | 33.00 / 30.00 | 0.750 / 0.750 | 0.125 |  |" in text
    assert "- jpeg 10: 32 held-out images, 19 draws of each; moment, 20 steps; seed 0; features: a\\_network." in text
    codes = [piece.split("```")[0] for piece in text.split("```python\n")[1:]]
    assert "whose network is exact: 87.5 ± 1.0 % / 87.5 ± 1.0 % (90 %)." in text
    (piece,) = (code for code in codes if "pipeline_restoration" in code)
    compile(piece, "card", "exec")
    assert '"ada/shapes", custom_pipeline="pipeline_restoration_01234567", trust_remote_code=True' in piece
    unmeasured = render_card(published())
    assert "## Repair" in unmeasured
    assert "| damage |" not in unmeasured
    unable = render_card(published(repairs=None))
    assert "restor" not in unable
    assert complaints(text, "model") == ([], [])


def test_names_of_classes_are_text_and_nothing_else() -> None:
    """Neither Markdown nor HTML nor the end of a line of code."""
    text = render_card(published())
    assert r'calm, wild \|\*\_"\`, \<b\>, ünder way' in text
    for piece in text.split("```python\n")[1:]:
        compile(piece.split("```")[0], "card", "exec")
    assert 'class_labels=["calm", "wild |*_\\"`", "<b>", "ünder\\nway"]' in text


def test_what_is_not_known_is_said() -> None:
    bare = render_card(published(training=None))
    assert "Which images it was trained on isn't recorded." in bare
    assert "How it was trained isn't recorded" in bare
    assert "from scratch" not in bare
    text = render_card(published(training=training(effort=Effort([], None), held_out=[])))
    assert "On what and for how long isn't recorded." in text
    assert "held_out_loss" not in text
    assert "Their licence: not stated by the author." in text
    assert "Their licence: CC0." in render_card(published(data_license="CC0"))


def test_effort_over_several_sessions() -> None:
    sessions = [
        session(to_step=400, seconds=3600.0),
        session(from_step=400, seconds=5400.0, device="NVIDIA H200", processes=2, images_per_step=128),
    ]
    text = render_card(published(training=training(effort=Effort(sessions, 1000))))
    assert f"It took 1,000 steps and {400 * 64 + 600 * 128:,} images, each counted as often as it was seen" in text
    assert "2.5 hours on 2 CPU cores in bf16 and 2 processes, each on NVIDIA H200 in bf16, in 2 sessions." in text
    assert "Versions: logsnr 0.1.0, torch 2.13.0." in text
    text = render_card(published(training=training(effort=Effort(sessions, 400))))
    assert "400 of 1,000 steps (an unfinished run)" in text


def test_few_evaluations_where_the_model_has_tables_for_them() -> None:
    curve = Curve(32, [1.0, 2.0], {n: {TUNED: [0.6 / n, 0.1], "DDIM": [0.2, 0.2]} for n in (4, 6)})
    for names, guided in ((NAMES, True), (None, False)):
        made = published(names, curve=curve if guided else dataclasses.replace(curve, guidances=[1.0]))
        text = render_card(made)
        assert "![Distance to the converged images by number of network evaluations](images/few_steps.png)" in text
        assert "a sampler for 4, 6 network evaluations" in text
        assert ("with guidance is two at once" in text) == guided
        assert "`logsnr sample ada/shapes --scheduler few-step --steps 6`" in text
        (piece,) = (piece for piece in text.split("```python\n")[1:] if "AutoModel" in piece)
        compile(piece.split("```")[0], "card", "exec")
        untuned = Curve(32, [1.0], {4: {"DDIM": [0.2]}})
        assert render_card(published(names, curve=untuned)) == render_card(published(names))
        assert render_card(published(names)) == re.sub(
            r"## Few network evaluations\n.*?(?=## Repair)", "", text, flags=re.S
        )


def test_a_target_without_a_stock_form() -> None:
    made = published(pipeline=pipeline(NAMES, "x0_minus_noise"))
    assert made.stock is None
    text = render_card(made)
    assert "There is no such form" in text
    assert text.count("```python") == 3
    assert "to_stock" not in text


def test_a_learned_variance() -> None:
    """It is said, and stock samples it with DDPM, which knows it, and not with a solver that doesn't."""
    config = RunConfig(
        schedule=ScheduleConfig(variance_type="learned_range"), objective=HybridConfig(SimpleWeighting())
    )
    for names in (NAMES, None):
        text = render_card(published(names, pipeline=pipeline(names, variance_type="learned_range")))
        assert "the second half is the variance of the reverse step" in text
        assert "the variance is learned (Nichol and Dhariwal" in text
        assert "DPMSolver" not in text
        assert "images = pipe(batch_size=4, num_inference_steps=100).images" in text
    assert "| loss weighting | simple, and 0.001 times the variational bound for the learned variance |" in render_card(
        published(training=training(config=config))
    )
    config = dataclasses.replace(config, objective=VlbConfig())
    assert "| the variational bound's own |" in render_card(published(training=training(config=config)))
    fixed = render_card(published())
    assert "variance" not in fixed
    assert "DPMSolver" in fixed


# push_to_hub


def test_push_to_hub_leaves_a_card_that_says_something(at_hub: LoopbackHub) -> None:
    pipeline(["a", "b"]).push_to_hub("ada/shapes")
    text = at_hub.repo("ada/shapes").files()["README.md"].decode()
    assert "More Information Needed" not in text
    assert complaints(text, "model") == ([], [])
    assert 'DiffusionPipeline.from_pretrained("ada/shapes", trust_remote_code=True)' in text
    assert "gray images of 8 pixels a side, of 2 classes" in text
    pipeline(None).push_to_hub("ada/plain")
    assert 'from_pretrained("ada/plain")' in at_hub.repo("ada/plain").files()["README.md"].decode()

    mine = "---\nlibrary_name: diffusers\n---\n\nMy own words.\n"
    ModelCard(mine).push_to_hub("ada/shapes")
    pipeline(["a", "b"]).push_to_hub("ada/shapes")
    assert "My own words." in at_hub.repo("ada/shapes").files()["README.md"].decode()
