"use strict";
// Inflates plotly, draws every figure in the colours of the scheme, and draws anew when it changes.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const printing = window.matchMedia("print");

  function variable(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // Replaces "var(--name)" anywhere in a figure by what the variable holds now.
  function coloured(value) {
    if (typeof value === "string") {
      return value.replace(/var\((--[\w-]+)\)/g, (_, name) => variable(name));
    }
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, of]) => [key, coloured(of)]));
    }
    return value;
  }

  function axis(own) {
    return {
      automargin: true, gridcolor: variable("--grid"), linecolor: variable("--rule"),
      zerolinecolor: variable("--rule"), tickfont: { size: 12 }, ...own,
      title: { standoff: 10, font: { size: 13 }, ...(own && own.title) },
    };
  }

  function layout(own, height) {
    const base = coloured(own);
    return {
      ...base, height, autosize: true, paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 16, t: 36, b: 48 },
      font: { family: variable("--font"), size: 13, color: variable("--text") },
      hoverlabel: { bgcolor: variable("--surface"), bordercolor: variable("--rule"),
                    font: { color: variable("--text") }, namelength: -1 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
      hovermode: base.hovermode || "x", dragmode: "zoom",
      xaxis: axis(base.xaxis), yaxis: axis(base.yaxis),
    };
  }

  const config = {
    responsive: true, displayModeBar: "hover", displaylogo: false, showLink: false, scrollZoom: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines"],
  };

  function draw() {
    const drawn = [...document.querySelectorAll("script.figure")].map((script) => {
      const place = document.getElementById(script.dataset.for);
      const figure = JSON.parse(script.textContent);
      const height = Number(place.dataset.height);
      return window.Plotly.react(place, coloured(figure.data), layout(figure.layout, height), config);
    });
    return Promise.all(drawn);
  }

  async function inflate() {
    const packed = atob(document.getElementById("plotly-gzip").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  function say(error) {
    for (const place of document.querySelectorAll(".chart")) {
      place.style.height = "auto";
      place.textContent = `This chart could not be drawn (${error.message}); the tables are complete.`;
    }
    document.documentElement.dataset.charts = "failed";
  }

  // Print shows what is folded away, in light colours.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((each) => { each.open = true; });
  });
  window.addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));

  if (!("DecompressionStream" in window)) {
    say(new Error("this browser is too old: it cannot inflate the chart library"));
    return;
  }
  inflate().then(draw).then(() => {
    document.documentElement.dataset.charts = "drawn";
    dark.addEventListener("change", draw);
    printing.addEventListener("change", draw);
  }).catch(say);
})();
