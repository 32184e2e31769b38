"""The pack in a real browser: real ComfyUIs, their real front ends, both node renderers.

pytest -m browser
FATHOM_SCREENSHOTS=docs/images pytest -m browser    # takes README's pictures anew
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from comfyui_server import ComfyUI, comfyui_checkouts

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.browser

# "nodes" is the renderer that ComfyUI calls Nodes 2.0, "canvas" the older one.
RENDERERS = ("nodes", "canvas")
CASES = [(checkout, renderer) for checkout in comfyui_checkouts() for renderer in RENDERERS]
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-unsafe-swiftshader"
)


def chromium():
    """The browser: what FATHOM_CHROMIUM names, else the system's."""
    named = os.environ.get("FATHOM_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if (program := chromium()) is None:
        pytest.skip("no Chromium: install the package chromium, or name one in FATHOM_CHROMIUM")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=program, args=FLAGS.split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def servers(browser, tmp_path_factory):
    """A running ComfyUI for each checkout, started at the same time."""
    checkouts = comfyui_checkouts()
    bases = [tmp_path_factory.mktemp("browser") for _ in checkouts]
    with ThreadPoolExecutor(max(1, len(checkouts))) as pool:
        started = list(pool.map(lambda pair: ComfyUI(*pair, folder="fathom"), zip(checkouts, bases, strict=True)))
    for server in started:
        shutil.copy(ROOT / "assets" / "sample.png", server.base / "input" / "photo.png")
    yield {server.checkout: server for server in started}
    for server in started:
        server.stop()


class Front:
    """ComfyUI's front end in a browser page."""

    def __init__(self, page, server, renderer):
        self.page, self.server, self.renderer = page, server, renderer
        self.errors = []
        page.on("pageerror", lambda error: self.errors.append(f"{error} {error.stack}"))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" and "fathom" in m.text else None)
        settings = {
            "Comfy.TutorialCompleted": True,
            "Comfy.VueNodes.Enabled": renderer == "nodes",
            "Comfy.Minimap.Visible": False,
            "Comfy.RightSidePanel.IsOpen": False,
        }
        for name, value in settings.items():
            server.post(f"/settings/{name}", value)
        page.goto(f"http://127.0.0.1:{server.port}/")
        self.ready()

    def ready(self):
        self.page.wait_for_function(
            "!!(window.app?.vueAppReady && app.extensionManager?.workflow?.activeWorkflow?.changeTracker && "
            "window.LiteGraph?.registered_node_types.FathomDepthInspector)"
        )
        # The first graph is put in by then, or at the next moment.
        self.page.wait_for_timeout(500)

    def js(self, code, *given):
        return self.page.evaluate(code, *given)

    def clear(self):
        """An empty graph. Ids go on counting: front ends remember the widgets of an id."""
        self.js(
            """() => {
                const last = app.graph.last_node_id;
                app.graph.clear();
                app.graph.last_node_id = last + 1;
                const add = (type, x, widgets = {}) => {
                    const node = LiteGraph.createNode(type);
                    node.pos = [x, 140];
                    app.graph.add(node);
                    for (const [name, value] of Object.entries(widgets))
                        node.widgets.find((w) => w.name === name).value = value;
                    return node;
                };
                const link = (from, out, to, input) =>
                    from.connect(out, to, to.inputs.findIndex((i) => i.name === input));
                window.hand = { add, link };
            }"""
        )

    def build(self, estimator="fathom-tiny", resolution=256):
        """Load Image, Estimate Depth, Inspector, and its mask as a picture."""
        self.clear()
        self.js(
            """([estimator, resolution]) => {
                const { add, link } = window.hand;
                const photo = add("LoadImage", 70, { image: "photo.png" });
                const depth = add("FathomEstimateDepth", 380, { estimator, resolution });
                const inspector = add("FathomDepthInspector", 730);
                const mask = add("MaskToImage", 1150);
                const shown = add("PreviewImage", 1150);
                shown.pos = [1150, 280];
                link(photo, 0, depth, "image");
                link(depth, 1, inspector, "depth");
                link(photo, 0, inspector, "image");
                link(inspector, 1, mask, "mask");
                link(mask, 0, shown, "images");
                app.canvas.ds.scale = 1;
                app.canvas.ds.offset = [0, 40];
                app.canvas.setDirty(true, true);
            }""",
            # Another size for each renderer: of a result that it has already ComfyUI tells nothing.
            [estimator, resolution + 8 * RENDERERS.index(self.renderer)],
        )

    def run(self):
        """Click Run and wait until the run is over: its history entry."""
        before = set(self.server.get("/history"))
        self.page.get_by_test_id("queue-button").first.click()
        until = time.monotonic() + 120
        while time.monotonic() < until:
            new = [entry for id, entry in self.server.get("/history").items() if id not in before]
            if new:
                return new[0]
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the run did not end:\n{self.server.log()[-3000:]}")

    def node(self, type):
        """The id of the first node of a type."""
        return self.js("(type) => String(app.graph._nodes.find((n) => n.type === type)?.id)", type)

    def inspected(self, text=" · "):
        """Wait until the inspector shows a depth, and `text` of it."""
        self.page.wait_for_function(
            "(text) => [...document.querySelectorAll('.fathom-inspector output')]"
            ".some((told) => told.textContent.includes(text))",
            arg=text,
        )
        self.page.wait_for_timeout(200)

    def widgets(self):
        """The inspector's widgets."""
        return self.js(
            """() => Object.fromEntries(app.graph._nodes.find((n) => n.type === "FathomDepthInspector").widgets
                .filter((w) => w.name !== "inspector").map((w) => [w.name, w.value]))"""
        )

    def picture(self, selector):
        """What a canvas shows, float (H,W,3)."""
        shot = self.page.locator(selector).last.screenshot()
        with Image.open(io.BytesIO(shot)) as image:
            return np.asarray(image.convert("RGB"), dtype=float)

    def keep(self, name):
        """Keep a screenshot of the graph but for its last two nodes for README, when asked to."""
        if folder := os.environ.get("FATHOM_SCREENSHOTS"):
            ids = self.js(
                """() => {
                    const nodes = app.graph._nodes.slice(0, 3);
                    let x = 70;
                    for (const node of nodes) {
                        node.pos = [x, 140];
                        x += node.size[0] + 40;
                    }
                    for (const node of app.graph._nodes.slice(3)) node.pos = [x + 600, 140];
                    app.canvas.setDirty(true, true);
                    return nodes.map((node) => String(node.id));
                }"""
            )
            self.page.wait_for_timeout(500)
            boxes = [self.page.locator(f'[data-node-id="{id}"]').first.bounding_box() for id in ids]
            left, top = min(box["x"] for box in boxes) - 10, min(box["y"] for box in boxes) - 10
            right, bottom = (
                max(box[at] + box[side] for box in boxes) for at, side in (("x", "width"), ("y", "height"))
            )
            nodes = {"x": left, "y": top, "width": right + 10 - left, "height": bottom + 10 - top}
            with Image.open(io.BytesIO(self.page.screenshot(clip=nodes))) as image:
                image.convert("RGB").save(ROOT / folder / f"{name}.jpg", quality=85)


@pytest.fixture(scope="module", params=CASES or [None], ids=lambda c: f"{c[0].name}-{c[1]}" if c else "none")
def front(request, browser, servers):
    """The front end of each ComfyUI with each node renderer."""
    if request.param is None:
        pytest.skip("no ComfyUI checkout: name one or more in COMFYUI_PATH (or put them at ~/ComfyUI, ~/ComfyUI-new)")
    checkout, renderer = request.param
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(20_000)
    opened = Front(context.new_page(), servers[checkout], renderer)
    yield opened
    context.close()


STAGE = ".fathom-inspector section canvas"
HISTOGRAM = ".fathom-histogram"


def mask_picture(front, entry):
    """The inspector's mask as the run saved it, (H,W) in 0..1."""
    saved = entry["outputs"][front.node("PreviewImage")]["images"][0]
    with Image.open(front.server.base / "temp" / saved["filename"]) as image:
        return np.asarray(image.convert("L"), dtype=float) / 255


def drag(front, selector, *places):
    """Press at the first of the places (x, y as shares of the element) and let go at the last."""
    box = front.page.locator(selector).last.bounding_box()
    points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in places]
    front.page.mouse.move(*points[0])
    front.page.mouse.down()
    for point in points[1:]:
        front.page.mouse.move(*point, steps=4)
    front.page.mouse.up()


