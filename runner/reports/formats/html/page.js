"use strict";
// What the page can do beyond being read: the table of jobs is sorted, filtered, and turned page by page. All rows come
// with the page; but for those that are shown they are kept out of the document, so that ten thousand are no burden.
document.documentElement.classList.add("js");
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.jobs");
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  const region = table.parentElement;
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const pager = document.querySelector(".pager");
  const narrow = window.matchMedia("(max-width: 46rem)");
  const buttons = Array.from(document.querySelectorAll(".choices button"));
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const rows = Array.from(body.rows, (row, place) => ({ row, place, choice: row.dataset.choice, text: null, keys: [] }));
  let found = rows; // those that the filter lets through, in the order of the sort
  let order = rows; // all, in the order of the sort
  let page = 0;
  let sorted = { column: -1, direction: "none" };
  let printing = false;

  const size = () => (narrow.matches ? 100 : 200);
  const pages = () => Math.max(1, Math.ceil(found.length / size()));
  const told = (count) => count.toLocaleString("en");
  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  const plural = (count) => (count === 1 ? "row" : "rows");

  // Some browsers forget that these are rows and cells where a style lays them out as cards.
  const named = (row) => {
    if (!row.hasAttribute("role")) {
      row.setAttribute("role", "row");
      for (const cell of row.cells) cell.setAttribute("role", cell.tagName === "TH" ? "rowheader" : "cell");
    }
    return row;
  };

  const show = () => {
    page = Math.min(page, pages() - 1);
    const first = page * size();
    const part = printing ? found : found.slice(first, first + size());
    body.replaceChildren(...part.map((one) => named(one.row)));
    const all = found.length === rows.length;
    shown.textContent = all
      ? `${told(rows.length)} ${plural(rows.length)}`
      : `${told(found.length)} of ${told(rows.length)} ${plural(rows.length)}`;
    pager.hidden = pages() === 1;
    document.getElementById("page").textContent =
      `Page ${told(page + 1)} of ${told(pages())}: rows ${told(first + 1)} to ${told(first + part.length)}`;
    for (const button of pager.querySelectorAll("button")) {
      const back = button.dataset.page === "first" || button.dataset.page === "previous";
      button.setAttribute("aria-disabled", String(back ? page === 0 : page === pages() - 1));
    }
  };

  const sift = () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const choices = new Set(buttons.filter(pressed).map((one) => one.dataset.choice));
    if (wanted.length) {
      for (const one of rows) {
        one.text ??= Array.from(one.row.cells, (cell) => cell.textContent).join("\n").toLowerCase();
      }
    }
    found = order.filter(
      (one) => (!choices.size || choices.has(one.choice)) && wanted.every((word) => one.text.includes(word)),
    );
    page = 0;
    region.scrollTop = 0;
    show();
  };

  // What a cell is sorted by: a number where its column has such, otherwise its text; null where it is empty.
  const key = (one, column, kind) => {
    if (kind === "choice") return Number(one.choice); // the worst is first
    const cell = one.row.cells[column];
    const text = cell.textContent;
    if (text === "") return null;
    if (kind === "number") return Number(text.replaceAll(",", ""));
    if (kind === "length") return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    return text;
  };

  const compare = (kind) => {
    const plain = ["choice", "number", "length", "time"].includes(kind);
    return plain ? (a, b) => (a < b ? -1 : a > b ? 1 : 0) : words.compare;
  };

  const sort = (column) => {
    const steps = { none: "ascending", ascending: "descending", descending: "none" };
    sorted = { column, direction: steps[sorted.column === column ? sorted.direction : "none"] };
    const kind = heads[column].dataset.kind;
    const sign = sorted.direction === "descending" ? -1 : 1;
    if (sorted.direction === "none") {
      order = rows;
    } else {
      for (const one of rows) if (one.keys[column] === undefined) one.keys[column] = key(one, column, kind);
      const by = compare(kind);
      const whole = rows.filter((one) => one.keys[column] !== null);
      whole.sort((a, b) => sign * by(a.keys[column], b.keys[column]) || a.place - b.place);
      order = whole.concat(rows.filter((one) => one.keys[column] === null)); // what is empty is last, either way
    }
    for (const [place, head] of heads.entries()) {
      if (place === column && sorted.direction !== "none") head.setAttribute("aria-sort", sorted.direction);
      else head.removeAttribute("aria-sort");
    }
    sift();
  };

  const turn = (to) => {
    const last = pages() - 1;
    const next = { first: 0, previous: page - 1, next: page + 1, last }[to];
    if (next < 0 || next > last || next === page) return;
    page = next;
    show();
    region.scrollTop = 0;
    if (narrow.matches) region.scrollIntoView();
  };

  for (const [column, head] of heads.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(column));
    head.setAttribute("role", "columnheader");
    head.replaceChildren(button);
  }
  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(!pressed(button)));
      sift();
    });
  }
  for (const button of pager.querySelectorAll("button")) {
    button.addEventListener("click", () => turn(button.dataset.page));
  }
  filter.addEventListener("input", sift);
  narrow.addEventListener("change", show);
  window.addEventListener("beforeprint", () => { printing = true; show(); });
  window.addEventListener("afterprint", () => { printing = false; show(); });

  table.setAttribute("role", "table");
  for (const part of [table.tHead, body]) part.setAttribute("role", "rowgroup");
  table.tHead.rows[0].setAttribute("role", "row");
  document.querySelector(".controls").hidden = false;
  show();
});
