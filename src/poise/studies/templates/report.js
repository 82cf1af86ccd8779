"use strict";
(() => {
  const root = document.documentElement;
  const names = ["losses", "forces", "weights"];
  const figures = new Map(names.map((name) => [name, JSON.parse(document.getElementById(name + "-data").textContent)]));
  // In pixels: margins, the space between panels, the least width of a panel beside others, the width on paper.
  const LEFT = 70, RIGHT = 12, BOTTOM = 46, GAP = 18, NARROWEST = 180, PAPER = 660;

  const colour = (role) => getComputedStyle(root).getPropertyValue("--" + role).trim();

  // Python says how many panels belong in a row; where there is no room for that, they stand below each other.
  function arrange(layout, width) {
    const panels = layout.annotations, room = width - LEFT - RIGHT;
    let columns = layout.meta.columns;
    while (columns > 1 && (layout.meta.columns % columns || room / columns < NARROWEST)) columns -= 1;
    const title = panels.some((panel) => panel.text.includes("<br>")) ? 54 : 38;
    const panel = columns > 1 ? 240 : 190, rows = Math.ceil(panels.length / columns), area = rows * (panel + title);
    const across = (room - GAP * (columns - 1)) / columns;
    panels.forEach((heading, i) => {
      const column = i % columns, row = Math.floor(i / columns), number = i ? i + 1 : "";
      const left = column * (across + GAP) / room, top = 1 - (row * (panel + title) + title) / area;
      const x = layout["xaxis" + number], y = layout["yaxis" + number];
      const isLast = i + columns >= panels.length, isFirst = column === 0;
      Object.assign(x, { domain: [left, left + across / room], anchor: "y" + number, showticklabels: isLast });
      Object.assign(y, { domain: [Math.max(0, top - panel / area), top], anchor: "x" + number, showticklabels: isFirst });
      x.title.font = { size: 12, color: isLast ? colour("soft") : "transparent" };
      y.title.font = { size: 12, color: isFirst ? colour("soft") : "transparent" };
      y.title.standoff = 6;
      Object.assign(heading, {
        x: left, y: top, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", yshift: 6, align: "left",
        showarrow: false, font: { size: 13, color: colour("ink") },
      });
    });
    Object.assign(layout, { width, height: area + BOTTOM, margin: { l: LEFT, r: RIGHT, t: 0, b: BOTTOM, pad: 0 } });
  }

  function dress(data, layout) {
    for (const trace of data) {
      if (trace.type === "bar") {
        trace.marker = { color: colour(trace.meta), line: { width: 0 } };
      } else {
        trace.line = { ...trace.line, color: colour(trace.meta), width: 2 };
        trace.marker = { ...trace.marker, color: colour(trace.meta) };
      }
    }
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
      Object.assign(layout[key], {
        gridcolor: colour("rule"), linecolor: colour("rule"), zerolinecolor: colour("rule"), fixedrange: true,
        showgrid: key[0] === "y", zeroline: key[0] === "y", showline: key[0] === "x", ticks: "", nticks: 6,
        tickfont: { size: 11, color: colour("soft") },
        showspikes: key[0] === "x" && layout.hovermode === "x unified",
        spikecolor: colour("soft"), spikethickness: 1, spikedash: "solid", spikemode: "across",
        unifiedhovertitle: { text: "epoch %{x}" },
      });
    }
    Object.assign(layout, {
      paper_bgcolor: colour("card"), plot_bgcolor: colour("card"), dragmode: false,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("rule"), font: { color: colour("ink"), size: 12 } },
    });
  }

  function draw(paper) {
    for (const [name, figure] of figures) {
      const element = document.getElementById(name);
      const { data, layout } = structuredClone(figure);
      dress(data, layout);
      arrange(layout, paper ? PAPER : Math.floor(element.clientWidth));
      Plotly.react(element, data, layout, { displayModeBar: false, responsive: false });
    }
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