def test_search_finds_the_node(front):
    front.clear()
    front.page.wait_for_timeout(300)
    front.page.mouse.dblclick(700, 500, delay=30)
    # Front ends until 1.28 call it by its older name.
    search = front.page.get_by_role("combobox", name=re.compile(r"Add a node|Search Nodes"))
    search.wait_for()
    # Aliases are known to newer ComfyUIs only; names are known to all.
    aliases = "search_aliases" in front.server.get("/object_info/FathomEstimateDepth")["FathomEstimateDepth"]
    for words in ("depth", "depth map", "estimate depth", *(["z-depth", "controlnet depth"] if aliases else [])):
        search.fill("")
        search.press_sequentially(words, delay=10)
        front.page.wait_for_function(
            "[...document.querySelectorAll('[role=option]')].slice(0, 10)"
            ".some((option) => option.textContent.includes('Fathom Depth Map'))"
        )
    front.page.get_by_role("option").filter(has_text="Fathom Depth Map").first.click()
    front.page.wait_for_function("app.graph._nodes.some((n) => n.type === 'FathomEstimateDepth')")
    front.page.keyboard.press("Escape")


def test_a_graph_runs_and_shows_its_results_on_the_nodes(front):
    front.build()
    entry = front.run()
    assert entry["status"]["status_str"] == "success", entry["status"]
    outputs = {type: entry["outputs"][front.node(type)] for type in ("FathomEstimateDepth", "FathomDepthInspector")}
    assert outputs["FathomEstimateDepth"]["images"][0]["type"] == "temp"
    id = front.node("FathomEstimateDepth")
    if front.renderer == "nodes":
        image = front.page.locator(f'[data-node-id="{id}"] img').last
        image.wait_for()
        front.page.wait_for_function("(i) => i.naturalWidth > 100", arg=image.element_handle())
    else:
        front.page.wait_for_function(f"app.graph.getNodeById({id}).imgs?.[0]?.naturalWidth > 100")
    front.inspected("order only")
    picture = front.picture(STAGE)
    assert picture.std() > 30 and np.ptp(picture, axis=2).max() > 100, "no false colours"
    assert (mask_picture(front, entry) == 1).all(), "the whole depth is in the band at first"


