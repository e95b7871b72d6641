"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();

  // Colours: as the system has them, unless the reader chose.
  const themes = ["system", "light", "dark"];
  const said = { system: "as the system has them", light: "light", dark: "dark" };
  const signs = { system: "◐", light: "☀", dark: "☾" };
  let theme = "system";
  try {
    theme = localStorage.getItem("rollingq-report-theme") || theme;
  } catch (error) {
    // A browser may forbid files to keep anything.
  }

  const isDark = () =>
    theme === "dark" || (theme === "system" && system.matches);

  function paint() {
    document.documentElement.toggleAttribute("data-dark", isDark());
    const button = document.getElementById("theme");
    button.textContent = signs[theme];
    button.setAttribute("aria-label", `Colours: ${said[theme]}`);
    for (const place of [...views.keys()]) draw(place);
  }

  document.getElementById("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try {
      localStorage.setItem("rollingq-report-theme", theme);
    } catch (error) {
      // As above.
    }
    paint();
  });
  system.addEventListener("change", paint);

  function chartConfig(dark, width) {
    const ink = dark ? "#e6e9ed" : "#1b1f24";
    const line = dark ? "#373e47" : "#dfe3e8";
    const font = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif";
    return {
      aria: false,
      background: null,
      font,
      view: { stroke: null },
      axis: {
        labelColor: ink, titleColor: ink, gridColor: line, domainColor: line,
        tickColor: line, titleFontWeight: "normal", labelFontSize: 11,
        titleFontSize: 12, titlePadding: 6,
      },
      legend: {
        labelColor: ink, titleColor: ink, labelFontSize: 12, symbolSize: 90,
        columns: Math.max(1, Math.floor(width / 170)), titleFontWeight: "normal",
      },
    };
  }

  const waiting = new Map();
  async function draw(place) {
    const width = place.clientWidth;
    if (!width) return;
    // Two drawings into one place would leave both in it.
    const before = waiting.get(place) || Promise.resolve();
    const drawing = before.then(async () => {
      const old = views.get(place);
      if (old && old.finalize) old.finalize();
      views.set(place, null);
      const result = await vegaEmbed(place, specs[place.dataset.chart], {
        mode: "vega-lite", renderer: "svg", actions: false,
        config: chartConfig(isDark(), width), tooltip: { theme: isDark() ? "dark" : "light" },
      });
      views.set(place, result);
      // The place itself says what is seen.
      place.querySelector("svg").setAttribute("aria-hidden", "true");
      place.dataset.drawn = "yes";
    });
    waiting.set(place, drawing);
    return drawing;
  }

  // What is seen is drawn at once, what is near it a little ahead.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "400px" });
  const places = document.querySelectorAll(".chart");
  places.forEach((place) => watcher.observe(place));

  // A printed page has all that is open.
  window.addEventListener("beforeprint", () => {
    for (const place of places) if (!views.has(place)) draw(place);
  });

  // Tables: by the number or text of a column, what has none at the end.
  const order = new Intl.Collator("en", { numeric: true });
  function compare(a, b) {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? order.compare(a, b) : x - y;
  }
  function sort(head) {
    const table = head.closest("table");
    const down = head.getAttribute("aria-sort") === "ascending";
    const column = head.cellIndex;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const value = (row) => row.cells[column].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return down ? compare(y, x) : compare(x, y);
    });
    body.append(...rows);
  }
  for (const button of document.querySelectorAll("thead button"))
    button.addEventListener("click", () => sort(button.closest("th")));

  function save(name, source) {
    const link = document.createElement("a");
    link.download = name;
    link.href = source;
    link.click();
  }
  function csv(table) {
    const cell = (x) => `"${x.textContent.trim().replaceAll('"', '""')}"`;
    return [...table.rows].map((row) => [...row.cells].map(cell).join(",")).join("\n");
  }
  for (const button of document.querySelectorAll("[data-csv]"))
    button.addEventListener("click", () => {
      const text = csv(document.getElementById(`table-${button.dataset.csv}`));
      save(`${button.dataset.csv}.csv`, `data:text/csv;charset=utf-8,${encodeURIComponent(text)}`);
    });
  for (const button of document.querySelectorAll("[data-png]"))
    button.addEventListener("click", async () => {
      const place = button.closest("figure").querySelector(".chart");
      if (!views.get(place)) await draw(place);
      save(`${button.dataset.png}.png`, await views.get(place).view.toImageURL("png", 2));
    });

  // A link to a run opens it.
  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.matches("details")) target.open = true;
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", follow);

  for (const select of document.querySelectorAll("[data-albums]"))
    select.addEventListener("change", () => {
      for (const album of select.closest("section").querySelectorAll(".album"))
        album.hidden = album.dataset.album !== select.value;
    });
  for (const box of document.querySelectorAll("[data-toggle]"))
    box.addEventListener("change", () => {
      const section = box.closest("section");
      if (box.dataset.toggle === "attention") section.classList.toggle("plain", !box.checked);
      else
        for (const sample of section.querySelectorAll(".sample"))
          sample.hidden = box.checked && sample.dataset.right === "yes";
    });

  if (window.matchMedia("(max-width: 900px)").matches)
    document.querySelector("nav details").open = false;
  paint();
  follow();
  // Widths change when a phone is turned.
  let width = innerWidth;
  window.addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    for (const place of [...views.keys()]) draw(place);
  });
})();
