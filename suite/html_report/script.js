// SPDX-License-Identifier: Apache-2.0
// Filters, sorting, and the samples behind a number.  Nothing is loaded, nothing is stored.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const boxes = all(".chip input");
  const threads = document.getElementById("threads");

  function filter() {
    const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const count = threads.value;
    for (const element of all("[data-allocator]")) {
      const { allocator, threads: own } = element.dataset;
      const hidden = (allocator && !shown.has(allocator)) || (count && own && own !== count);
      element.classList.toggle("hidden", Boolean(hidden));
    }
    for (const card of all(".card[data-threads]")) {
      const own = card.dataset.threads;
      card.classList.toggle("hidden", Boolean(count && own && own !== count));
    }
  }

  function preset(kind) {
    for (const box of boxes) box.checked = kind === "all" || box.dataset.kind === kind;
    filter();
  }

  // Numbers by value, with what has none at the end either way; texts by the locale.
  function sort(button) {
    const head = button.closest("th");
    const column = [...head.parentNode.children].indexOf(head);
    const body = head.closest("table").tBodies[0];
    const falling = head.getAttribute("aria-sort") === "descending";
    const direction = falling ? 1 : -1;
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent.trim();
    };
    const numeric = head.dataset.numeric === "1";
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (!numeric) return direction * -1 * x.localeCompare(y, undefined, { numeric: true });
      if (x === "" || y === "") return (x === "") - (y === "");
      return direction * (Number(x) - Number(y));
    };
    body.append(...[...body.rows].sort(compare));
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "ascending" : "descending");
  }

  function text(tag, content, parent, name) {
    const element = document.createElement(tag);
    element.textContent = content;
    if (name) element.className = name;
    parent.append(element);
    return element;
  }

  function shown(metric, value) {
    if (value === undefined || value === null) return "-";
    const scaled = value * metric.scale;
    return metric.digits < 0 ? scaled.toPrecision(4) : scaled.toFixed(Math.max(metric.digits, 2));
  }

  function samplesOf(element) {
    const name = element.dataset.m || "ops_per_s";
    const metric = data.metrics[name];
    const used = new Set(element.dataset.s.split(",").map(Number));
    const first = data.samples[[...used][0]];
    const same = (s) => s.allocator === first.allocator && s.workload === first.workload
      && s.threads === first.threads && s.observed === first.observed && s.stepped === first.stepped;
    const dialog = document.getElementById("samples");
    dialog.replaceChildren();
    text("h2", `${first.allocator}, ${first.workload}, threads: ${first.threads}`, dialog);
    text("p", `${metric.heading}: ${metric.definition} Source: ${metric.source}.`, dialog, "note");
    const table = document.createElement("table");
    const scroll = text("div", "", dialog, "scroll");
    scroll.append(table);
    const head = text("tr", "", table.createTHead());
    const columns = ["run.json", "repeat", "try", metric.heading, "noise %", "pace ns", "after s", "seed", ""];
    for (const column of columns) text("th", column, head);
    const body = table.createTBody();
    data.samples.forEach((sample, place) => {
      if (!used.has(place) && !same(sample)) return;
      const row = text("tr", "", body, used.has(place) ? "" : "unused");
      const noise = sample.noise === undefined ? "-" : (100 * sample.noise).toFixed(1);
      const why = sample.error || (used.has(place) ? "" : sample.accepted ? "has no such figure" : "repeated: noisy");
      for (const cell of [`samples[${place}]`, sample.repeat, sample.attempt, shown(metric, sample.metrics[name]),
        noise, sample.pace_ns ?? "-", sample.started_s, sample.seed, why]) text("td", cell, row);
    });
    const close = text("button", "Close", dialog);
    close.addEventListener("click", () => dialog.close());
    dialog.showModal();
  }

  function theme() {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches(".chip input, #threads")) filter();
  });
  document.addEventListener("click", (event) => {
    const target = event.target;
    const button = target.closest("button");
    if (button && button.dataset.preset) preset(button.dataset.preset);
    else if (button && button.id === "theme") theme();
    else if (button && button.closest("th")) sort(button);
    else {
      const number = target.closest("[data-s]");
      if (number && number.dataset.s !== "") samplesOf(number);
    }
  });
  document.addEventListener("keydown", (event) => {
    const number = event.target.closest("[data-s][tabindex]");
    if (event.key === "Enter" && number && number.dataset.s !== "") samplesOf(number);
  });
})();