def test_a_drag_on_the_histogram_changes_the_mask(front):
    front.build()
    before = front.run()
    front.page.locator(HISTOGRAM).wait_for()
    drag(front, HISTOGRAM, (0.3, 0.4), (0.5, 0.4), (0.7, 0.4))
    widgets = front.widgets()
    assert (widgets["far"], widgets["near"]) == (pytest.approx(0.3, abs=0.01), pytest.approx(0.7, abs=0.01))
    mask = mask_picture(front, front.run())
    assert set(np.unique(mask)) == {0.0, 1.0} and 0.1 < mask.mean() < 0.9
    assert mask.mean() < mask_picture(front, before).mean()
    # One end is taken hold of and moved alone.
    drag(front, HISTOGRAM, (0.7, 0.4), (0.9, 0.4))
    widgets = front.widgets()
    assert (widgets["far"], widgets["near"]) == (pytest.approx(0.3, abs=0.01), pytest.approx(0.9, abs=0.01))
    assert mask_picture(front, front.run()).mean() > mask.mean()


def test_a_click_on_the_picture_sets_the_focus_to_its_depth(front):
    front.build()
    front.run()
    front.inspected()
    drag(front, STAGE, (0.5, 0.9))
    told = front.page.locator(".fathom-inspector output").inner_text()
    assert front.widgets()["focus"] == pytest.approx(float(told.rpartition(" ")[2]), abs=0.001)
    close = front.widgets()["focus"]
    drag(front, STAGE, (0.75, 0.3))
    assert front.widgets()["focus"] < close - 0.3, "the far wall is farther than the floor"


