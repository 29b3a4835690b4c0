"use strict";
/* Search, and filter and order of the table of forks. Everything is readable without it. Orders: name, date; never harm. */

for (const time of document.querySelectorAll("time[data-age]")) {
  const days = Math.floor((Date.now() - Date.parse(time.dateTime)) / 864e5);
  if (days >= 0) time.after(days === 0 ? ", today" : days === 1 ? ", yesterday" : `, ${days} days ago`);
}

for (const tools of document.querySelectorAll("[data-tools-for]")) {
  const body = document.getElementById(tools.dataset.toolsFor).tBodies[0];
  const rows = Array.from(body.rows);
  const search = tools.querySelector("[data-search]");
  const verdict = tools.querySelector("[data-verdict]");
  const order = tools.querySelector("[data-order]");
  const count = tools.querySelector("[data-count]");
  const byName = (a, b) => (a.dataset.name < b.dataset.name ? -1 : a.dataset.name > b.dataset.name ? 1 : 0);
  const newest = (key) => (a, b) => Date.parse(b.dataset[key]) - Date.parse(a.dataset[key]) || byName(a, b);

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
  const sort = () => body.append(...rows.sort(order.value === "name" ? byName : newest(order.value)));

  search.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  order.addEventListener("change", sort);
  tools.hidden = false;
  sort();
  filter();
}

for (const box of document.querySelectorAll("[data-index]")) {
  const input = box.querySelector("input");
  const said = box.querySelector("[data-said]");
  const hits = box.querySelector("[data-hits]");
  const hint = said.textContent;
  let loading = false;

  /* A name, or hex digits. Of an address the part that names the repository; of hashes the index has 16 digits. */
  const wanted = () => {
    const text = input.value.trim().toLowerCase().replace(/^sha256:/, "");
    const address = text.match(/^(?:https?:\/\/)?(?:www\.)?(?:huggingface\.co|hf\.co)\/(?:models\/)?([^/?#]+(?:\/[^/?#]+)?)/);
    return address ? address[1] : text;
  };
  const show = () => {
    const text = wanted();
    hits.replaceChildren();
    if (text.length < 2) return void (said.textContent = hint);
    const rows = window.forkwatchIndex;
    if (!rows) return void (said.textContent = "Loading the index…");
    const hex = /^[0-9a-f]{7,}$/.test(text) && text.slice(0, 16);
    const found = rows.filter(
      ([repo, , , names, hashes]) =>
        repo.toLowerCase().includes(text) ||
        names.toLowerCase().includes(text) ||
        (hex && hashes.split(" ").some((hash) => hash.startsWith(hex))),
    );
    for (const [repo, page, note, names] of found.slice(0, 20)) {
      const link = document.createElement("a");
      link.href = page;
      link.textContent = repo;
      const item = document.createElement("li");
      item.append(link, ` ${note}${names && !repo.toLowerCase().includes(text) ? `, formerly ${names}` : ""}`);
      hits.append(item);
    }
    said.textContent = found.length
      ? `${found.length} found${found.length > 20 ? ", the first 20 are shown" : ""}.`
      : "Nothing found. " + hint;
  };
  const load = () => {
    if (loading) return;
    loading = true;
    const script = document.createElement("script");
    script.src = box.dataset.index;
    script.onload = show;
    document.head.append(script);
  };

  input.addEventListener("focus", load);
  input.addEventListener("input", show);
  box.hidden = false;
}
