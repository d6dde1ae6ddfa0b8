"""The console in a real browser, beside a real master, worker and search."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from browser import DEADLINE_MS, Browser, open_browser
from cluster import ARCHITECTURE, Cluster
from playwright.async_api import Page, expect
from processes import eventually
from tools import tool
from worker_process import TESTS

from tenure.common.states import TaskState

pytestmark = pytest.mark.tools

expect.set_options(timeout=DEADLINE_MS)

HOSTILE = "<img src=x onerror=alert(1)>"
PAGES = ("", "queue", "workers", "leases", "failures", "events")


class Scene:
    """A cluster with a console, and a browser."""

    def __init__(self, cluster: Cluster, browser: Browser, root: Path) -> None:
        self.cluster = cluster
        self.browser = browser
        self.root = root

    @property
    def url(self) -> str:
        return str(self.cluster.master.facts["console"])

    async def submit(self, search: str, count: int = 1, **extra: str) -> list[str]:
        """Tasks that do what their ``extra`` says."""

        def send() -> list[str]:
            specs = [
                {"architecture": ARCHITECTURE, "config": {"extra": extra}, "key": f"{extra}"[:200] + str(number)}
                for number in range(count)
            ]
            return [handle.task_id for handle in self.cluster.client.search(search).submit_many(specs)]

        return await asyncio.to_thread(send)

    async def worker(self, name: str = "w", **settings: Any) -> None:
        """A worker with the evaluator of these tests."""
        await self.cluster.add_worker(name, evaluator="console_evaluators:evaluate", python_path=str(TESTS), **settings)

    async def status(self, search: str) -> Any:
        return await asyncio.to_thread(self.cluster.client.search(search).status)

    async def mode(self, worker: str) -> str:
        return str((await asyncio.to_thread(self.cluster.client.worker, worker)).mode)

    def gate(self, name: str = "gate") -> Path:
        """What runs wait for."""
        return self.root / name


@pytest_asyncio.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Whatever the page complained of fails the test."""
    cluster = Cluster(tmp_path, console="127.0.0.1:0")
    try:
        async with open_browser(tool("chromium")) as browser:
            yield Scene(cluster, browser, tmp_path)
            assert browser.trouble.found == []
    finally:
        await cluster.destroy()


async def press(page: Page, button: str, verb: str) -> str:
    """Press a button, read what will happen, agree; returns what was said to happen."""
    await page.get_by_role("button", name=button, exact=True).first.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    what = await dialog.inner_text()
    await dialog.get_by_role("button", name=verb, exact=True).click()
    await expect(dialog).to_be_hidden()
    return what


async def test_a_newcomer_is_told_what_to_do_and_then_sees_it_happen(scene: Scene) -> None:
    page = await scene.browser.open(scene.url)
    await expect(page.get_by_role("heading", name="Nothing has been submitted yet")).to_be_visible()
    port = scene.cluster.master.address.rpartition(":")[2]
    await expect(page.get_by_text(f"tenure worker --master 127.0.0.1:{port}")).to_be_visible()
    # Without a reload.
    await scene.submit("first", 3, fitness="0.25")
    await expect(page.get_by_role("link", name="first", exact=True)).to_be_visible()
    await page.get_by_role("link", name="Queue").click()
    await expect(page.get_by_text("no worker lives: start one")).to_be_visible()
    await scene.worker()
    await expect(page.get_by_role("heading", name="Nothing waits")).to_be_visible()
    await page.get_by_role("link", name="Searches").click()
    await expect(page.get_by_text("3 of 3 ended")).to_be_visible()