def test_undo_takes_the_band_back_and_keeps_the_depth(front):
    front.build(resolution=288)
    front.run()
    front.inspected()
    drag(front, HISTOGRAM, (0.3, 0.4), (0.5, 0.4), (0.7, 0.4))
    assert front.widgets()["near"] == pytest.approx(0.7, abs=0.01)
    front.page.wait_for_timeout(300)
    front.page.keyboard.press("Control+z")
    front.page.wait_for_function(
        "app.graph._nodes.find((n) => n.type === 'FathomDepthInspector')"
        "?.widgets.find((w) => w.name === 'near').value === 1"
    )
    front.inspected("order only")


def test_the_keys_move_the_band_and_the_focus(front):
    front.build(resolution=272)
    front.run()
    front.inspected()
    front.page.locator(HISTOGRAM).last.press("ArrowLeft")
    front.page.locator(HISTOGRAM).last.press("Shift+ArrowRight")
    front.page.locator(STAGE).last.press("ArrowLeft")
    widgets = front.widgets()
    assert [widgets[name] for name in ("near", "far", "focus")] == pytest.approx([0.99, 0.01, 0.99], abs=0.001)
    assert front.page.locator(HISTOGRAM).last.get_attribute("role") == "slider"


def test_all_pictures_of_a_batch_are_stepped_through(front):
    front.build(resolution=264)
    front.js(
        """() => {
            const { add, link } = window.hand;
            const [photo, depth, inspector] = ["LoadImage", "FathomEstimateDepth", "FathomDepthInspector"].map(
                (type) => app.graph._nodes.find((n) => n.type === type));
            const flipped = add("ImageInvert", 380);
            const both = add("ImageBatch", 380);
            flipped.pos = [70, 560];
            both.pos = [70, 640];
            link(photo, 0, flipped, "image");
            link(photo, 0, both, "image1");
            link(flipped, 0, both, "image2");
            link(both, 0, depth, "image");
            link(both, 0, inspector, "image");
        }"""
    )
    front.run()
    front.inspected()
    counter = front.page.locator(".fathom-frames span").last
    assert counter.inner_text() == "1/2"
    first = front.picture(STAGE)
    front.page.get_by_role("button", name="Next picture").last.click()
    front.page.wait_for_function("document.querySelector('.fathom-frames span').textContent === '2/2'")
    front.page.wait_for_timeout(300)
    assert np.abs(front.picture(STAGE) - first).mean() > 3
    front.page.get_by_role("button", name="Mask", exact=True).last.click()
    front.page.wait_for_timeout(300)
    assert front.picture(STAGE).min() >= 0 and np.ptp(front.picture(STAGE), axis=2).max() < 60, "a mask has no colours"


def test_the_live_preview_gives_way_to_the_results(front):
    front.clear()
    front.js(
        """() => {
            const { add, link } = window.hand;
            const image = add("EmptyImage", 70, { width: 64, height: 64, batch_size: 100 });
            const depth = add("FathomEstimateDepth", 380, { resolution: 64 });
            const shown = add("PreviewImage", 760);
            link(image, 0, depth, "image");
            link(depth, 0, shown, "images");
            window.seen = { previews: 0 };
            app.api.addEventListener("b_preview_with_metadata", () => window.seen.previews++);
        }"""
    )
    front.run()
    front.page.wait_for_timeout(1000)
    id = front.node("FathomEstimateDepth")
    assert front.js("(id) => app.nodeOutputs[id].images.length", id) == 16
    assert not front.js("(id) => app.nodePreviewImages[id]?.length", id)


