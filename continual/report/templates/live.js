// Poll the progress of the running update, and reload the report when it has changed.
"use strict";
(() => {
  const INTERVAL_MS = 2000;
  const get = (id) => document.getElementById(id);
  const content = get("content");

  const spell = (seconds) => {
    if (seconds < 90) return `${Math.round(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };

  const connection = (text, stale) => {
    const place = get("connection");
    if (place.textContent !== text) place.textContent = text;
    place.classList.toggle("stale", stale);
  };

  const curve = (losses) => {
    get("live-loss").hidden = losses.length < 2;
    if (losses.length < 2) return;
    const [steps, values] = [0, 1].map((place) => losses.map((pair) => pair[place]));
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const x = (step) => 2 + (216 * (step - steps[0])) / Math.max(1, steps.at(-1) - steps[0]);
    const y = (value) => 40 - (36 * (value - low)) / Math.max(1e-9, high - low);
    const path = losses.map(([step, value], place) => `${place ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
    document.querySelector("#live-loss path").setAttribute("d", path.join(""));
    get("live-loss-text").textContent = `loss ${values.at(-1).toFixed(3)} at step ${steps.at(-1).toLocaleString("en")}`;
  };

  const show = (run) => {
    const place = get("live");
    place.hidden = !run;
    if (!run) return;
    const running = run.state === "running";
    place.classList.toggle("paused", !running);
    const learning = run.learning.length ? `: learning ${run.learning.join(", ")}` : "";
    get("live-title").textContent = running
      ? `The update to ${run.version} is running${learning}`
      : `The update to ${run.version} was interrupted`;
    const bar = get("live-bar");
    if (run.total) bar.value = Math.min(1, run.done / run.total);
    else bar.removeAttribute("value");
    const count = (number) => number.toLocaleString("en");
    const parts = [run.label || "starting"];
    if (run.total) parts.push(`${count(run.done)} of ${count(run.total)} ${run.unit}`);
    if (running && run.rate) parts.push(`${run.rate >= 10 ? count(Math.round(run.rate)) : run.rate.toFixed(1)} ${run.unit}/s`);
    get("live-text").textContent = running ? parts.join(" · ") : `${parts.join(" · ")}. Continue it with: continual update --resume`;
    get("live-left").textContent = running && run.left !== null ? `about ${spell(run.left)} left in this part` : "";
    [...get("live-parts").children].forEach((item, number) => {
      item.classList.toggle("done", number + 1 < run.part);
      if (number + 1 === run.part) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
    curve(run.losses);
  };

  const refresh = async (revision) => {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const open = [...content.querySelectorAll("details[open]")].map((item) => [...content.querySelectorAll("details")].indexOf(item));
    const at = document.activeElement?.closest?.("#content") ? document.activeElement.closest("section")?.id : null;
    content.replaceChildren(...next.getElementById("content").childNodes);
    get("sections").replaceChildren(...next.getElementById("sections").childNodes);
    document.title = next.title;
    const details = [...content.querySelectorAll("details")];
    for (const place of open) if (details[place]) details[place].open = true;
    if (at) get(at)?.setAttribute("tabindex", "-1"), get(at)?.focus({ preventScroll: true });
    content.dataset.revision = revision;
    get("spoken").textContent = document.querySelector("h1").textContent;
    dispatchEvent(new Event("scroll"));
  };

  const ask = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch("/live", { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const state = await answer.json();
      connection(state.stale ? "catalog busy, showing the last state" : `live, ${new Date().toLocaleTimeString()}`, state.stale);
      show(state.run);
      if (state.revision !== content.dataset.revision) await refresh(state.revision);
    } catch {
      connection("no connection", true);
    }
  };

  const poll = async () => {
    await ask();
    setTimeout(poll, INTERVAL_MS);
  };
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  poll();
})();
