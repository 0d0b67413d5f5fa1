"""The report in a real browser: what a user sees and does, and what model text may not do.

Skipped by name where there is no Chromium with its driver; CHROMIUM and CHROMEDRIVER may name them.
`python -m tests.browser_test RUN PICTURE.png` takes two pictures of a run's report: the top of the
page as PICTURE.png, the two roles under the filter "The hint broke it" as PICTURE-roles.png.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from seirenes_jax.html import Heat, Lines, Section, Series, Table, page
from seirenes_jax.report_page import write_report
from tests.made_run import FAMILIES, make_run

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")

PAYLOADS = (
    "</script><script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "<!--<script>window.hit=1//",
    "\"><svg onload=window.hit=1>",
    "javascript:window.hit=1",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "\u2028window.hit=1\u2029 ${window.hit=1} {{hit}} &lt;b&gt;",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css>",
)


def open_browser(*, width: int = 1280, height: int = 900, dark: bool = False) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--hide-scrollbars", f"--window-size={width},{height}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    return browser


# A chart is drawn once its box has a size, which is after the script; what is folded away has none.
DRAWN = """
const boxes = [...document.querySelectorAll("figure:has(> .tip) > figcaption + div")];
return document.querySelector("main header") !== null
  && boxes.every((box) => !box.clientWidth || box.querySelector("svg[role=img]"));
