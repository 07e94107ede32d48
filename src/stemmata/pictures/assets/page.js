// Draws the page's charts from the JSON beside it. Names that people chose become text here, never markup.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const night = matchMedia("(prefers-color-scheme: dark)");
  let paper = null; // while the page is printed it is day
  const drawn = [];

  const stripped = (shown) => (shown.includes(".") ? shown.replace(/0+$/, "").replace(/\.$/, "") : shown);
  const number = (value) => {
    if (!Number.isFinite(value)) return String(value);
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-3) {
      const [mantissa, exponent] = value.toExponential(2).split("e");
      return `${stripped(mantissa)}e${Number(exponent)}`;
    }
    return stripped(value.toFixed(Math.max(0, 3 - Math.floor(Math.log10(size)))));
  };
  const share = (value) => {
    if (value >= 9.995) return `${Number(value.toPrecision(3))}-fold`;
    const percent = 100 * value;
    if (percent === 0) return "0 %";
    if (percent >= 99.5) return `${percent.toFixed(0)} %`;
    if (percent < 0.0001) return `${percent.toExponential(1)} %`;
    return `${percent.toFixed(Math.max(0, 1 - Math.floor(Math.log10(percent) + 1e-9)))} %`;
  };

  const tip = (params) => {
    const facts = params.data && params.data.tip;
    if (!facts) return "";
    const box = document.createElement("div");
    box.className = "tip";
    const head = box.appendChild(document.createElement("b"));
    head.textContent = facts[0][0];
    const list = box.appendChild(document.createElement("dl"));
    for (const [name, value] of facts.slice(1)) {
      list.appendChild(document.createElement("dt")).textContent = name;
      list.appendChild(document.createElement("dd")).textContent = value;
    }
    return box;
  };
  const clipped = (text, most) => {
    if (text.length <= most) return text;
    const tail = Math.floor(((most - 1) * 3) / 5);
    return `${text.slice(0, most - 1 - tail)}…${text.slice(text.length - tail)}`;
  };
  const words = {
    tip,
    number: (value) => number(Number(value)),
    tenth: (value) => Number(value).toFixed(1),
    share: (value) => share(Number(value)),
    "log-share": (value) => share(10 ** Number(value)),
    "log-number": (value) => number(10 ** Number(value)),
    called: (params) => (params.data && params.data.called) || "",
    series: (params) => clipped(params.seriesName, 22),
    nothing: () => "",
  };

  // What JSON cannot say stands in it as an object with one key.
  const filled = (value, scheme) => {
    if (Array.isArray(value)) return value.map((each) => filled(each, scheme));
    if (value === null || typeof value !== "object") return value;
    const keys = Object.keys(value);
    if (keys.length === 1 && keys[0][0] === "$") {
      const what = value[keys[0]];
      if (keys[0] === "$tone") return scheme.tones[what];
      if (keys[0] === "$words") return words[what];
      const place = Math.round(what * (scheme.ramp.length - 1));
      if (keys[0] === "$ramp") return scheme.ramp[place];
      if (keys[0] === "$on") return scheme.on[place];
    }
    return Object.fromEntries(keys.map((key) => [key, filled(value[key], scheme)]));
  };

  const scheme = () => data.schemes[(paper ?? (night.matches ? "night" : "day"))];
  const fit = (place) => {
    const width = place.clientWidth;
    const [, height] = JSON.parse(place.dataset.heights).filter(([least]) => least <= width).pop();
    place.style.height = `${height}px`;
  };
  const draw = () => {
    const now = scheme();
    data.charts.forEach((option, at) => {
      const place = document.getElementById(`chart-${at}`);
      if (drawn[at]) drawn[at].dispose();
      fit(place);
      const chart = echarts.init(place, null, { renderer: "svg" });
      chart.setOption(filled(option, now));
      drawn[at] = chart;
    });
    document.documentElement.dataset.drawn = String(data.charts.length);
  };

  draw();
  night.addEventListener("change", () => draw());
  addEventListener("beforeprint", () => { paper = "day"; draw(); });
  addEventListener("afterprint", () => { paper = null; draw(); });
  const watch = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const chart = echarts.getInstanceByDom(entry.target);
      if (!chart || chart.getWidth() === Math.floor(entry.contentRect.width)) continue;
      fit(entry.target);
      chart.resize();
    }
  });
  document.querySelectorAll(".chart").forEach((place) => watch.observe(place));
})();
