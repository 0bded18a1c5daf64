// What the page can do beyond being read: a theme of one's own, tables that sort, a table of contents that follows.
(() => {
  "use strict";
  const root = document.documentElement;

  // Theme: the system's, until the reader chooses.
  const KEY = "prove-theme";
  const button = document.querySelector("button.theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // a file opened without storage
    }
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const showTheme = () => button.setAttribute("aria-pressed", String(isDark()));
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem(KEY, root.dataset.theme);
    } catch {
      // it holds for this visit
    }
    showTheme();
  });
  system.addEventListener("change", showTheme);
  showTheme();

  // Sorting: ascending, descending, as it was. What has no value stays at the end.
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const keyOf = (cell) => {
    if (!cell) return null;
    if (cell.dataset.value !== undefined) {
      const number = Number(cell.dataset.value);
      return Number.isNaN(number) ? null : number;
    }
    const text = (cell.dataset.text ?? cell.textContent).trim();
    return text === "" || text === "–" || text === "—" ? null : text;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === typeof b) return collator.compare(a, b);
    return typeof a === "number" ? -1 : 1;
  };
  const sortable = (table) => {
    const body = table.tBodies[0];
    const headers = [...table.tHead.rows[0].cells];
    const original = [...body.rows];
    headers.forEach((header, column) => {
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.className = "sort";
      sorter.append(...header.childNodes);
      header.append(sorter);
      sorter.addEventListener("click", () => {
        const next = { ascending: "descending", descending: undefined }[header.getAttribute("aria-sort") ?? ""];
        const order = header.hasAttribute("aria-sort") ? next : "ascending";
        for (const other of headers) other.removeAttribute("aria-sort");
        if (!order) {
          body.append(...original);
          return;
        }
        header.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const keyed = original.map((row) => [keyOf(row.cells[column]), row]);
        keyed.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return sign * compare(a, b);
        });
        body.append(...keyed.map(([, row]) => row));
      });
    });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.tHead && table.tBodies.length === 1 && table.tBodies[0].rows.length > 1) sortable(table);
  }

  // A box that need not scroll need not be a stop of the Tab key.
  const boxes = document.querySelectorAll(".scroll");
  const measure = (box) => {
    const inside = box.scrollWidth > box.clientWidth + 1;
    if (inside) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  };
  const watcher = new ResizeObserver((entries) => {
    for (const entry of entries) measure(entry.target);
  });
  for (const box of boxes) watcher.observe(box);

  // A link to what stands in a closed fold opens it.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  // On paper everything is open.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const fold of closed) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of closed) fold.open = false;
  });

  // On a phone the contents start closed; on a wide screen they follow the reader.
  const contents = document.querySelector("nav.contents details");
  if (matchMedia("(max-width: 63.99rem)").matches) contents.open = false;
  const entries = new Map([...contents.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
  const visible = new Set();
  const spy = new IntersectionObserver(
    (changes) => {
      for (const { target, isIntersecting } of changes) {
        if (isIntersecting) visible.add(target.id);
        else visible.delete(target.id);
      }
      let first = true;
      for (const [id, link] of entries) {
        if (first && visible.has(id)) {
          link.setAttribute("aria-current", "true");
          first = false;
        } else link.removeAttribute("aria-current");
      }
    },
    { rootMargin: "-10% 0px -60% 0px" },
  );
  for (const id of entries.keys()) spy.observe(document.getElementById(id));
})();
