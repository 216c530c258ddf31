// Theme, chart tooltips, downloads, printing. The report is complete without scripts.
"use strict";
(() => {
  const root = document.documentElement;
  const spoken = document.getElementById("spoken");

  // The theme of the system, unless the reader chose one. A page opened from a file may have no storage.
  const stored = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("continual-theme");
      localStorage.setItem("continual-theme", value);
    } catch {}
    return null;
  };
  const theme = (choice) => {
    if (choice === "light" || choice === "dark") root.dataset.theme = choice;
    else delete root.dataset.theme;
    for (const button of document.querySelectorAll("[data-theme-choice]"))
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
  };
  theme(stored() ?? "auto");

  // Tooltips of charts. Line charts have their values as JSON; other charts have a text on each mark.
  const cache = new WeakMap();
  const visible = (chart) => [...chart.querySelectorAll("svg")].find((svg) => svg.getClientRects().length);
  const spots = (svg) => {
    if (cache.has(svg)) return cache.get(svg);
    const points = [];
    const script = svg.closest(".chart").querySelector("script");
    if (script) {
      const { left, right, top, bottom } = Object.fromEntries(
        Object.entries(svg.dataset).map(([name, value]) => [name, Number(value)]),
      );
      const values = JSON.parse(script.textContent);
      values.series.forEach((series, line) => {
        series.y.forEach((y, place) => {
          if (y === null) return;
          const text = `${series.name}, ${values.labels[place]}: ${series.text[place]}`;
          const spot = { x: left + values.x[place] * (right - left), y: bottom - y * (bottom - top), text, line, place };
          points.push(spot);
        });
      });
    } else {
      svg.querySelectorAll("[data-tip]").forEach((mark, place) => {
        const box = mark.getBBox();
        points.push({ x: box.x + box.width / 2, y: box.y, text: mark.dataset.tip, line: 0, place, mark });
      });
    }
    cache.set(svg, points);
    return points;
  };

  let shown = null;
  const hide = () => {
    if (!shown) return;
    shown.tip.remove();
    shown.chart.classList.remove("pointed");
    shown.chart.querySelectorAll(".on").forEach((mark) => mark.classList.remove("on"));
    shown = null;
  };
  const show = (chart, svg, spot, aloud) => {
    if (shown?.spot === spot) return;
    hide();
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.setAttribute("aria-hidden", "true");
    tip.textContent = spot.text;
    chart.append(tip);
    const half = tip.offsetWidth / 2;
    tip.style.left = `${Math.min(Math.max(spot.x * scale, half), chart.clientWidth - half)}px`;
    tip.style.top = `${spot.y * scale}px`;
    if (spot.mark) spot.mark.classList.add("on");
    else {
      chart.classList.add("pointed");
      svg.querySelector(`.l${spot.line}`)?.classList.add("on");
    }
    shown = { chart, spot, tip };
    if (aloud) spoken.textContent = spot.text;
  };

  document.addEventListener("pointermove", (event) => {
    const chart = event.target.closest?.(".chart");
    const svg = chart && visible(chart);
    if (!svg) return hide();
    const mark = event.target.closest("[data-tip]");
    if (mark) return show(chart, svg, spots(svg).find((spot) => spot.mark === mark) ?? spots(svg)[0], false);
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const [x, y] = [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
    const far = (spot) => (spot.x - x) ** 2 + (spot.y - y) ** 2;
    const near = spots(svg).filter((spot) => !spot.mark).reduce((a, b) => (a && far(a) <= far(b) ? a : b), null);
    if (near && far(near) < 40 ** 2) show(chart, svg, near, false);
    else hide();
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const chart = event.target.classList?.contains("chart") ? event.target : null;
    const svg = chart && visible(chart);
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!svg || !step) return;
    const all = spots(svg);
    if (!all.length) return;
    event.preventDefault();
    const at = shown?.chart === chart ? shown.spot : null;
    let next = all[0];
    if (at && all[0].mark) next = all[Math.min(Math.max(all.indexOf(at) + step[0] + step[1], 0), all.length - 1)];
    else if (at && step[0]) {
      const line = all.filter((spot) => spot.line === at.line);
      next = line[Math.min(Math.max(line.indexOf(at) + step[0], 0), line.length - 1)];
    } else if (at) {
      const lines = [...new Set(all.map((spot) => spot.line))];
      const line = lines[Math.min(Math.max(lines.indexOf(at.line) + step[1], 0), lines.length - 1)];
      const gap = (spot) => Math.abs(spot.place - at.place);
      next = all.filter((spot) => spot.line === line).reduce((a, b) => (gap(a) <= gap(b) ? a : b));
    }
    show(chart, svg, next, true);
  });

  // Downloads: the numbers as shown in the table, the drawing in the colours of the screen.
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const plain = (cell) => {
    const text = cell.textContent.trim().replaceAll("−", "-");
    if (text === "–") return "";
    const number = /^[+-]?[\d,]+(\.\d+)?$/.test(text) ? text.replace(/[+,]/g, "") : text;
    // A spreadsheet would run it as a formula; numbers and intervals stay. As in figures/cells.py.
    const shown = /^[=+\-@]/.test(number) && !/^[+-]?[\d.,]+( ?%| to [+-]?[\d.,]+)?$/.test(number) ? `'${number}` : number;
    return /[",\n]/.test(shown) ? `"${shown.replaceAll('"', '""')}"` : shown;
  };
  const asCsv = (table) => [...table.rows].map((row) => [...row.cells].map(plain).join(",")).join("\n") + "\n";
  const asSvg = (svg) => {
    const copy = svg.cloneNode(true);
    const [from, to] = [svg, copy].map((drawing) => [...drawing.querySelectorAll("*")]);
    from.forEach((element, place) => {
      for (const name of ["fill", "stroke"])
        if (element.getAttribute(name)?.startsWith("var(")) to[place].setAttribute(name, getComputedStyle(element)[name]);
    });
    const background = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const colour = getComputedStyle(svg.closest(".card") ?? document.body).backgroundColor;
    for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill: colour }))
      background.setAttribute(name, value);
    copy.prepend(background);
    return new XMLSerializer().serializeToString(copy);
  };
  document.addEventListener("click", (event) => {
    const choice = event.target.closest?.("[data-theme-choice]")?.dataset.themeChoice;
    if (choice) {
      stored(choice);
      theme(choice);
    }
    const format = event.target.closest?.("[data-save]")?.dataset.save;
    if (!format) return;
    const figure = event.target.closest("figure");
    const table = figure.querySelector("table");
    if (format === "csv") save(`${table.dataset.name}.csv`, "text/csv", asCsv(table));
    else save(`${table.dataset.name}.svg`, "image/svg+xml", asSvg(visible(figure)));
  });

  // Highlight the visible section in the navigation.
  const follow = () => {
    const sections = [...document.querySelectorAll("#content > section")];
    const passed = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
    const ended = innerHeight + scrollY >= document.body.scrollHeight - 4;
    const here = ended ? sections.at(-1) : (passed.at(-1) ?? sections[0]);
    for (const link of document.querySelectorAll("#sections a")) {
      if (here && link.hash === `#${here.id}`) link.setAttribute("aria-current", "location");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", follow, { passive: true });
  addEventListener("resize", follow, { passive: true });
  follow();

  // Print in the light theme with all details open, except long listings.
  const folded = [];
  addEventListener("beforeprint", () => {
    root.classList.add("paper");
    for (const details of document.querySelectorAll("details:not([open]):not(.long)")) {
      details.open = true;
      folded.push(details);
    }
  });
  addEventListener("afterprint", () => {
    root.classList.remove("paper");
    for (const details of folded.splice(0)) details.open = false;
  });
})();
