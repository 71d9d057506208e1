"use strict";
// Makes the table of jobs sortable, filterable and paged. All rows are in the file, but only those of the current page
// are in the document, so that ten thousand jobs do not slow it down.
document.documentElement.classList.add("js");
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.jobs");
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  const region = table.parentElement;
  const filterInput = document.getElementById("filter");
  const rowCount = document.getElementById("shown");
  const pager = document.querySelector(".pager");
  const pageLabel = document.getElementById("page");
  const groupButtons = Array.from(document.querySelectorAll(".groups button"));
  const narrowScreen = window.matchMedia("(max-width: 46rem)");
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const rows = Array.from(body.rows, (element, index) => ({
    element, index, group: element.dataset.group, text: null, keys: [],
  }));
  let sortedRows = rows;
  let shownRows = rows; // those that pass the filter, in order
  let page = 0;
  let sort = { column: -1, direction: "none" };
  let isPrinting = false;

  const pageSize = () => (narrowScreen.matches ? 100 : 200);
  const pageCount = () => Math.max(1, Math.ceil(shownRows.length / pageSize()));
  const format = (number) => number.toLocaleString("en");
  const isPressed = (button) => button.getAttribute("aria-pressed") === "true";

  // Some browsers drop the roles of rows and cells that CSS lays out as cards.
  const withRoles = (row) => {
    if (!row.hasAttribute("role")) {
      row.setAttribute("role", "row");
      for (const cell of row.cells) cell.setAttribute("role", cell.tagName === "TH" ? "rowheader" : "cell");
    }
    return row;
  };

  const render = () => {
    page = Math.min(page, pageCount() - 1);
    const first = page * pageSize();
    const visible = isPrinting ? shownRows : shownRows.slice(first, first + pageSize());
    body.replaceChildren(...visible.map((row) => withRoles(row.element)));
    const total = `${format(rows.length)} ${rows.length === 1 ? "row" : "rows"}`;
    rowCount.textContent = shownRows.length === rows.length ? total : `${format(shownRows.length)} of ${total}`;
    pager.hidden = pageCount() === 1;
    pageLabel.textContent =
      `Page ${format(page + 1)} of ${format(pageCount())}: rows ${format(first + 1)} to ${format(first + visible.length)}`;
    for (const button of pager.querySelectorAll("button")) {
      const goesBack = ["first", "previous"].includes(button.dataset.page);
      button.setAttribute("aria-disabled", String(goesBack ? page === 0 : page === pageCount() - 1));
    }
  };

  const applyFilter = () => {
    const words = filterInput.value.toLowerCase().split(/\s+/).filter(Boolean);
    const groups = new Set(groupButtons.filter(isPressed).map((button) => button.dataset.group));
    if (words.length) {
      for (const row of rows) {
        row.text ??= Array.from(row.element.cells, (cell) => cell.textContent).join("\n").toLowerCase();
      }
    }
    shownRows = sortedRows.filter(
      (row) => (!groups.size || groups.has(row.group)) && words.every((word) => row.text.includes(word)),
    );
    page = 0;
    region.scrollTop = 0;
    render();
  };

  // The value that a row is sorted by; null if the cell is empty.
  const sortKey = (row, column, kind) => {
    if (kind === "group") return Number(row.group); // the worst first
    const cell = row.element.cells[column];
    const text = cell.textContent;
    if (text === "") return null;
    if (kind === "number") return Number(text.replaceAll(",", ""));
    if (kind === "duration") return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    return text;
  };

  const comparison = (kind) => {
    const isPlain = ["group", "number", "duration", "time"].includes(kind);
    return isPlain ? (a, b) => (a < b ? -1 : a > b ? 1 : 0) : collator.compare;
  };

  const sortBy = (column) => {
    const next = { none: "ascending", ascending: "descending", descending: "none" };
    sort = { column, direction: next[sort.column === column ? sort.direction : "none"] };
    if (sort.direction === "none") {
      sortedRows = rows;
    } else {
      const kind = heads[column].dataset.kind;
      const compare = comparison(kind);
      const sign = sort.direction === "descending" ? -1 : 1;
      for (const row of rows) if (row.keys[column] === undefined) row.keys[column] = sortKey(row, column, kind);
      const filled = rows.filter((row) => row.keys[column] !== null);
      const empty = rows.filter((row) => row.keys[column] === null); // last in both directions
      filled.sort((a, b) => sign * compare(a.keys[column], b.keys[column]) || a.index - b.index);
      sortedRows = filled.concat(empty);
    }
    for (const [index, head] of heads.entries()) {
      if (index === column && sort.direction !== "none") head.setAttribute("aria-sort", sort.direction);
      else head.removeAttribute("aria-sort");
    }
    applyFilter();
  };

  const turnTo = (target) => {
    const last = pageCount() - 1;
    const next = { first: 0, previous: page - 1, next: page + 1, last }[target];
    if (next < 0 || next > last || next === page) return;
    page = next;
    render();
    region.scrollTop = 0;
    if (narrowScreen.matches) region.scrollIntoView();
  };

  for (const [column, head] of heads.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortBy(column));
    head.setAttribute("role", "columnheader");
    head.replaceChildren(button);
  }
  for (const button of groupButtons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(!isPressed(button)));
      applyFilter();
    });
  }
  for (const button of pager.querySelectorAll("button")) {
    button.addEventListener("click", () => turnTo(button.dataset.page));
  }
  filterInput.addEventListener("input", applyFilter);
  narrowScreen.addEventListener("change", render);
  window.addEventListener("beforeprint", () => { isPrinting = true; render(); });
  window.addEventListener("afterprint", () => { isPrinting = false; render(); });

  table.setAttribute("role", "table");
  for (const section of [table.tHead, body]) section.setAttribute("role", "rowgroup");
  table.tHead.rows[0].setAttribute("role", "row");
  document.querySelector(".controls").hidden = false;
  render();
});
