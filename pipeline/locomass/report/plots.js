"use strict";
// Fills the two Bokeh plots with the series that the reader chooses.
(() => {
  const { data, unpack, formatP, element, fillSelect } = window.report;
  if (!data("plots")) return;
  const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a7f87", "#1b1f24"];
  const BY_CHROMOSOME = ["#0072b2", "#56b4e9"];
  const ALL = "all";
  const plots = data("plots");
  const column = Object.fromEntries(["gene", "trait", "rank", "log10p"].map((name) => [name, unpack(plots[name])]));
  const geneX = unpack(plots.gene_x);
  const geneChromosome = unpack(plots.gene_chromosome);
  const models = new Map();
  const control = (name) => document.getElementById("plot-" + name);

  // where each series starts in the columns
  const series = [];
  let at = 0;
  for (const [trait, test, mask, bin, n, k, lambda] of plots.series) {
    series.push({ trait, test, mask, bin, n, from: at, to: at + k, lambda });
    at += k;
  }

  function fillControls() {
    const numbered = (names) => names.map((name, i) => [String(i), name]);
    fillSelect(control("trait"), numbered(plots.traits));
    fillSelect(control("test"), plots.test_order.map((code) => [String(code), plots.tests[code]]));
    const masks = [...new Set(series.map((s) => s.mask))].sort((a, b) => a - b);
    fillSelect(control("mask"), [[ALL, "all"], ...masks.map((m) => [String(m), plots.masks[m]])]);
    fillSelect(control("bin"), [[ALL, "all"], ...plots.bins.map((b, i) => [String(i), "≤ " + b])]);
    const trait = series.length ? series[0].trait : 0;
    control("trait").value = String(trait);
  }

  function selected() {
    const wanted = Object.fromEntries(["trait", "test", "mask", "bin"].map((name) => [name, control(name).value]));
    return series.filter((s) =>
      ["trait", "test", "mask", "bin"].every((name) => wanted[name] === ALL || Number(wanted[name]) === s[name]));
  }

  const rowName = (s) => `${plots.masks[s.mask]}, ≤ ${plots.bins[s.bin]}`;

  function columnsOf(chosen) {
    const shared = { gene: [], trait: [], row: [], p: [], size: [], y: [] };
    const manhattan = { x: [], color: [] };
    const qq = { x: [], color: [] };
    chosen.forEach((s, k) => {
      const color = PALETTE[k % PALETTE.length];
      const row = rowName(s);
      for (let i = s.from; i < s.to; i++) {
        const y = column.log10p[i];
        shared.gene.push(plots.genes[column.gene[i]]);
        shared.trait.push(plots.row_traits[column.trait[i]]);
        shared.row.push(row);
        shared.p.push(formatP(y));
        shared.size.push(y > 3 ? 7 : 4.5);
        shared.y.push(y);
        manhattan.x.push(geneX[column.gene[i]]);
        manhattan.color.push(BY_CHROMOSOME[geneChromosome[column.gene[i]] % 2]);
        qq.x.push(-Math.log10((column.rank[i] - 0.5) / s.n));
        qq.color.push(color);
      }
    });
    return [{ ...shared, ...manhattan }, { ...shared, ...qq }];
  }

  function setRange(range, end) {
    range.setv({ start: 0, end, reset_start: 0, reset_end: end });
  }

  function draw() {
    const chosen = selected();
    const total = chosen.reduce((sum, s) => sum + s.n, 0);
    const [manhattan, qq] = columnsOf(chosen);
    const line = total ? Math.log10(total / 0.05) : 0;
    const high = manhattan.y.reduce((a, b) => Math.max(a, b), 0);
    models.get("manhattan-source").data = manhattan;
    models.get("qq-source").data = qq;
    models.get("manhattan-line").location = line;
    setRange(models.get("manhattan-range"), Math.max(high * 1.06, line * 1.15, 1));
    setRange(models.get("qq-y"), Math.max(high * 1.06, 1));
    setRange(models.get("qq-x"), Math.max(qq.x.reduce((a, b) => Math.max(a, b), 0) * 1.04, 1));
    const [x, low, up] = total ? plots.bands[Math.max(...chosen.map((s) => s.n))] : [[], [], []];
    models.get("qq-band").data = { x, low, high: up };
    describe(chosen, total);
  }

  function describe(chosen, total) {
    const shown = chosen.reduce((sum, s) => sum + s.to - s.from, 0);
    control("note").textContent = total
      ? `${total.toLocaleString("en")} p-values, ${shown.toLocaleString("en")} points drawn.`
      : "No p-value for this choice.";
    control("legend").replaceChildren(...chosen.map((s, k) => element("li", {},
      element("i", { style: `background:${PALETTE[k % PALETTE.length]}` }),
      `${rowName(s)}: λ = ${s.lambda === null ? "–" : s.lambda.toFixed(3)} (${s.n.toLocaleString("en")} genes)`)));
  }

  async function start() {
    fillControls();
    await Promise.all(data("items").map((item) => Bokeh.embed.embed_item(item)));
    for (const doc of Bokeh.documents) {
      for (const name of ["manhattan-source", "manhattan-range", "manhattan-line", "qq-source", "qq-x", "qq-y", "qq-band"]) {
        const model = doc.get_model_by_name(name);
        if (model) models.set(name, model);
      }
    }
    document.getElementById("plot-controls").addEventListener("change", draw);
    draw();
    document.body.dataset.milliseconds = String(Math.round(performance.now()));
    document.body.dataset.plots = "ready";
  }

  start();
})();
