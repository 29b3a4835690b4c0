"use strict";
/* Search, filter and order of the table of forks. Everything is readable without it. Orders: name, date; never harm. */
for (const tools of document.querySelectorAll("[data-tools-for]")) {
  const body = document.getElementById(tools.dataset.toolsFor).tBodies[0];
  const rows = Array.from(body.rows);
  const search = tools.querySelector("[data-search]");
  const verdict = tools.querySelector("[data-verdict]");
  const order = tools.querySelector("[data-order]");
  const count = tools.querySelector("[data-count]");
  const byName = (a, b) => (a.dataset.name < b.dataset.name ? -1 : a.dataset.name > b.dataset.name ? 1 : 0);
  const byScan = (a, b) => Date.parse(b.dataset.scanned) - Date.parse(a.dataset.scanned) || byName(a, b);

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = (!verdict.value || row.dataset.verdict === verdict.value) && words.every((w) => text.includes(w));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === rows.length ? `${rows.length} forks` : `${shown} of ${rows.length} forks`;
  };
  const sort = () => body.append(...rows.sort(order.value === "scanned" ? byScan : byName));

  search.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  order.addEventListener("change", sort);
  tools.hidden = false;
  sort();
  filter();
}