def test_the_list_of_models_tells_licences_and_chooses(front):
    front.build()
    front.js("() => app.graph._nodes.find((n) => n.type === 'FathomEstimateDepth').widgets.at(-1).callback()")
    front.page.locator(".fathom-dialog input[type=search]").fill("outdoor small")
    front.page.get_by_text("99 MB").locator("visible=true").first.wait_for()
    front.page.locator(".fathom-dialog label").locator("visible=true").first.click()
    told = front.js(
        "() => app.graph._nodes.find((n) => n.type === 'FathomEstimateDepth').widgets.map((w) => [w.value, w.label])"
    )
    assert told[0][0] == "depth-anything-v2-metric-outdoor-small" and "Apache-2.0" in told[-1][1]


def test_classes_and_files_are_picked(front, tmp_path):
    front.clear()
    press = """(type) => {
        const node = app.graph._nodes.find((n) => n.type === type) ?? window.hand.add(type, 400);
        node.widgets.filter((w) => w.type === "button").at(-1).callback();
    }"""
    value = "([type, name]) => app.graph._nodes.find((n) => n.type === type).widgets.find((w) => w.name === name).value"
    front.js(press, "FathomClassMask")
    front.page.locator(".fathom-dialog input[type=search]").fill("sky")
    front.page.locator(".fathom-dialog label").locator("visible=true").first.click()
    front.page.locator(".fathom-dialog").get_by_role("button", name="Close").click()
    assert front.js(value, ["FathomClassMask", "classes"]) == "person, sky"
    front.js(
        """() => {
            const node = window.hand.add("FathomFog", 700);
            node.widgets.find((w) => w.type === "button" && /preset/i.test(w.label ?? w.name)).callback();
        }"""
    )
    front.page.locator(".fathom-dialog label", has_text="night").click()
    assert front.js(value, ["FathomFog", "colour"]) == "#1d2633" and front.js(value, ["FathomFog", "density"]) == 1.5
    name = f"{front.renderer}.npz"
    (tmp_path / name).write_bytes(b"PK\x05\x06" + bytes(18))
    with front.page.expect_file_chooser() as chooser:
        front.js(press, "FathomLoadDepth")
    chooser.value.set_files(tmp_path / name)
    front.page.wait_for_function(
        f"app.graph._nodes.find((n) => n.type === 'FathomLoadDepth').widgets[0].value === '{name}'"
    )
    assert (front.server.base / "input" / name).is_file()


def test_saved_and_loaded_again_it_is_as_it_was(front):
    front.build()
    front.run()
    front.inspected()
    drag(front, HISTOGRAM, (0.25, 0.4), (0.4, 0.4), (0.6, 0.4))
    front.page.get_by_role("button", name="Before / after").click()
    drag(front, STAGE, (0.5, 0.5), (0.3, 0.5))
    front.page.wait_for_timeout(200)
    if front.renderer == "nodes":
        front.keep("inspector")
    cut = "[...document.querySelectorAll('.fathom-inspector output')].some((o) => o.scrollWidth > o.clientWidth)"
    assert not front.js(f"() => {cut}"), "the reading is cut"
    before, shown = front.widgets(), front.picture(STAGE)
    # The drafts of open graphs are kept half a second later.
    front.page.wait_for_timeout(1200)
    front.page.reload()
    front.ready()
    front.inspected()
    assert front.widgets() == before
    assert front.page.get_by_role("button", name="Before / after").get_attribute("aria-pressed") == "true"
    again = front.picture(STAGE)
    assert again.shape == shown.shape and np.abs(again - shown).mean() < 8