"""


def show(browser: Any, path: Path) -> None:
    """Open a page and wait until its script has drawn it, with all its charts."""
    browser.get(path.resolve().as_uri())
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script(DRAWN))


def take_pictures(report: Path, picture: Path) -> None:
    browser = open_browser(width=1280, height=1440)
    try:
        show(browser, report)
        picture.parent.mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(picture))
        press(browser, "The hint broke it")
        every_step(browser)
        browser.execute_script(
            "document.querySelector('.viewer').closest('section').scrollIntoView()"
        )
        browser.save_screenshot(str(picture.with_stem(picture.stem + "-roles")))
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("the browser tests need chromium and chromedriver on the PATH; none found")
    browser = open_browser()
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "made", steps=30))


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    show(browser, report)
    assert errors(browser) == []
    return browser


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def cards(browser: Any) -> list[WebElement]:
    found: list[WebElement] = browser.find_elements(By.CSS_SELECTOR, "article.card")
    return found


def steps_shown(browser: Any) -> list[int]:
    return [int(card.get_attribute("data-step") or -1) for card in cards(browser)]


def press(browser: Any, label: str) -> None:
    browser.find_element(By.XPATH, f"//button[normalize-space()='{label}']").click()


def every_step(browser: Any) -> None:
    browser.find_element(By.CSS_SELECTOR, ".stepper input[type=checkbox]").click()


def count(browser: Any) -> int:
    words = browser.find_element(By.CSS_SELECTOR, ".count").text
    return int(words.split()[0])


def test_it_opens_with_the_table_the_curves_and_the_last_step(opened: Any) -> None:
    text = opened.find_element(By.TAG_NAME, "main").text
    for words in ("Before and after", "91.4%", "92.6%", "+74.0", "Families of hints"):
        assert words in text
    assert len(opened.find_elements(By.CSS_SELECTOR, "figure svg[role=img] path")) > 30
    assert steps_shown(opened) == [30, 30]


def test_the_slider_chooses_the_step(opened: Any) -> None:
    slider = opened.find_element(By.CSS_SELECTOR, "input[type=range]")
    slider.send_keys(Keys.HOME)
    assert steps_shown(opened) == [1, 1]
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert steps_shown(opened) == [3, 3]
    assert opened.find_element(By.TAG_NAME, "output").text == "step 3"


def test_the_filter_leaves_only_hints_that_broke_it(opened: Any) -> None:
    every_step(opened)
    assert count(opened) == 60
    press(opened, "The hint broke it")
    assert 0 < count(opened) <= 60
    rows = opened.find_elements(By.CSS_SELECTOR, ".row:not(.problem)")
    assert rows
    assert all("broke it" in row.text for row in rows)
    press(opened, "The hint broke it")
    assert count(opened) == 60


def test_a_family_can_be_chosen_with_a_filter(opened: Any) -> None:
    every_step(opened)
    press(opened, "The hint broke it")
    family = FAMILIES[2].replace("_", " ")
    opened.find_element(By.XPATH, f"//option[.='{family}']").click()
    rows = opened.find_elements(By.CSS_SELECTOR, ".row:not(.problem)")
    assert rows
    assert all("broke it" in row.text and family in row.text for row in rows)


def test_search_finds_text_at_other_steps_and_marks_it(opened: Any) -> None:
    opened.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("train/7-1")
    WebDriverWait(opened, 3).until(lambda _: cards(opened) == [])
    press(opened, "Show all of them")
    assert steps_shown(opened) == [7]
    assert cards(opened)[0].find_element(By.TAG_NAME, "mark").text == "train/7-1"


def test_a_try_opens_by_its_sign(opened: Any) -> None:
    row = opened.find_element(By.CSS_SELECTOR, ".row.problem")
    chips = row.find_elements(By.CSS_SELECTOR, ".chip")
    assert {chip.text for chip in chips} <= {"\u2713", "\u2717", "?"}  # told by shape, not colour
    chips[-1].click()
    assert chips[-1].get_attribute("aria-pressed") == "true"
    assert "boxed" in row.find_element(By.CSS_SELECTOR, ".try").text


def test_pointing_at_a_chart_shows_its_values(opened: Any) -> None:
    chart = opened.find_element(By.CSS_SELECTOR, "figure svg[role=img]")
    chart.send_keys(Keys.ARROW_LEFT)
    tip = opened.find_element(By.CSS_SELECTOR, "figure .tip")
    assert "step 29" in tip.text or "step 30" in tip.text
    assert "clean" in tip.text and "%" in tip.text


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_follow_the_system(opened: Any, dark: bool) -> None:
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(ground.split("(")[1].split(",")[0])
    assert red < 60 if dark else red > 200


def test_nothing_is_asked_of_the_network(opened: Any, report: Path) -> None:
    opened.get_log("performance")
    show(opened, report)
    asked = opened.execute_script("return performance.getEntriesByType('resource')")
    assert asked == []
    messages = [entry["message"] for entry in opened.get_log("performance")]
    sent = [message for message in messages if "requestWillBeSent" in message]
    assert sent
    assert all('"url":"http' not in message for message in sent)


def poison(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: one if key == "verdict" else poison(one) for key, one in value.items()}
    if isinstance(value, list):
        return [poison(inner) for inner in value]
    return value + "".join(PAYLOADS) if isinstance(value, str) else value


def test_scripts_in_model_text_stay_text(browser: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "<img src=x onerror=hit=1>", steps=3)
    for name in ("rollouts.jsonl", "metrics.jsonl"):
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        text = "".join(json.dumps(poison(row)) + "\n" for row in rows)
        (folder / name).write_text(text)
    for name in ("config.json", "summary.json"):
        data = poison(json.loads((folder / name).read_text()))
        (folder / name).write_text(json.dumps(data))
    show(browser, write_report(folder))
    every_step(browser)
    for summary in browser.find_elements(By.TAG_NAME, "summary"):
        summary.click()
    browser.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("<img onerror")
    WebDriverWait(browser, 3).until(lambda _: browser.find_elements(By.TAG_NAME, "mark"))
    browser.execute_script("for (const chip of document.querySelectorAll('.chip')) chip.click()")
    assert browser.execute_script("return window.hit") is None
    assert browser.find_elements(By.CSS_SELECTOR, "main img, main script, main iframe") == []
    assert PAYLOADS[0] in cards(browser)[0].text  # shown as it was written
    assert errors(browser) == []


def test_what_gets_in_all_the_same_may_not_run(opened: Any) -> None:
    """The second lock: markup planted into the open page finds its script refused."""
    opened.execute_script(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x: onerror=window.hit=1>');"
        "const s = document.createElement('script'); s.textContent = 'window.hit = 2';"
        "document.body.append(s);"
    )
    time.sleep(0.2)
    assert opened.execute_script("return window.hit") is None
    assert any("Content Security Policy" in message for message in errors(opened))


def test_a_long_run_stays_brisk(browser: Any, tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "long", steps=600))
    start = time.perf_counter()
    show(browser, path)
    assert len(cards(browser)) == 2
    assert time.perf_counter() - start < 5.0
    every_step(browser)
    assert len(cards(browser)) == 8  # a page of 1200
    took = browser.execute_script(
        "const box = document.querySelector('.pill'); const start = performance.now(); box.click();"
        "document.body.offsetHeight; return performance.now() - start"
    )
    assert took < 1000.0
    press(browser, "Older")
    assert "page 2 of" in browser.find_element(By.CSS_SELECTOR, ".pager").text


def test_a_narrow_screen_does_not_scroll_sideways(opened: Any) -> None:
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 390


def test_tables_sort_and_heat_maps_stand(browser: Any, tmp_path: Path) -> None:
    table = Table((("name", "text"), ("share", "percent")), (("b", 0.5), ("a", None), ("c", 0.25)))
    heat = Heat("cross-play", ("1", "2"), ("1", "2"), ((0.1, 0.9), (None, 1.0)))
    band = Lines("loss", (Series("run", [1, 2], [0.5, None], 0, [0.4, None], [0.6, None]),))
    path = tmp_path / "kit.html"
    path.write_text(page("kit", "", [Section("all", "", (table, heat, band))]), encoding="utf-8")
    show(browser, path)

    def column() -> str:
        found = browser.find_elements(By.CSS_SELECTOR, "table:has(button) tbody td:first-child")
        return "".join(cell.text for cell in found)

    assert column() == "bac"
    press(browser, "share")
    assert column() == "cba"  # what is unknown stands last
    press(browser, "share")
    assert column() == "bca"
    press(browser, "name")
    assert column() == "abc"
    cells = browser.find_elements(By.CSS_SELECTOR, ".heat td")
    assert [cell.text for cell in cells] == ["10.0%", "90.0%", "\u2013", "100.0%"]
    assert errors(browser) == []


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]) / "report.html", Path(sys.argv[2]))
