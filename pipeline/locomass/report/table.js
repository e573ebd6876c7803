"use strict";
// The table of gene tests: sorted and filtered over typed arrays, fifty rows in the page at a time.
(() => {
  const { data, unpack, formatP, formatNumber, element, fillSelect, geneLink } = window.report;
  const table = data("table");
  if (!table) return;
  const PAGE = 50;
  const byId = (name) => document.getElementById(name);
  const labels = {};
  const column = {};
  for (const [name, content] of Object.entries(table.columns)) {
    labels[name] = content.labels;
    column[name] = unpack(content.codes || content);
  }
  const text = (name) => (i) => labels[name][column[name][i]];
  const number = (name) => (i) => formatNumber(column[name][i]);
  const ofGene = { start: unpack(table.start), place: unpack(table.place), chromosome: unpack(table.chromosome.codes) };
  const chromosomeOf = (gene) => table.chromosome.labels[ofGene.chromosome[gene]];
  const manyTraits = new Set(column.trait).size > 1;
  const manyStudies = column.n_studies.some((n) => n > 1);
  // heading, how a cell reads, how to get what it is sorted by
  const heads = [
    ["gene", (i) => geneLink(labels.gene[column.gene[i]]), rankOf("gene")],
    ["position", (i) => `${chromosomeOf(column.gene[i])}:${ofGene.start[column.gene[i]].toLocaleString("en")}`, valueOf("place")],
    ...(manyTraits ? [["trait", text("trait"), rankOf("trait")]] : []),
    ["test", text("test"), rankOf("test")],
    ["mask", text("mask"), rankOf("mask")],
    ["max. MAF", (i) => String(table.bins[column.bin[i]]), () => column.bin],
    ...(manyStudies ? [["studies", number("n_studies"), () => column.n_studies]] : []),
    ["variants", number("n_variants"), () => column.n_variants],
    ["allele count", number("mac"), () => column.mac],
    ["beta", number("beta"), () => column.beta],
    ["SE", number("se"), () => column.se],
    ["p", withError, () => column.log10p.map((v) => -v)],
    ["note", text("note"), rankOf("note")],
  ];
  const TEXT = new Set(["gene", "position", "trait", "test", "mask", "note"]);
  const state = { sort: heads.findIndex(([name]) => name === "p"), descending: false, page: 0, rows: [] };

  // p, and below it the Monte Carlo error where that is half a per cent or more
  function withError(i) {
    const p = formatP(column.log10p[i]), percent = column.p_error[i];
    return percent ? element("div", {}, p, element("small", {}, percent < 255 ? `± ${percent} %` : "± over 250 %")) : p;
  }

  // a text column sorts by the alphabetical rank of its labels, numbers in names by value; made when it is first wanted
  function rankOf(name) {
    return () => {
      const compare = new Intl.Collator("en", { numeric: true }).compare;
      const order = labels[name].map((_, code) => code).sort((a, b) => compare(labels[name][a], labels[name][b]));
      const rank = new Float64Array(order.length);
      order.forEach((code, k) => { rank[code] = k; });
      return Float64Array.from(column[name], (code) => rank[code]);
    };
  }

  function valueOf(name) {
    return () => Float64Array.from(column.gene, (gene) => ofGene[name][gene]);
  }

  const sortKeys = new Map();
  function sortKey(k) {
    if (!sortKeys.has(k)) sortKeys.set(k, heads[k][2]());
    return sortKeys.get(k);
  }

  function matches(name, wanted) {
    return Uint8Array.from(labels[name], (label) => label.toLowerCase().includes(wanted));
  }

  function filterRows() {
    const wanted = byId("find").value.trim().toLowerCase();
    const found = wanted ? ["gene", "trait", "mask", "test", "note"].map((name) => [column[name], matches(name, wanted)]) : null;
    const exact = ["trait", "test", "mask"].map((name) => [column[name], byId("filter-" + name).value])
      .filter(([, value]) => value !== "").map(([codes, value]) => [codes, Number(value)]);
    const limit = Number(byId("filter-p").value.trim() || NaN);
    const least = limit > 0 ? -Math.log10(limit) : null;
    const rows = [];
    for (let i = 0; i < table.n; i++) {
      if (least !== null && !(column.log10p[i] >= least)) continue;
      if (exact.some(([codes, value]) => codes[i] !== value)) continue;
      if (found && !found.some(([codes, hit]) => hit[codes[i]])) continue;
      rows.push(i);
    }
    state.rows = rows;
  }

  function sortRows() {
    if (heads[state.sort][0] === "p" && !state.descending) return; // rows come by p
    const values = sortKey(state.sort);
    const turn = state.descending ? -1 : 1;
    state.rows.sort((a, b) => {
      const x = values[a], y = values[b];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b; // missing last
      return turn * (x - y) || a - b;
    });
  }

  function drawHead() {
    const cells = heads.map(([name], k) => {
      const sorted = k === state.sort ? (state.descending ? "descending" : "ascending") : "none";
      const button = element("button", { type: "button" }, name);
      button.addEventListener("click", () => sortBy(k));
      return element("th", { scope: "col", "aria-sort": sorted, class: TEXT.has(name) ? "" : "number" }, button);
    });
    byId("genes").tHead.replaceChildren(element("tr", {}, ...cells));
  }

  function drawRows() {
    const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const shown = state.rows.slice(state.page * PAGE, (state.page + 1) * PAGE);
    byId("genes").tBodies[0].replaceChildren(...shown.map((i) => element("tr", {},
      ...heads.map(([name, cell]) => element("td", { class: TEXT.has(name) ? "" : "number" }, cell(i))))));
    byId("page-number").textContent = `page ${state.page + 1} of ${pages.toLocaleString("en")}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page >= pages - 1;
    const rest = table.total > table.n
      ? ` This page holds the ${table.n.toLocaleString("en")} rows with the smallest p-values (p ≤ ` +
        `${formatP(column.log10p[table.n - 1])}) of ${table.total.toLocaleString("en")}; all are in gene_tests.tsv.gz.` : "";
    byId("table-note").textContent = `${state.rows.length.toLocaleString("en")} rows.${rest}`;
  }

  function sortBy(k) {
    filterRows();
    state.descending = state.sort === k ? !state.descending : false;
    state.sort = k;
    state.page = 0;
    sortRows();
    drawHead();
    drawRows();
    byId("genes").tHead.querySelectorAll("button")[k].focus();
  }

  function refresh() {
    state.page = 0;
    filterRows();
    sortRows();
    drawRows();
  }

  function turn(step) {
    state.page += step;
    drawRows();
  }

  for (const name of ["trait", "test", "mask"]) {
    const used = [...new Set(column[name])].sort((a, b) => a - b);
    fillSelect(byId("filter-" + name), [["", "all"], ...used.map((code) => [String(code), labels[name][code]])]);
  }
  byId("filter-trait").parentElement.hidden = !manyTraits;
  byId("table-controls").addEventListener("input", refresh);
  byId("table-controls").addEventListener("reset", () => setTimeout(refresh));
  byId("table-controls").addEventListener("submit", (event) => event.preventDefault());
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  // the rows of one gene, as columns of codes and numbers; null where there is none
  window.report.testsOfGene = (name) => {
    const gene = labels.gene.indexOf(name);
    const rows = [];
    for (let i = 0; i < table.n; i++) if (column.gene[i] === gene) rows.push(i);
    if (gene < 0 || !rows.length) return null;
    const names = ["trait", "test", "mask", "note", "bin", "log10p", "beta", "se", "n_variants", "mac"];
    return { chromosome: chromosomeOf(gene), start: ofGene.start[gene],
      columns: Object.fromEntries(names.map((c) => [c, rows.map((i) => column[c][i])])) };
  };
  drawHead();
  refresh();
})();