async def test_a_search_is_watched_paused_and_resumed(scene: Scene) -> None:
    await scene.worker(slots=2)
    gate = scene.gate()
    done = await scene.submit("nas", 4, fitness="0.5", steps="3")
    await scene.submit("nas", 3, gate=str(gate), fitness="0.9")
    page = await scene.browser.open(f"{scene.url}#/search?name=nas")
    await expect(page.get_by_text("4 of 7", exact=True)).to_be_visible()
    await expect(page.get_by_role("img", name="the best so far is 0.5, the 1st")).to_be_visible()
    await expect(page.locator(".chart .best")).to_have_count(1)
    await expect(page.get_by_role("row").filter(has_text="no report yet")).to_have_count(2)

    what = await press(page, "Pause", "Pause")
    assert "2 tasks that run now go on" in what
    await expect(page.get_by_text("nas is paused; 2 tasks of it still run")).to_be_visible()
    assert (await scene.status("nas")).status == "paused"
    await expect(page.get_by_text("the search is paused: resume it")).to_be_visible()
    await press(page, "Resume", "Resume")
    assert (await scene.status("nas")).status == "active"

    gate.touch()
    await expect(page.get_by_text("7 of 7", exact=True)).to_be_visible()
    await expect(page.get_by_role("img", name="the best so far is 0.9, the 5th")).to_be_visible()
    await page.get_by_role("link", name="Latest results").click()
    await expect(page.get_by_role("row").filter(has=page.locator(f"[title='{done[0]}']"))).to_have_count(1)
    await page.locator(f"[title='{done[0]}']").click()
    await expect(page.get_by_role("heading", name=done[0])).to_be_visible()
    await expect(page.get_by_role("row").filter(has_text="fitness")).to_contain_text("0.5")


async def test_failures_show_their_evidence_and_are_requeued(scene: Scene) -> None:
    await scene.worker()
    (task_id,) = await scene.submit("nas", **{"raise": "no such layer", "say": "epoch 1 of 9"})
    page = await scene.browser.open(f"{scene.url}#/failures")
    letter = page.locator("details.letter")
    await expect(letter).to_contain_text("Hopeless")
    await expect(letter).to_contain_text("no such layer")
    await expect(letter).to_contain_text("the error is not retryable")
    await letter.locator("summary").first.click()
    await expect(letter.locator("pre").first).to_contain_text("epoch 1 of 9")
    await expect(letter.get_by_role("heading", name="Lease 1")).to_be_visible()
    what = await press(page, "Requeue 1 of nas", "Requeue 1")
    assert "fresh budgets" in what
    await eventually(lambda: _epoch_is(scene, task_id, 2))
    await page.goto(f"{scene.url}#/task?id={task_id}")
    await expect(page.get_by_role("heading", name="Lease 2")).to_be_visible()
    await press(page, "Requeue", "Requeue")
    await expect(page.get_by_role("heading", name="Lease 3")).to_be_visible()


async def _epoch_is(scene: Scene, task_id: str, least: int) -> bool:
    record = await asyncio.to_thread(scene.cluster.client.task, task_id)
    return bool(record.epoch >= least and record.state is TaskState.FAILED)


async def test_a_worker_is_drained_by_keyboard_and_comes_back(scene: Scene) -> None:
    await scene.worker("gpu-box")
    (task_id,) = await scene.submit("nas", gate=str(scene.gate()), say="training")
    page = await scene.browser.open(f"{scene.url}#/workers")
    drain = page.get_by_role("button", name="Drain gpu-box", exact=True)
    await expect(page.locator(f".slot [title='{task_id}']")).to_be_visible()
    await drain.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Drain gpu-box?")
    await expect(dialog).to_contain_text("hands back the 1 task it holds")
    # Enter alone must not do what can't be undone.
    await expect(dialog.get_by_role("button", name="Leave it")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    assert await scene.mode("gpu-box") == "active"
    await drain.focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("gpu-box drains: it hands back 1 task")).to_be_visible()
    assert await scene.mode("gpu-box") == "draining"
    await expect(page.get_by_text("Holds0 tasks")).to_be_visible()
    await press(page, "Uncordon gpu-box", "Uncordon")
    await eventually(lambda: _holds(scene, "gpu-box"))
    await press(page, "Cordon gpu-box", "Cordon")
    assert await scene.mode("gpu-box") == "cordoned"


async def _holds(scene: Scene, worker: str) -> bool:
    return bool((await asyncio.to_thread(scene.cluster.client.worker, worker)).leases)


