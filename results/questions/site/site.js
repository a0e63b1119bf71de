// Light and dark, and a search over all pages. Without scripts the pages say the same.
"use strict";

const root = document.documentElement;
const stored = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
root.dataset.theme =
  stored || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

addEventListener("DOMContentLoaded", () => {
  const theme = document.querySelector(".theme");
  const name = () => { theme.textContent = root.dataset.theme === "dark" ? "Light" : "Dark"; };
  theme.hidden = false;
  name();
  theme.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept */ }
    name();
  });

  const here = document.querySelector("aside [aria-current]");
  if (here) here.closest("aside").scrollTop = here.offsetTop - 100;

  const form = document.querySelector(".search");
  const input = form.querySelector("input");
  const list = form.querySelector("#results");
  const status = form.querySelector("#search-status");
  const up = document.body.dataset.up;
  form.hidden = false;

  // The index is a script, since pages from disk may not fetch; it is loaded when first needed.
  let loading = null;
  const load = () => loading ||= new Promise((done) => {
    const script = document.createElement("script");
    script.src = `${up}site/search.js`;
    script.onload = () => done(window.searchEntries.map((entry) => ({
      ...entry,
      low: { title: entry.title.toLowerCase(), page: entry.page.toLowerCase(), text: entry.text.toLowerCase() },
    })));
    document.head.append(script);
  });

  const score = (entry, words) => {
    let sum = 0;
    for (const word of words) {
      const points = 8 * entry.low.title.includes(word) + 3 * entry.low.page.includes(word)
        + Math.min(entry.low.text.split(word).length - 1, 5);
      if (!points) return 0;
      sum += points;
    }
    return sum;
  };

  const snippet = (entry, words) => {
    const line = document.createElement("span");
    const at = Math.max(0, entry.low.text.indexOf(words[0]));
    const from = Math.max(0, at - 50);
    const text = entry.text.slice(from, at + 110);
    line.append(from ? "… " : "");
    const marked = document.createElement("mark");
    marked.textContent = text.slice(at - from, at - from + words[0].length);
    const found = marked.textContent.toLowerCase() === words[0];
    line.append(...(found ? [text.slice(0, at - from), marked, text.slice(at - from + words[0].length)] : [text]));
    return line;
  };

  const show = async () => {
    const entries = await load();
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const best = words.length ? entries
      .map((entry) => [score(entry, words), entry]).filter(([points]) => points)
      .sort((a, b) => b[0] - a[0]).slice(0, 20) : [];
    list.replaceChildren(...best.map(([, entry]) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      const title = document.createElement("b");
      link.href = up + entry.href;
      title.textContent = entry.title;
      link.append(title, entry.title === entry.page ? "" : ` · ${entry.page}`, snippet(entry, words));
      link.addEventListener("click", close);
      item.append(link);
      return item;
    }));
    if (words.length && !best.length) {
      const none = document.createElement("li");
      none.className = "none";
      none.textContent = "Nothing found.";
      list.append(none);
    }
    list.hidden = !words.length;
    status.textContent = words.length ? `${best.length} found` : "";
  };

  const close = () => { list.hidden = true; };
  input.addEventListener("focus", load);
  input.addEventListener("input", show);
  form.addEventListener("submit", (event) => { event.preventDefault(); list.querySelector("a")?.focus(); });
  document.addEventListener("click", (event) => { if (!form.contains(event.target)) close(); });
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !typing) {
      event.preventDefault();
      input.focus();
    } else if (event.key === "Escape" && !list.hidden) {
      close();
      input.focus();
    } else if (["ArrowDown", "ArrowUp"].includes(event.key) && form.contains(document.activeElement)) {
      const stops = [input, ...list.querySelectorAll("a")];
      const next = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
      stops[next]?.focus();
      event.preventDefault();
    }
  });
});
