"""`logsnr demo` in a real browser, chromium without a window: choose, click, wait for the images, look.

Where there is no chromium the tests are skipped (`apt-get install chromium`, or a Chrome on the PATH).
"""

from __future__ import annotations

import faulthandler
import io
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, run
from diffusers.utils.logging import set_verbosity_error
from PIL import Image
from tiny_text import LETTERS, tiny_modern_bert

from logsnr.media.text import character_codec
from logsnr.pipelines.pipeline_text import TextPipeline
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.tasks.load import load

SIZE = "image => [image.naturalHeight, image.naturalWidth]"
PIXELS = """image => {
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    pytest.skip("there is no chromium: apt-get install chromium", allow_module_level=True)
for package in ("gradio", "playwright"):
    pytest.importorskip(package, reason=f"the package {package} is missing")
from playwright.sync_api import expect, sync_playwright  # noqa: E402  # needs the package

expect.set_options(timeout=30_000)  # a busy machine takes longer than the 5 seconds that playwright waits


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=as_root)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def demo(tiny: list[str], browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A run of images that are dark or light, and the address where `logsnr demo` shows it.

    Ctrl-C ends that in the middle of a drawing, and all that was printed is the address.
    """
    path = tmp_path_factory.mktemp("demo")
    assert run(path / "train.txt", "train", *tiny, "--out", path / "run").status == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = Command(path / "demo.txt", ["demo", str(path / "run"), "--port", str(port)], no_way_out)
    address = f"http://127.0.0.1:{port}"
    try:
        command.wait_until(lambda: command.log.is_file() and address in command.log.read_text())
        yield path / "run", address
        page = browser.new_page()
        page.goto(address)
        page.get_by_label("number input for Images").fill("36")
        page.get_by_label("number input for Steps").fill("250")
        press(page, "Draw")
        expect(page.get_by_text("Drawing - ")).to_be_visible(timeout=30_000)
        command.send(signal.SIGINT)
        finished = command.wait()
        assert finished.status == 0
        assert finished.output == f"{path / 'run'} is at {address} on this machine. Ctrl-C ends it.\n"
    finally:
        if command.process.exitcode is None:
            command.kill()


