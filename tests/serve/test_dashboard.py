"""The dashboard in headless Chromium: two widths, two colour schemes, no console errors, axe."""

import re
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


def open_page(browser, service, width, scheme, javascript=True):
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        java_script_enabled=javascript,
    )
    page = context.new_page()
    page.complaints = []
    page.foreign = []
    page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.complaints.append(str(e)))
    page.on(
        "request",
        lambda r: (
            page.foreign.append(r.url) if not r.url.startswith((service.url, "data:")) else None
        ),
    )
    page.goto(service.url, wait_until="networkidle" if javascript else "load")
    if javascript:
        sync_api.expect(page.locator("#rate")).not_to_have_text("-", timeout=20000)
    return page


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dashboard_is_sound_at_each_width_and_scheme(browser, service, tmp_path, width, scheme):
    page = open_page(browser, service, width, scheme)
    page.screenshot(path=tmp_path / f"dashboard-{scheme}-{width}.png", full_page=True)
    assert page.complaints == [] and page.foreign == []
    assert "predicted" in page.inner_text("#summary")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if service.get("/assets/dygraph.min.js").status == 200:
        assert page.locator("#price canvas").count() > 0
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    results = axe.run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in results] == []


def test_dashboard_works_by_keyboard(browser, service, latest):
    page = open_page(browser, service, 1280, "light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#ticker")
    page.keyboard.press("ArrowDown")
    second = latest[1]["ticker"]
    sync_api.expect(page.locator("#summary")).to_contain_text(second, timeout=20000)
    assert page.complaints == []


def test_dashboard_without_javascript_has_the_facts(browser, service, latest):
    page = open_page(browser, service, 1280, "light", javascript=False)
    text = page.inner_text("main")
    assert latest[0]["model_version"] in text and "Model card" in text
    for row in latest:
        assert re.search(rf"{row['ticker']}\s+{row['date']}", text)
    assert not page.is_visible("#price")
