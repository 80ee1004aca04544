"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const said = document.getElementById("said");
  const say = (text) => { said.textContent = text; };

  // Theme: as the system, light, dark.
  const themes = ["", "light", "dark"];
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const remembered = () => { try { return localStorage.getItem("fastcal-theme") || ""; } catch { return ""; } };
  const setTheme = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    button.textContent = { "": "◐", light: "○", dark: "●" }[theme];
    button.setAttribute("aria-label", `Colour theme: ${theme || "as the system"}`);
    try { localStorage.setItem("fastcal-theme", theme); } catch { /* a page from a file may have no storage */ }
  };
  setTheme(remembered());
  button.addEventListener("click", () => {
    setTheme(themes[(themes.indexOf(root.dataset.theme || "") + 1) % themes.length]);
  });

  // Region and class: one choice for the whole page.
  const chosen = { region: all("[data-control=region]:checked")[0]?.value ?? "", class: "" };
  const show = () => {
    for (const panel of all("[data-region]")) {
      panel.hidden = panel.dataset.region !== chosen.region ||
        (panel.dataset.class !== undefined && panel.dataset.class !== chosen.class);
    }
    for (const input of all("[data-control=region]")) input.checked = input.value === chosen.region;
  };
  for (const control of all("[data-control]")) {
    control.addEventListener("change", () => { chosen[control.dataset.control] = control.value; show(); });
  }
  const few = document.getElementById("few");
  few?.addEventListener("change", () => {
    document.getElementById("calibration").classList.toggle("show-few", few.checked);
  });

  // Tables: sorted by the numbers behind the texts; cells without one come last.
  const key = (row, column) => {
    const cell = row.cells[column];
    const raw = cell.dataset.v ?? cell.textContent.trim();
    if (raw === "" || raw === "-") return null;
    const number = Number(raw);
    return Number.isNaN(number) ? raw : number;
  };
  const order = (a, b) => (typeof a === "number" && typeof b === "number"
    ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      head.querySelector(".sort")?.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => (a === null || b === null
          ? (a === null) - (b === null) : (up ? 1 : -1) * order(a, b)));
        body.append(...rows.map(([, row]) => row));
        say(`Sorted by ${head.querySelector(".sort").textContent}, ${up ? "ascending" : "descending"}`);
      });
    });
  }

  // Cases: links open their case; the slider moves through its slices.
  const articles = all("article.case");
  const open = (id, { focus = false } = {}) => {
    const wanted = articles.find((article) => article.id === id);
    if (!wanted) return false;
    for (const article of articles) article.hidden = article !== wanted;
    for (const link of all(".picks a")) {
      if (link.hash === `#${id}`) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    }
    if (focus) { wanted.querySelector("h3").focus({ preventScroll: true }); wanted.scrollIntoView({ block: "start" }); }
    return true;
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest(".open-case");
    if (!link) return;
    const id = decodeURIComponent((link.getAttribute("href") || "").slice(1));
    if (open(id, { focus: true })) { event.preventDefault(); history.replaceState(null, "", `#${id}`); }
    else { say("This case has no pictures in the page"); }
  });
  const startCase = decodeURIComponent(location.hash.slice(1));
  if (!(startCase && open(startCase, { focus: true })) && articles.length) open(articles[0].id);
  for (const article of articles) {
    const slider = article.querySelector(".slice");
    const numbers = article.dataset.numbers.split(" ");
    const output = article.querySelector("output");
    const update = () => {
      article.style.setProperty("--k", slider.value);
      output.textContent = output.textContent.replace(/slice \d+/, `slice ${numbers[slider.value]}`);
      slider.setAttribute("aria-valuetext", output.textContent);
    };
    slider.addEventListener("input", update);
    update();
  }

  // Files: CSV of a table with its numbers in full, and all numbers as JSON.
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (table) => {
    const heads = all("thead th", table);
    const bounds = heads.map((_, column) => [...table.tBodies[0].rows].some((row) => row.cells[column].dataset.low));
    const titles = heads.flatMap((head, column) => {
      const title = (head.querySelector(".sort") || head).textContent.trim();
      return bounds[column] ? [title, `${title} low`, `${title} high`] : [title];
    });
    const lines = [...table.tBodies[0].rows].map((row) => [...row.cells].flatMap((cell, column) => {
      const value = cell.dataset.v ?? cell.textContent.trim();
      return bounds[column] ? [value, cell.dataset.low ?? "", cell.dataset.high ?? ""] : [value];
    }));
    return [titles, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  };
  for (const control of all("button.csv")) {
    control.setAttribute("aria-label", `Save ${control.dataset.name} as CSV`);
    control.addEventListener("click", () => {
      const table = document.querySelector(`table[data-name="${CSS.escape(control.dataset.name)}"]`);
      save(`${control.dataset.name.replaceAll(/[^A-Za-z0-9]+/g, "-")}.csv`, "text/csv", csv(table));
    });
  }
  document.getElementById("json").addEventListener("click", () => {
    save("report.json", "application/json", document.getElementById("data").textContent);
  });
  document.getElementById("copy").addEventListener("click", async () => {
    const text = document.getElementById("command").textContent;
    try { await navigator.clipboard.writeText(text); } catch {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById("command"));
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      document.execCommand("copy");
    }
    say("Copied");
  });
  // Printed pages show the evidence of every finding.
  let opened = [];
  addEventListener("beforeprint", () => { opened = all("details:not([open])"); opened.forEach((one) => { one.open = true; }); });
  addEventListener("afterprint", () => { opened.forEach((one) => { one.open = false; }); });
})();
