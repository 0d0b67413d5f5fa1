"""The page and the Markdown of evaluations: what they say, and that texts stay texts."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from eval import hints, report
from eval.results import gaps, read_runs
from tests.browser_test import CHROMIUM, DRIVER, PAYLOADS, errors, open_browser, show
from tests.eval.fake_server import Answer, Body, fake, reply, sums
from tests.eval.runner import (
    QUICK,
    build,
    command,
    evaluate,
    problems,
    rows_of,
    summary,
    write_rows,
)

POISON = "".join(PAYLOADS)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models under the same bank, over more problems than a page of the viewer holds."""
    folder = tmp_path_factory.mktemp("attacked")
    bank = folder / "bank.jsonl"
    assert build("--from=rule", f"--data={problems(folder, 30)}", "--k=2", f"--out={bank}") == 0
    with fake() as server:
        argv = [f"--bank={bank}", f"--endpoint={server.url}", f"--out={folder / 'out'}"]
        assert command(hints, "attack", *argv, "--model=adder,other", "--n=4", *QUICK) == 0
    return folder / "out"


def test_the_markdown_has_the_numbers(attacked: Path) -> None:
    text = (attacked / "report.md").read_text()
    for name in ("adder", "other"):
        one = summary(attacked / name)["datasets"]["sums"]
        assert f"{100 * one['avg']:.1f} \\[" in text
        assert one["data_sha256"] in text
    assert "python -m eval.hints attack" in text and "temperature 0.6" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.count("|") - line.count("\\|") for line in lines[:4]}
    assert len(widths) == 1


def test_p_values_are_corrected_for_their_number(attacked: Path) -> None:
    found = gaps(read_runs([attacked / "adder", attacked / "other"]))
    assert [one.what for one in found] == ["accuracy", "accuracy under hints"]
    assert min(one.corrected for one in found) == pytest.approx(
        min(1.0, 2 * min(one.p for one in found))
    )
    clean = summary(attacked / "other")["datasets"]["sums"]["avg"]
    clean -= summary(attacked / "adder")["datasets"]["sums"]["avg"]
    assert found[0].gap.mean == pytest.approx(clean)
    assert found[0].gap.n == 30


def test_sets_of_other_rows_are_not_compared(tmp_path: Path) -> None:
    with fake() as server:
        for count in (4, 5):
            data = problems(tmp_path, count)
            assert evaluate(server, data, tmp_path / str(count)) == 0
    assert gaps(read_runs([tmp_path / "4", tmp_path / "5"])) == []
    names = [run.name for run in read_runs([tmp_path / "4", tmp_path / "5"])]
    assert len(set(names)) == 2 and all(name.startswith("adder (") for name in names)


def test_what_a_reader_must_know_is_said(tmp_path: Path) -> None:
    rows = [
        {"Problem ID": f"p{i}", "Problem": f"What is {i} + 1?", "Category": "Algebra",
         "Short Answer": "Algebra" if i == 3 else str(i + 1), "Subcategory": "x", "Source": "y"}
        for i in range(400)
    ]  # fmt: skip
    write_rows(tmp_path / "imo.jsonl", rows)
    data = Path(f"imo_answerbench={tmp_path / 'imo.jsonl'}")
    with fake() as server:
        flags = ("--model_date=2026-01", "--limit=5", f"--lock={tmp_path / 'lock.json'}")
        assert evaluate(server, data, tmp_path / "out", *flags) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "without p3 (no usable answer)" in text
    assert "its problems are of 2025-11, the model of 2026-01" in text
    assert summary(tmp_path / "out")["datasets"]["imo_answerbench"]["n_problems"] == 4


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(report) == 2
    assert "got no folders" in capsys.readouterr().err
    assert command(report, str(tmp_path)) == 2
    assert "no evaluation there" in capsys.readouterr().err
    assert command(report, str(tmp_path), "--out=x.pdf") == 2
    assert "wanted FILE.html" in capsys.readouterr().err


# ---- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("the browser tests need chromium and chromedriver on the PATH; none found")
    browser = open_browser()
    yield browser
    browser.quit()


@pytest.fixture
def opened(browser: Any, attacked: Path) -> Any:
    show(browser, attacked / "report.html")
    assert errors(browser) == []
    return browser