def test_the_point_cloud_turns(front):
    front.build()
    front.run()
    front.inspected()
    front.page.get_by_role("button", name="Points").click()
    front.page.locator(".fathom-inspector section div canvas").wait_for()
    front.page.wait_for_timeout(500)
    before = front.picture(".fathom-inspector section div canvas")
    assert (before.max(axis=2) > 20).mean() > 0.1, "nothing is seen"
    drag(front, ".fathom-inspector section div canvas", (0.5, 0.5), (0.4, 0.45))
    front.page.wait_for_timeout(300)
    assert np.abs(front.picture(".fathom-inspector section div canvas") - before).mean() > 5
    front.clear()
    front.page.wait_for_function("!document.querySelector('.fathom-inspector')")


def test_without_the_front_ends_widgets_the_plain_preview_stays(front):
    node = front.js(
        """async () => {
            const { attachInspector } = await import("/extensions/fathom/js/inspector.mjs");
            const node = { properties: {} };
            attachInspector(node, app, app.api);
            return node;
        }"""
    )
    assert node == {"properties": {}}


def test_the_results_on_nodes_can_be_switched_off(front):
    switch = "(on) => app.extensionManager.setting.set('Fathom.NodePreviews', on)"
    front.js(switch, False)
    front.page.wait_for_timeout(300)
    front.build(resolution=320)
    entry = front.run()
    front.inspected()
    front.js(switch, True)
    assert entry["status"]["status_str"] == "success"
    assert front.node("FathomEstimateDepth") not in entry["outputs"]
    assert "images" not in entry["outputs"][front.node("FathomDepthInspector")], "the widget needs no picture"


def test_a_help_page_opens(front):
    front.build()
    front.js("() => app.canvas.selectNode(app.graph._nodes.find((n) => n.type === 'FathomDepthInspector'))")
    front.page.get_by_test_id("info-button").click()
    page = front.page.get_by_text("Drag on the histogram: a new band").first
    page.wait_for()
    picture = front.page.locator('img[src*="FathomDepthInspector.jpg"]').first
    picture.wait_for(state="attached")
    front.page.wait_for_function("(i) => i.naturalWidth > 100", arg=picture.element_handle())


def test_a_missing_model_is_told_where_it_is_missed(front):
    front.build("midas-dpt-hybrid")
    entry = front.run()
    failed = next(told for kind, told in entry["status"]["messages"] if kind == "execution_error")
    assert failed["node_type"] == "FathomEstimateDepth" and "not on this machine" in failed["exception_message"]
    try:
        front.server.get("/api/jobs")
    except urllib.error.HTTPError:
        pytest.skip("this front end is newer than its ComfyUI, and shows no errors")
    told = front.page.locator("dialog.fathom-missing")
    told.locator("code", has_text="models/annotators/lllyasviel/Annotators").wait_for()
    assert "MIT" in told.inner_text() and "493 MB" in told.inner_text()
    told.get_by_role("button", name="Close").click()
    front.page.get_by_role("button", name=re.compile("View details|See error|Show")).first.click()
    front.page.get_by_text("dpt_hybrid-midas-501f0c75.pt").first.wait_for()


def test_a_long_run_shows_pictures_and_is_cancelled_at_once(front):
    front.clear()
    front.js(
        """() => {
            const { add, link } = window.hand;
            const image = add("EmptyImage", 70, { width: 64, height: 64, batch_size: 4096 });
            const depth = add("FathomEstimateDepth", 380, { resolution: 64 });
            const shown = add("PreviewImage", 700);
            link(image, 0, depth, "image");
            link(depth, 0, shown, "images");
            window.seen = { previews: 0 };
            app.api.addEventListener("b_preview_with_metadata", () => window.seen.previews++);
        }"""
    )
    before = set(front.server.get("/history"))
    front.page.get_by_test_id("queue-button").first.click()
    front.page.wait_for_function("window.seen.previews > 0")
    cancelled = time.monotonic()
    front.page.get_by_role("button", name="Cancel current run").click()
    while not (new := front.server.get("/history").keys() - before):
        assert time.monotonic() - cancelled < 5, "the run goes on"
        front.page.wait_for_timeout(50)
    messages = front.server.get("/history")[new.pop()]["status"]["messages"]
    assert messages[-1][0] == "execution_interrupted"