def no_way_out() -> None:
    """Print every name of another machine that is looked up, a proxy's too, and every connection; and refuse it."""
    faulthandler.cancel_dump_traceback_later()  # it doesn't hang, it waits for Ctrl-C
    os.environ |= {"http_proxy": "http://proxy.invalid:3128", "no_proxy": ""}
    set_verbosity_error()  # the command says so before diffusers is imported, which here it is
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def check(host: Any) -> None:
        if host not in (None, "127.0.0.1", "localhost", "::1"):
            print(f"a connection to {host}", flush=True)
            raise OSError(f"no way out to {host}")

    def look_up_inside(host: Any, *args: Any, **kwargs: Any) -> Any:
        check(host)
        return look_up(host, *args, **kwargs)

    def connect_inside(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            check(address[0])
        connect(self, address)

    socket.getaddrinfo = look_up_inside
    socket.socket.connect = connect_inside  # type: ignore[method-assign]


@pytest.fixture
def page(browser: Any, demo: tuple[Path, str]) -> Iterator[Any]:
    """The page, open; in the end it has asked nobody but the demo for anything, and no script has failed."""
    _, address = demo
    page = browser.new_page(viewport={"width": 1280, "height": 1200})
    wrong: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else wrong.append(r.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert wrong == []


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def decoded(page: Any, images: str, number: int) -> Any:
    """The <img>s, when they are there, loaded and seen."""
    found = page.locator(images)
    expect(found).to_have_count(number, timeout=30_000)
    for k in range(number):
        expect(found.nth(k)).to_be_visible()
        found.nth(k).evaluate("image => image.decode()")
    return found


def test_draw_one_class_and_see_it_come_out_of_noise(page: Any, demo: tuple[Path, str], tmp_path: Path) -> None:
    run_folder, _ = demo
    expect(page.get_by_role("heading", name=str(run_folder))).to_be_visible()
    page.get_by_label("Classes").click()
    page.get_by_role("option", name="light").click()
    page.get_by_label("Classes").press("Escape")
    press(page, "Draw")
    images = decoded(page, ".gallery img", 16)
    film = decoded(page, ".film img", 16)
    assert page.locator(".gallery .caption-label").all_inner_texts() == [f"light · seed {k}" for k in range(16)]

    expected = load(run_folder).swap_scheduler("DPMSolverMultistep", algorithm_type="sde-dpmsolver++")(
        class_labels=["light"] * 16, num_inference_steps=20, guidance_scale=2.0, generator=0
    )
    for k in (0, 15):
        shown = Image.open(io.BytesIO(page.request.get(images.nth(k).get_attribute("src")).body()))
        np.testing.assert_allclose(np.asarray(shown).astype(int), np.asarray(expected.images[k]).astype(int), atol=1)
    for image in (images.first, film.first):
        assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [8, 8]
        assert image.bounding_box()["width"] > 60
        assert image.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"

    expect(page.locator(".film h2")).to_have_text("Out of noise: light · seed 0")
    assert page.locator(".film th[scope=col]").first.inner_text() == "100 %"
    before = film.first.get_attribute("src")
    page.locator(".gallery button").filter(has_text="seed 5").click()
    expect(page.locator(".film h2")).to_have_text("Out of noise: light · seed 5")
    assert film.first.get_attribute("src") != before

    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert Image.open(tmp_path / "page.png").convert("L").getextrema() != (255, 255)


def test_paint_a_hole_and_see_several_repairs_and_where_they_disagree(page: Any, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 8), np.uint8)).save(tmp_path / "mine.png")
    page.get_by_role("tab", name="Repair").click()
    decoded(page, ".examples img", 3)
    frame, canvas = (page.locator(place).first.bounding_box() for place in (".editor", ".editor canvas"))
    assert frame["x"] <= canvas["x"]
    assert canvas["x"] + canvas["width"] <= frame["x"] + frame["width"]
    press(page, "Repair")
    message = page.get_by_test_id("toast-body")
    expect(message).to_contain_text("There is no picture.")
    page.locator(".dropped input[type=file]").set_input_files(tmp_path / "mine.png")
    expect(page.locator(".editor").get_by_role("button", name="Color")).to_be_visible()
    press(page, "Repair")
    expect(message.last).to_contain_text("Nothing is painted.")

    canvas = page.locator(".editor canvas").first.bounding_box()
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(x - 40, y)
    page.mouse.down()
    page.mouse.move(x + 40, y, steps=8)
    page.mouse.up()
    press(page, "Repair")
    decoded(page, ".repaired img", 4)
    shown = [pixels(image) for image in decoded(page, ".repairs img", 3).all()]
    missing = shown[0][..., 3] == 0
    assert 0 < missing.sum() < 40
    assert missing[3:5, 3:5].all()
    picture = np.asarray(Image.open(tmp_path / "mine.png"))[2:10]
    np.testing.assert_array_equal(shown[0][~missing][:, 0], picture[~missing])
    repairs = np.stack([pixels(image)[..., 0] for image in page.locator(".repaired img").all()])
    np.testing.assert_allclose(repairs.mean(0), shown[1][..., 0], atol=1)
    assert len(np.unique(repairs, axis=0)) == 4
    heat = shown[2].astype(int).sum(-1)
    assert np.median(heat[missing]) > heat[~missing].max()
    captions = page.locator(".repaired .caption-label").all_inner_texts()
    assert [caption.partition(" · fit ")[0] for caption in captions] == [f"seed {k}" for k in range(4)]

    page.locator(".examples button").filter(has_text="Half the size").click()
    expect(page.get_by_role("radio", name="Half the size")).to_be_checked()
    expect(page.locator(".editor").get_by_role("button", name="Color")).to_be_visible()
    before = page.locator(".repairs img").first.get_attribute("src")
    press(page, "Repair")
    expect(page.locator(".repairs img").first).not_to_have_attribute("src", before)
    assert pixels(page.locator(".repairs img").first).shape == (4, 4, 4)
    page.screenshot(path=tmp_path / "page.png", full_page=True)


