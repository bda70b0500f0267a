"""The page of a comparison in a real browser: what it draws, sorts and does at a key.

Skipped where selenium, Chromium or its driver are not installed; `make test-browser` installs the
first.
"""

import shutil

import pytest
import torch

import attrib
from attrib.datasets import Scenes, ScenesWithBoxes

pytest.importorskip("selenium")
CHROMIUM, DRIVER = (
    next((path for name in names if (path := shutil.which(name))), None)
    for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs Chromium and its driver"
)
METHODS = ["cam", "infocam+", "gradcam(layer='stage9')", "layercam"]


@pytest.fixture(scope="module")
def compared():
    scenes = ScenesWithBoxes(Scenes(length=2, size=(120, 160), seed=4))
    return attrib.compare("demo", scenes, METHODS, metrics=["deletion(steps=4)", "sparseness"])


@pytest.fixture(scope="module")
def browser(compared, tmp_path_factory):
    from selenium import webdriver

    page = compared.save(tmp_path_factory.mktemp("page") / "x.html")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1280,1000"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=webdriver.ChromeService(DRIVER), options=options)
    driver.get(page.as_uri())
    driver.execute_async_script(
        "Promise.all(pictures.map((p) => p.image.decode())).then(redraw).then(arguments[0])"
    )
    yield driver
    driver.quit()


def find(browser, css):
    return browser.find_elements("css selector", css)


def press(browser, *keys):
    from selenium.webdriver.common.keys import Keys

    for key in keys:
        browser.switch_to.active_element.send_keys(getattr(Keys, key))


def box_at(browser, threshold):
    """Move the slider; return the box that the page finds on the first map of the first picture."""
    return browser.execute_script(
        "byId('threshold').value = arguments[0]; byId('controls').oninput();"
        "const part = largestPart(pictures[0].maps.cam, settings().level);"
        "return part && [part.x0, part.y0, part.x1, part.y1]",
        threshold,
    )


def pixels(browser, index):
    return browser.execute_script(
        "const c = drawn[arguments[0]].canvas;"
        "return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)",
        index,
    )


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.5, 0.9])
def test_boxes_are_those_of_attrib(browser, compared, threshold):
    from attrib.localize import largest_component

    values = compared.pictures[0].shown.maps["cam"].values
    mask = values.float()[None] >= 255 * torch.tensor(threshold)
    assert box_at(browser, threshold) == largest_component(mask).boxes[0].tolist()
    assert find(browser, "#threshold-value")[0].text == f"{threshold:.2f}"


def test_what_is_drawn_follows_the_controls(browser):
    box_at(browser, 0.2)
    boxed, full = pixels(browser, 0), pixels(browser, 1)
    assert boxed != full
    states = [full]
    for name in ("box", "heat", "outline"):
        find(browser, f"#{name}")[0].click()
        states.append(pixels(browser, 1))
        bare = pixels(browser, 0)
        assert bare != boxed  # the true box has gone too
    assert len({tuple(s) for s in states}) == 4
    assert states[2] == bare  # neither box nor heatmap
    for name in ("outline", "heat", "box"):
        find(browser, f"#{name}")[0].click()
    assert pixels(browser, 1) == full


def test_mistakes_and_true_objects_are_shown(browser, compared):
    box_at(browser, 0.2)
    for i, record in enumerate(compared.pictures):
        shown = record.shown
        title = find(browser, ".picture > p")[i].text
        assert ("wrong: it is" in title) == (shown.target not in shown.truth)
    wrong = "return mistaken({target: 'cat', truth: %s, top: [['%s', 1]]})"
    for truth, said, text in (
        (["cat"], "deer, red", "wrong: the model says deer"),
        (["cat"], "cat", ""),
        (["duck"], "cat", "wrong: it is duck"),
        ([], "cat", ""),
    ):
        assert browser.execute_script(wrong % (truth, said)) == text
    x0, y0, x1, _ = compared.pictures[0].shown.boxes[0]
    edge = "const c = document.querySelectorAll('canvas')[1], d = c.getContext('2d').getImageData("
    edge += "0, 0, c.width, c.height).data, k = c.width / 160, g = new Set(); for (let x = %f * k;"
    edge += "x < %f * k; x++) g.add(d[4 * (Math.floor(%f * k) * c.width + Math.floor(x))] > 128);"
    assert browser.execute_script(edge % (x0, x1, y0) + "return [...g].length") == 2  # dashed


def test_the_table_sorts_and_what_failed_comes_last(browser, compared):
    means = {r.method: r.scores["deletion(steps=4)"].mean for r in compared.rows}
    good = [m for m in METHODS if "stage9" not in m]

    def names():
        return [cell.text for cell in find(browser, "#scores tbody th")]

    heading = find(browser, "#scores thead button")[1]
    heading.click()
    assert names() == [*sorted(good, key=means.get), METHODS[2]]
    assert find(browser, "#scores thead th")[1].get_attribute("aria-sort") == "ascending"
    heading.click()
    assert names() == [*sorted(good, key=means.get, reverse=True), METHODS[2]]
    find(browser, "#scores thead button")[2].click()  # more is better: the best first
    assert find(browser, "#scores thead th")[2].get_attribute("aria-sort") == "descending"


def test_a_map_opens_and_arrows_go_to_others(browser, compared):
    cards = find(browser, "button.card")
    assert [card.is_enabled() for card in cards[:4]] == [True, True, False, True]
    browser.execute_script("arguments[0].focus()", cards[0])
    press(browser, "ARROW_RIGHT", "ENTER")
    title = find(browser, "#detail-title")[0]
    assert title.text.startswith("infocam+: ")
    top = [row.text for row in find(browser, "#top tr")]
    name, probability = compared.pictures[0].shown.top[0]
    true = ["(true)"] if name in compared.pictures[0].shown.truth else []
    assert top[0].split() == [name, *true, f"{100 * probability:.1f}", "%"]
    press(browser, "ARROW_RIGHT")  # over the one that failed
    assert title.text.startswith("layercam: ")
    press(browser, "ARROW_DOWN")
    assert title.text.endswith(compared.pictures[1].shown.target)
    score = compared.pictures[1].outcomes["layercam"].scores["deletion(steps=4)"]
    assert find(browser, "#own tr")[0].text.split()[-1] == f"{score:.3f}"
    press(browser, "ESCAPE")
    assert not title.is_displayed()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_scheme(browser, width, scheme):
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
    inner, whole = browser.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth]"
    )
    assert inner == width
    assert whole <= width  # nothing to scroll sideways for
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    level = sum(int(part) for part in colour[4:-1].split(","))
    assert (level < 200) == (scheme == "dark")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_fetches_nothing_and_logs_no_error(browser):
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map((e) => e.name)"
    )
    assert all(name.startswith("data:") for name in fetched)
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