# Last: ComfyUI keeps what was drawn inside a subgraph in the page.
def test_a_number_shown_outside_by_a_subgraph_is_read_and_written_there(front):
    front.build(resolution=280)
    promoted = front.js(
        """() => {
            const inspector = app.graph._nodes.find((n) => n.type === "FathomDepthInspector");
            if (!app.graph.convertToSubgraph) return false;
            const { subgraph, node } = app.graph.convertToSubgraph(new Set([inspector]));
            const inside = subgraph.nodes.find((n) => n.type === "FathomDepthInspector");
            const slot = subgraph.addInput("near", "FLOAT");
            slot.connect(inside.inputs.find((i) => i.name === "near"), inside);
            const outside = node.widgets.find((w) => w.name === "near");
            if (!outside) return false;
            outside.value = 0.6;
            window.promoted = { outside, inside, subgraph };
            return true;
        }"""
    )
    if not promoted:
        pytest.skip("this front end has no subgraphs that show numbers outside")
    # A node that moves within one moment would keep what stood there before.
    front.page.wait_for_timeout(500)
    front.js("() => app.canvas.setGraph(window.promoted.subgraph)")
    front.page.locator(HISTOGRAM).last.wait_for()
    front.js(
        """() => {
            const { inside } = window.promoted;
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [200 - inside.pos[0], 100 - inside.pos[1]];
            app.canvas.setDirty(true, true);
        }"""
    )
    entry = front.run()
    assert entry["status"]["status_str"] == "success", entry["status"]
    front.inspected()
    value = front.page.locator(HISTOGRAM).last.get_attribute("aria-valuenow")
    assert float(value) == pytest.approx(0.6)
    drag(front, HISTOGRAM, (0.6, 0.4), (0.7, 0.4), (0.8, 0.4))
    assert front.js("() => window.promoted.outside.value") == pytest.approx(0.8, abs=0.01)
    front.js("() => app.canvas.setGraph(app.rootGraph ?? app.graph)")
    front.clear()


def test_a_template_brings_its_picture_and_its_film_where_there_are_none(front):
    inputs = front.server.base / "input"
    for title, type, file in (
        ("Fog and lens blur from one depth", "LoadImage", "example.png"),
        ("Depth of a video without flicker", "LoadVideo", "video.mp4"),
    ):
        (inputs / file).unlink(missing_ok=True)
        graph = json.loads((ROOT / "example_workflows" / f"{title}.json").read_text(encoding="utf-8"))
        plain = {**graph, "extra": {}}
        told = []
        for opened in (plain, graph):
            front.js("(graph) => app.loadGraphData(graph)", opened)
            front.page.wait_for_timeout(1500)
            told.append(
                front.js(
                    """(type) => {
                        const node = app.graph._nodes.find((n) => n.type === type);
                        const [files] = node.widgets;
                        return [files.value, [...files.options.values].includes(files.value), !!node.has_errors];
                    }""",
                    type,
                )
            )
            assert (inputs / file).is_file() == (opened is graph), "a graph that is no template brings nothing"
        assert told[0][:2] == [file, False] and told[1] == [file, True, False]
        mine = bytes(np.random.default_rng(1).bytes(64))
        (inputs / file).write_bytes(mine)
        front.js("(graph) => app.loadGraphData(graph)", graph)
        front.page.wait_for_timeout(500)
        assert (inputs / file).read_bytes() == mine, "what is there stays"
        (inputs / file).unlink()


def test_the_pack_made_no_error_in_the_page(front):
    assert not [error for error in front.errors if "/extensions/fathom/" in error]
