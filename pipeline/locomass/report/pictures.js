"use strict";
// The drawings of a gene's page: the forest of its burden, and Z of its variants by position.
window.report.pictures = (() => {
  const { formatNumber, element } = window.report;
  const svg = (tag, attributes, ...children) => element("svg:" + tag, attributes, ...children);
  const BLUE = "#0072b2", ORANGE = "#d55e00", GREY = "#7a7f87", INK = "#1b1f24";

  function forest(burden) {
    const lines = burden.lines;
    const line = 24, left = 190, width = 420, height = lines.length * line + 46;
    const ends = lines.flatMap(([, ...values]) => [...values.slice(0, 3), 0]).filter(Number.isFinite);
    const low = Math.min(...ends), high = Math.max(...ends);
    const x = (v) => left + ((v - low) / (high - low || 1)) * width;
    const end = (v, otherwise) => x(Number.isFinite(v) ? v : otherwise); // an interval without a bound goes to the edge
    const picture = svg("svg", { class: "chart", role: "img", width: left + width + 190, height,
      viewBox: `0 0 ${left + width + 190} ${height}` }, svg("title", {}, "Forest plot of the burden"));
    picture.append(svg("line", { x1: x(0), x2: x(0), y1: 6, y2: height - 36, stroke: GREY, "stroke-dasharray": "4 3" }));
    lines.forEach(([name, beta, lower, upper, n], k) => {
      const y = 18 + k * line, pooled = k === lines.length - 1 && lines.length > 1;
      const a = end(lower, low), b = end(upper, high), known = Number.isFinite(beta), mid = known ? x(beta) : (a + b) / 2;
      picture.append(svg("text", { x: 0, y: y + 4 }, `${pooled ? "all studies" : name}, ${n} variants`));
      if (pooled) {
        picture.append(svg("polygon", { points: `${a},${y} ${mid},${y - 7} ${b},${y} ${mid},${y + 7}`, fill: ORANGE }));
      } else {
        picture.append(svg("line", { x1: a, x2: b, y1: y, y2: y, stroke: INK }),
          ...(known ? [svg("rect", { x: mid - 4, y: y - 4, width: 8, height: 8, fill: BLUE })] : []));
      }
      picture.append(svg("text", { x: left + width + 14, y: y + 4 }, `${formatNumber(beta)} (${formatNumber(lower)} to ${formatNumber(upper)})`));
    });
    const power = 10 ** Math.floor(Math.log10(high - low || 1));
    const step = [0.1, 0.2, 0.5, 1, 2].map((m) => m * power).find((s) => (high - low) / s <= 6);
    for (let k = Math.ceil(low / step); k * step <= high; k++) {
      picture.append(svg("text", { x: x(k * step), y: height - 20, "text-anchor": "middle" }, Number((k * step).toPrecision(6))));
    }
    picture.append(svg("text", { x: left + width / 2, y: height - 4, "text-anchor": "middle" }, "effect per counted allele (95 % interval)"));
    return picture;
  }

  function stems(variants, z, inside) {
    const width = 900, height = 150, left = 40;
    const first = Math.min(...variants), span = Math.max(...variants) - first || 1;
    const reach = Math.max(2.5, ...z.map(Math.abs).filter(Number.isFinite)) * 1.08;
    const x = (v) => left + ((v - first) / span) * (width - left - 10);
    const y = (v) => height / 2 - (v / reach) * (height / 2 - 6);
    const picture = svg("svg", { class: "chart", role: "img", width, height: height + 30, viewBox: `0 0 ${width} ${height + 30}` },
      svg("title", {}, "Z of every variant by position"));
    const step = [2, 5, 10, 20, 50].find((s) => reach / s < 4) || 100;
    const top = Math.floor(reach / step) * step;
    for (let v = -top; v <= top; v += step) {
      picture.append(svg("line", { x1: left, x2: width, y1: y(v), y2: y(v), stroke: v ? "#d5d9de" : GREY }),
        svg("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, v));
    }
    variants.forEach((position, k) => {
      if (!Number.isFinite(z[k])) return;
      picture.append(svg("line", { x1: x(position), x2: x(position), y1: y(0), y2: y(z[k]), stroke: "#9aa1aa" }),
        svg("circle", { cx: x(position), cy: y(z[k]), r: 3.5, stroke: Math.abs(z[k]) > 3 ? ORANGE : BLUE,
          fill: inside && !inside[k] ? "#fff" : Math.abs(z[k]) > 3 ? ORANGE : BLUE }));
    });
    picture.append(svg("text", { x: left, y: height + 20 }, first.toLocaleString("en")),
      svg("text", { x: width - 10, y: height + 20, "text-anchor": "end" }, (first + span).toLocaleString("en")),
      svg("text", { x: width / 2, y: height + 20, "text-anchor": "middle" }, "Z by position"));
    return picture;
  }

  return { forest, stems };
})();
