"use strict";
(() => {
  const root = document.documentElement;
  const data = [...document.querySelectorAll("script[type='application/json']")];
  const figures = new Map(data.map((one) => [one.id.replace(/-data$/, ""), JSON.parse(one.textContent)]));
  // In pixels: margins, the space between panels, the least width of a panel beside others.
  const LEFT = 66, RIGHT = 12, BOTTOM = 46, GAP = 18, NARROWEST = 210;
  // On paper, where a figure should fit on a page: the width, and the least width and the height of a panel.
  const PAPER = { width: 660, narrowest: 165, panel: 150 };

  const color = (role) => getComputedStyle(root).getPropertyValue("--" + role).trim();

  // Python says how many panels belong in a row at most; where there is less room, they stand below each other.
  function arrange(layout, width, isPaper) {
    const { shared, columns: most } = layout.meta, panels = layout.annotations;
    const gap = shared.includes("y") ? GAP : LEFT, room = width - LEFT - RIGHT;
    const narrowest = isPaper ? PAPER.narrowest : NARROWEST;
    let columns = Math.max(1, Math.min(most, Math.floor((room + gap) / (narrowest + gap))));
    const rows = Math.ceil(panels.length / columns);
    columns = most === layout.meta.columns && columns < most ? Math.ceil(panels.length / rows) : columns;
    const title = panels.some((panel) => panel.text.includes("<br>")) ? 54 : 38;
    const below = shared.includes("x") ? 0 : BOTTOM - 10;
    const panel = isPaper ? PAPER.panel : columns > 1 ? 240 : 190, row = panel + title + below, area = rows * row - below;
    const across = (room - gap * (columns - 1)) / columns;
    panels.forEach((heading, i) => {
      const column = i % columns, number = i ? i + 1 : "";
      const left = column * (across + gap) / room, top = 1 - (Math.floor(i / columns) * row + title) / area;
      const x = layout["xaxis" + number], y = layout["yaxis" + number];
      const hasX = !shared.includes("x") || i + columns >= panels.length, hasY = !shared.includes("y") || column === 0;
      Object.assign(x, { domain: [left, Math.min(1, left + across / room)], anchor: "y" + number, showticklabels: hasX });
      Object.assign(y, { domain: [Math.max(0, top - panel / area), top], anchor: "x" + number, showticklabels: hasY });
      x.title.font = { size: 12, color: hasX ? color("soft") : "transparent" };
      x.title.standoff = 4;
      y.title.font = { size: 12, color: hasY ? color("soft") : "transparent" };
      y.title.standoff = 6;
      Object.assign(heading, {
        x: left, y: top, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", yshift: 6, align: "left",
        showarrow: false, font: { size: 13, color: color("ink") },
      });
    });
    Object.assign(layout, { width, height: area + BOTTOM, margin: { l: LEFT, r: RIGHT, t: 0, b: BOTTOM, pad: 0 } });
  }

  function dress(data, layout) {
    for (const trace of data) {
      const own = color(trace.meta);
      if (trace.type === "bar") {
        trace.marker = { color: own, line: { width: 0 } };
      } else if (trace.fill) {
        Object.assign(trace, { fillcolor: own, line: { width: 0 } });
      } else {
        trace.line = { width: 2, ...trace.line, color: own };
        trace.marker = { ...trace.marker, color: own };
        if (String(trace.marker.symbol).endsWith("-open")) trace.marker.line = { width: 2, color: own };
      }
    }
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
      Object.assign(layout[key], {
        gridcolor: color("rule"), linecolor: color("rule"), zerolinecolor: color("rule"), fixedrange: true,
        showgrid: key[0] === "y", zeroline: key[0] === "y", showline: key[0] === "x", ticks: "", nticks: 6, tickangle: 0,
        tickfont: { size: 11, color: color("soft") },
        showspikes: key[0] === "x" && layout.hovermode === "x unified",
        spikecolor: color("soft"), spikethickness: 1, spikedash: "solid", spikemode: "across",
        unifiedhovertitle: { text: layout.meta.over + " %{x}" },
      });
    }
    Object.assign(layout, {
      paper_bgcolor: color("card"), plot_bgcolor: color("card"), dragmode: false,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("ink") },
      hoverlabel: {
        bgcolor: color("card"), bordercolor: color("rule"), font: { color: color("ink"), size: 12 }, namelength: -1,
      },
    });
  }

  function draw(isPaper) {
    for (const [name, figure] of figures) {
      const element = document.getElementById(name);
      const { data, layout } = structuredClone(figure);
      dress(data, layout);
      arrange(layout, isPaper ? PAPER.width : Math.floor(element.clientWidth), isPaper);
      Plotly.react(element, data, layout, { displayModeBar: false, responsive: false });
    }
  }

  // Numbers by their value, text by the alphabet; what is missing stays at the end.
  function sort(heading) {
    const table = heading.closest("table"), body = table.tBodies[0];
    const at = [...heading.parentElement.children].indexOf(heading);
    const isUp = heading.getAttribute("aria-sort") !== "ascending", sign = isUp ? 1 : -1;
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[at], isNumber = cell.dataset.value !== undefined;
      const text = isNumber ? cell.dataset.value : cell.textContent.trim();
      return { row, key: text === "" ? null : isNumber ? Number(text) : text };
    });
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return sign * (typeof a.key === "number" ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true }));
    });
    body.append(...keyed.map((one) => one.row));
    for (const other of heading.parentElement.children) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", isUp ? "ascending" : "descending");
  }

  async function copy(block) {
    const lines = block.querySelector("code"), status = block.querySelector("[role=status]");
    try {
      await navigator.clipboard.writeText(lines.textContent);
      status.textContent = "Copied.";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(lines);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      status.textContent = document.execCommand("copy") ? "Copied." : "Selected: copy it with the keyboard.";
    }
  }

  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }
  for (const button of document.querySelectorAll(".code button")) {
    button.addEventListener("click", () => copy(button.closest(".code")));
  }

  let width = root.clientWidth;
  draw(false);
  addEventListener("resize", () => {
    if (root.clientWidth !== width) { width = root.clientWidth; draw(false); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(false));
  addEventListener("beforeprint", () => { root.classList.add("paper"); draw(true); });
  addEventListener("afterprint", () => { root.classList.remove("paper"); draw(false); });
})();
