// Refreshes the status page in place: fetches the page itself and swaps its main part, so there is one rendering.
"use strict";

const EVERY_MS = 3000;
const lost = document.getElementById("lost");
let seen = new Date();

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(EVERY_MS * 2) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    swap(page);
    seen = new Date();
    lost.hidden = true;
    document.body.classList.remove("stale");
  } catch {
    lost.querySelector("span").textContent = seen.toISOString().slice(11, 19);
    lost.hidden = false;
    document.body.classList.add("stale");
  }
}

function swap(page) {
  // A selection is somebody copying a line: do not take it away.
  if (!document.getSelection().isCollapsed) return;
  const focused = document.activeElement?.getAttribute("href");
  const scrolled = [...document.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
  document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
  document.title = page.title;
  document.querySelectorAll(".scroll").forEach((each, index) => { each.scrollLeft = scrolled[index] ?? 0; });
  if (focused) document.querySelector(`main a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

async function keepFresh() {
  await refresh();
  setTimeout(keepFresh, EVERY_MS);
}

setTimeout(keepFresh, EVERY_MS);
document.addEventListener("visibilitychange", refresh);