async def test_the_page_outlives_its_master(scene: Scene) -> None:
    await scene.submit("nas", 2)
    scene.browser.trouble.expected += ("ERR_CONNECTION", "ERR_EMPTY_RESPONSE")
    page = await scene.browser.open(scene.url)
    await expect(page.get_by_text("0 of 2 ended")).to_be_visible()
    await page.get_by_role("link", name="nas", exact=True).click()
    await expect(page.get_by_text("0 of 2", exact=True)).to_be_visible()
    scene.cluster.master.kill()
    banner = page.get_by_text("No news from the master")
    await expect(banner).to_be_visible()
    # What was heard stays, and a button says that nobody hears it.
    await expect(page.get_by_text("0 of 2", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Pause").click()
    await page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("alert")).to_contain_text("no master answers")
    await page.keyboard.press("Escape")
    console = scene.url.removeprefix("http://").rstrip("/")
    await asyncio.to_thread(scene.cluster.master.restart, console=console)
    await expect(banner).to_be_hidden()
    await expect(page.get_by_text("The master answers again")).to_be_visible()
    await scene.submit("nas", 1, fitness="1")
    await expect(page.get_by_text("0 of 3", exact=True)).to_be_visible()


async def test_what_others_wrote_is_text_and_nothing_else(scene: Scene) -> None:
    await scene.worker(HOSTILE, slots=1)
    (dead,) = await scene.submit(HOSTILE, **{"raise": HOSTILE, "say": f"{HOSTILE}\x1b[31mred\x1b[0m</pre>"})
    (live,) = await scene.submit(HOSTILE, gate=str(scene.gate()), say=f"</script>{HOSTILE} ünïcode")
    page = await scene.browser.open(scene.url)
    await expect(page.get_by_role("link", name=HOSTILE, exact=True)).to_be_visible()
    for path in (f"task?id={dead}", "failures", "workers", "events", "leases"):
        await page.goto(f"{scene.url}#/{path}")
        await expect(page.locator("main").get_by_text(HOSTILE).first).to_be_visible()
    await page.goto(f"{scene.url}#/task?id={dead}")
    # Colours are for terminals.
    await expect(page.locator(".lease pre.output")).to_contain_text(f"{HOSTILE}red</pre>")
    await page.goto(f"{scene.url}#/task?id={live}")
    await expect(page.locator("pre.tail")).to_contain_text(f"</script>{HOSTILE} ünïcode")
    await press(page, "Cancel", "Cancel the task")
    await expect(page.locator("#main img, #main script, #toasts img")).to_have_count(0)


@pytest.mark.parametrize("width", [400, 2000])
async def test_every_page_fits_and_every_control_has_a_name(scene: Scene, width: int) -> None:
    await scene.worker("a-worker-with-a-long-name" * 4, labels="pool=a-long-label-of-a-pool")
    (dead,) = await scene.submit("a-search-with-a-long-name" * 4, **{"raise": "x" * 300})
    await scene.submit("nas", 3, fitness="0.5")
    page = await scene.browser.open(scene.url, width)
    await expect(page.get_by_text("3 of 3 ended")).to_be_visible()
    scene.browser.trouble.expected += ("404",)
    for path in (*PAGES, "search?name=nas", f"task?id={dead}", "search?name=unheard"):
        await page.goto(f"{scene.url}#/{path}")
        await expect(page.locator("main .page").first).not_to_contain_text("Asking the master")
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
        nameless = "[...document.querySelectorAll('button,a,input,[role=img]')].filter(one => !(one.innerText || "
        nameless += "one.ariaLabel || one.title || one.labels?.length || '').trim()).map(one => one.outerHTML)"
        assert await page.evaluate(nameless) == [], path


@pytest.mark.parametrize("path", ["nowhere", "toString", "constructor", "__proto__"])
async def test_an_address_of_no_page_says_so_and_leads_home(scene: Scene, path: str) -> None:
    await scene.submit("constructor")
    page = await scene.browser.open(f"{scene.url}#/{path}")
    await expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    await page.get_by_role("link", name="All searches").click()
    await expect(page.get_by_text("0 of 1 ended")).to_be_visible()
    await page.goto(f"{scene.url}#/search?name=constructor&tab={path}")
    await expect(page.get_by_role("heading", name="Nothing of it runs")).to_be_visible()


async def test_a_silent_worker_is_shown_with_what_it_holds_and_not_with_what_it_said(scene: Scene) -> None:
    await scene.worker("mute")
    (task_id,) = await scene.submit("nas", gate=str(scene.gate()))
    page = await scene.browser.open(f"{scene.url}#/workers")
    cards = page.locator("article.worker")
    await expect(cards.locator(f"[title='{task_id}']")).to_be_visible()
    scene.cluster.workers["mute"].signal(signal.SIGSTOP)
    mute = cards.filter(has=page.get_by_role("heading", name="mute"))
    await expect(mute.get_by_text("Last heard")).to_be_visible()
    await scene.worker("heir")
    heir = cards.filter(has=page.get_by_role("heading", name="heir"))
    await expect(heir.locator(f"[title='{task_id}']")).to_be_visible()
    await expect(mute).to_contain_text("Holds0 tasks")
    await expect(mute.locator(".slot")).to_contain_text("not heard")
    await expect(mute.locator(f"[title='{task_id}']")).to_have_count(0)
    await expect(mute.locator(".gauges.past")).to_be_visible()


async def test_a_long_error_is_shown_from_its_beginning_until_it_is_asked_for(scene: Scene) -> None:
    await scene.worker()
    await scene.submit("nas", **{"raise": "line\n" * 300 + "the last words"})
    page = await scene.browser.open(f"{scene.url}#/failures")
    letter = page.locator("details.letter")
    more = letter.get_by_role("button", name="Show all 1,514 characters")
    await expect(more).to_be_visible()
    await expect(letter.locator("summary")).not_to_contain_text("the last words")
    await more.click()
    await expect(letter.locator("summary")).to_contain_text("the last words")
    assert await letter.get_attribute("open") is None
    await letter.get_by_role("button", name="Show less").click()
    await expect(letter.locator("summary")).not_to_contain_text("the last words")


async def test_a_question_is_taken_back_with_its_page(scene: Scene) -> None:
    await scene.submit("nas")
    page = await scene.browser.open(f"{scene.url}#/search?name=nas")
    await page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("1 task that waits is cancelled at once")
    await page.evaluate("location.hash = '#/queue'")
    await expect(page.get_by_role("heading", name="Queue")).to_be_visible()
    await expect(dialog).to_be_hidden()


async def test_how_a_search_stands_is_the_same_at_home_and_on_its_page(scene: Scene) -> None:
    await scene.worker()
    await scene.submit("done", fitness="0.5")
    (stuck,) = await asyncio.to_thread(
        lambda: [scene.cluster.client.search("stuck").submit(ARCHITECTURE, key="k", requirements={"gpus": 8})]
    )
    assert stuck
    page = await scene.browser.open(scene.url)
    for name, words in (("done", ["ended"]), ("stuck", ["stuck", "no live worker meets"])):
        card = page.locator("article.card").filter(has=page.get_by_role("heading", name=name))
        for word in words:
            await expect(card).to_contain_text(word)
    await page.goto(f"{scene.url}#/search?name=done")
    await expect(page.locator("main .title .pill").first).to_have_text("ended")
    await expect(page.get_by_text("until its last end")).to_be_visible()
    await page.goto(f"{scene.url}#/search?name=stuck")
    await expect(page.locator("p.why.stuck")).to_contain_text("no live worker meets")


async def test_on_a_narrow_window_ids_stay_whole_and_the_present_tab_is_in_view(scene: Scene) -> None:
    await scene.worker()
    (task_id,) = await scene.submit("nas", gate=str(scene.gate()))
    page = await scene.browser.open(f"{scene.url}#/leases", 400)
    link = page.locator(f"td [title='{task_id}']")
    await expect(link).to_be_visible()
    assert await link.evaluate("one => one.getClientRects().length") == 1
    assert await page.locator(".scroll").evaluate("one => one.scrollWidth > one.clientWidth")
    for label in ("Leases", "Events"):
        await page.get_by_role("link", name=label).click()
        tab = page.locator("nav [aria-current=page]")
        await expect(tab).to_contain_text(label)
        await expect(tab).to_be_in_viewport(ratio=0.99)
