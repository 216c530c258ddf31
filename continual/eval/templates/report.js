// Draws the charts, in the colours that the style sheet gives them, again whenever those change.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const options = { displayModeBar: false, responsive: true };

  // Colours are names of CSS variables. Only keys that end in "color" are looked at, so a name is never taken for one.
  const paint = (value, key, style) => {
    if (Array.isArray(value)) return value.map((each) => paint(each, key, style));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, paint(each, name, style)]));
    const colour = typeof value === "string" && key.endsWith("color") && value.startsWith("--");
    return colour ? style.getPropertyValue(value).trim() : value;
  };

  const draw = (paper = false) => {
    const style = getComputedStyle(document.documentElement);
    for (const [name, figure] of Object.entries(figures)) {
      const place = document.getElementById("chart-" + name);
      if (!place) continue;
      const { data, layout } = paint(figure, "", style);
      // Plotly follows a changed width only after a while, and the printer does not wait.
      if (paper) layout.width = place.clientWidth;
      Plotly.react(place, data, layout, options);
    }
  };

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  // On paper everything is light and nothing is folded away.
  const folded = [];
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("paper");
    for (const each of document.querySelectorAll("details:not([open]):not(.long)")) {
      each.open = true;
      folded.push(each);
    }
    draw(true);
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("paper");
    for (const each of folded.splice(0)) each.open = false;
    draw();
  });
})();