def anchors(browser: Any) -> list[str]:
    """Of the cards that stand in the page now; read at once, for the page may change."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('article.card')].map((card) => card.id)"
    )
    return found


def test_it_opens_with_its_tables_and_curves(opened: Any, attacked: Path) -> None:
    text = opened.find_element(By.TAG_NAME, "main").text
    for words in ("Results", "Under hints", "Differences", "p, corrected", "right \u2192 wrong"):
        assert words in text
    one = summary(attacked / "adder")["hints"]["sums"]
    assert f"{100 * one['worst_of_k']:.1f}%" in text
    assert len(opened.find_elements(By.CSS_SELECTOR, "figure svg[role=img]")) == 1
    heat = opened.find_elements(By.CSS_SELECTOR, ".heat td a")
    assert len(heat) == 4 * 30  # two models, clean and under hints


def test_a_cell_leads_to_the_answers_of_its_problem(opened: Any) -> None:
    cell = opened.find_elements(By.CSS_SELECTOR, ".heat td a")[27]
    wanted = cell.get_attribute("href").split("#")[1]
    assert wanted not in anchors(opened)  # on another page of the viewer
    cell.click()
    WebDriverWait(opened, 5).until(lambda _: wanted in anchors(opened))
    card = opened.find_element(By.ID, wanted)
    assert "sum-027" in card.text and "What is 27 + 190?" in card.text
    assert "I add 27 and 190" in card.text  # a full response
    assert abs(card.rect["y"] - opened.execute_script("return window.scrollY")) < 400


def test_a_link_undoes_what_hides_its_card(opened: Any) -> None:
    opened.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("sum-003")
    WebDriverWait(opened, 5).until(lambda _: len(anchors(opened)) == 1)
    cell = opened.find_elements(By.CSS_SELECTOR, ".heat td a")[5]
    wanted = cell.get_attribute("href").split("#")[1]
    opened.execute_script("arguments[0].click()", cell)
    WebDriverWait(opened, 5).until(lambda _: wanted in anchors(opened))
    assert opened.find_element(By.CSS_SELECTOR, "input[type=search]").get_attribute("value") == ""


def test_filters_and_facets(opened: Any) -> None:
    opened.find_element(By.XPATH, "//button[normalize-space()='A hint broke it']").click()
    shown = opened.find_element(By.CSS_SELECTOR, ".count").text
    assert 0 < int(shown.split()[0]) <= 30
    rows = opened.find_elements(By.CSS_SELECTOR, ".row:not(.problem)")
    assert rows and all("\u2192" in row.text for row in rows)
    opened.find_element(By.XPATH, "//option[.='statistical trap']").click()
    rows = opened.find_elements(By.CSS_SELECTOR, ".row:not(.problem)")
    assert all("statistical trap" in row.text for row in rows)
    assert not opened.find_elements(By.CSS_SELECTOR, ".stepper")


def test_nothing_is_asked_of_the_network(opened: Any, attacked: Path) -> None:
    opened.get_log("performance")
    show(opened, attacked / "report.html")
    messages = [entry["message"] for entry in opened.get_log("performance")]
    sent = [message for message in messages if "requestWillBeSent" in message]
    assert sent and all('"url":"http' not in message for message in sent)


def test_scripts_in_any_text_stay_text(browser: Any, tmp_path: Path) -> None:
    """Questions, ids, slices, hints, answers, model names, errors of the server."""
    rows = [
        {**row, "id": row["id"] + POISON, "question": row["question"] + POISON,
         "kind": "<img src=x onerror=hit=1>"}
        for row in sums(3)
    ]  # fmt: skip
    data, bank = write_rows(tmp_path / "sums.jsonl", rows), tmp_path / "bank.jsonl"
    assert build("--from=rule", f"--data={data}", "--k=1", f"--out={bank}") == 0
    told = rows_of(bank)
    write_rows(bank, [{**row, "text": row["text"] + POISON, "source": POISON} for row in told])

    def poisoned(body: Body, number: int) -> Answer | None:
        if number == 8:
            return Answer(400, {"error": f"maximum context length {POISON}"})
        good = reply(body)
        for one in good["choices"]:
            one["message"] = {"content": one["message"]["content"] + POISON, "reasoning": POISON}
        return Answer(body=good)

    out = tmp_path / "<img src=x onerror=hit=1>"
    with fake(poisoned) as server:
        argv = [f"--bank={bank}", f"--endpoint={server.url}", f"--out={out}", f"--model={POISON}"]
        flags = (*QUICK, "--n=2", "--max_tokens=4000")
        assert command(hints, "attack", *argv, *flags) == 0
    assert json.dumps(PAYLOADS[0])[1:-1] in (out / "responses" / "sums.jsonl").read_text()
    show(browser, out / "report.html")
    for fold in browser.find_elements(By.TAG_NAME, "summary"):
        fold.click()
    browser.execute_script("for (const chip of document.querySelectorAll('.chip')) chip.click()")
    browser.execute_script("document.querySelector('.heat td a').click()")
    assert browser.execute_script("return window.hit") is None
    assert browser.find_elements(By.CSS_SELECTOR, "main img, main script, main iframe") == []
    assert PAYLOADS[0] in browser.find_element(By.CSS_SELECTOR, "article.card").text
    assert errors(browser) == []
    markdown = (out / "report.md").read_text()
    indented = re.sub(r"(?m)^    .*$", "", markdown)  # the command stands as code
    assert not re.search(r"(?<!\\)<(script|img|svg|iframe|link)", indented)
