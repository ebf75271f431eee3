// Draws the interactive plots in the page's colours, again when those change; without it the static figures stand alone.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const traces = (data) => data.map((trace) => {
    const own = trace.meta[dark.matches ? "dark" : "light"];
    const painted = { ...trace };
    if (trace.line) painted.line = { ...trace.line, color: own };
    if (trace.marker) painted.marker = { ...trace.marker, color: own, line: { color: colour("--card"), width: 0.8 } };
    if (trace.fill) painted.fillcolor = own + "26";
    return painted;
  });

  const layout = (given) => {
    const axis = (own) => ({
      ...own, gridcolor: colour("--grid"), linecolor: colour("--line"), zeroline: false, automargin: true,
      title: { ...own.title, standoff: 8 },
    });
    const small = narrow.matches;
    return {
      ...given,
      xaxis: axis(given.xaxis),
      yaxis: axis(given.yaxis),
      legend: small
        ? { ...given.legend, orientation: "h", y: -0.2, yanchor: "top", x: 0, font: { size: 10 } }
        : { ...given.legend, y: 1, x: 1.01 },
      font: { family: "system-ui, sans-serif", size: small ? 11 : 12.5, color: colour("--ink") },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, dragmode: small ? false : "zoom",
      margin: small ? { l: 44, r: 10, t: 14, b: 40 } : { l: 60, r: 20, t: 24, b: 50 },
    };
  };

  const options = { responsive: true, displayModeBar: false };

  const draw = (place) => {
    const figure = JSON.parse(document.getElementById("plot-" + place.dataset.plot).textContent);
    place.hidden = false;
    return Plotly.react(place, traces(figure.data), layout(figure.layout), options).then(() => {
      place.dataset.drawn = dark.matches ? "dark" : "light";
    });
  };

  const places = [...document.querySelectorAll("[data-plot]")];
  const drawAll = () => places.forEach(draw);
  places.forEach((place) => draw(place).then(() => place.parentElement.querySelector("details")?.removeAttribute("open")));
  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
})();