def pixels(image: Any) -> np.ndarray:
    """Of an <img>, (height, width, 4)."""
    return np.asarray(image.evaluate(PIXELS), np.uint8).reshape(*image.evaluate(SIZE), 4)


def test_what_is_wrong_is_said_and_the_next_drawing_works(page: Any) -> None:
    page.get_by_label("Seed").fill("-1")
    press(page, "Draw")
    message = page.get_by_test_id("toast-body")
    expect(message).to_contain_text("The seed must be a whole number from 0 to 4294967295, and is -1.")
    assert page.locator(".gallery img").count() == 0
    page.get_by_test_id("toast-close").click()
    expect(message).to_have_count(0)

    page.get_by_label("Seed").fill("3")
    page.get_by_label("number input for Images").fill("2")
    press(page, "Draw")
    decoded(page, ".gallery img", 2)
    assert page.locator(".gallery .caption-label").all_inner_texts() == ["dark · seed 3", "light · seed 4"]
    press(page, "Other seeds")
    expect(page.locator(".gallery .caption-label").first).not_to_have_text("dark · seed 3")
    assert page.get_by_label("Seed").input_value() in page.locator(".film h2").inner_text()


def test_schedulers_and_why_some_are_refused(page: Any) -> None:
    page.get_by_label("Scheduler", exact=True).click()
    expect(page.get_by_role("option", name="CosineBeta (the model's own)")).to_be_visible()
    page.get_by_role("option", name="PNDM", exact=True).click()
    page.get_by_label("number input for Steps").fill("2")
    press(page, "Draw")
    expect(page.get_by_test_id("toast-body")).to_contain_text("2 steps of PNDM ended in ValueError")
    refused = page.get_by_text("IPNDM: ")
    expect(refused).not_to_be_visible()
    page.get_by_role("button", name="schedulers that can't draw with this model").click()
    expect(refused).to_contain_text("it has no alphas_cumprod, so it would use a noise schedule of its own")


def test_a_model_of_texts_fills_in_what_is_missing(browser: Any, tmp_path: Path) -> None:
    tokenizer = character_codec(LETTERS).tokenizer
    scheduler = TransitionScheduler("absorbing", len(tokenizer), num_train_timesteps=64)
    model = tiny_modern_bert(len(tokenizer), decoder_bias=True)
    with torch.no_grad():
        model.decoder.bias[tokenizer.eos_token_id] = -1e4  # none of these texts ends
    pipe: Any = TextPipeline(model, scheduler, tokenizer)
    pipe.save_pretrained(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = Command(tmp_path / "demo.txt", ["demo", str(tmp_path / "model"), "--port", str(port)], no_way_out)
    address = f"http://127.0.0.1:{port}"
    try:
        command.wait_until(lambda: command.log.is_file() and address in command.log.read_text())
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        page.get_by_label("What is given").fill("The [blank]")
        press(page, "Write")
        expect(page.get_by_test_id("toast-body")).to_contain_text("of what the tokenizer knows, and 'The ' has 'T'")
        page.get_by_label("What is given").fill("the [blank] of the [blank:4]")
        page.get_by_label("number input for Steps").fill("8")
        press(page, "Write")
        expect(page.get_by_text("4 texts in ")).to_contain_text("8 steps, temperature 1, seeds 0 to 3.")
        given = {"infill": "the [blank] of the [blank:4]", "batch_size": 4}
        shown = [each.text_content() for each in page.locator(".texts p").all()]
        assert shown == pipe(**given, num_inference_steps=8, generator=0).texts
        assert page.locator(".texts p").first.locator(".given").all_text_contents() == ["the ", " of the "]
        page.get_by_label("number input for Look at an earlier step").fill("2")
        page.get_by_label("number input for Look at an earlier step").press("Enter")
        expect(page.locator(".texts p").first).to_contain_text("░")
        expect(page.locator(".texts .key")).to_contain_text("Step 2 of 8.")
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        command.send(signal.SIGINT)
        finished = command.wait()
        assert finished.output == f"{tmp_path / 'model'} is at {address} on this machine. Ctrl-C ends it.\n"
    finally:
        if command.process.exitcode is None:
            command.kill()
