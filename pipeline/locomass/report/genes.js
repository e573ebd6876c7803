"use strict";
// Gene pages, opened by #gene/NAME: tests, forest across studies, variants with masks, drivers, searches, conditional tests, masks.
(() => {
  const { data, unpack, formatP, formatNumber, element, fillSelect } = window.report;
  const page = document.getElementById("gene-page");
  const main = document.getElementById("main");
  const { forest, stems } = window.report.pictures;
  let offset = 0;

  // the weights of a test stand below its name
  function splitHead(text) {
    const at = text.indexOf(" (");
    return at > 0 && text.endsWith(")") ? [text.slice(0, at), element("small", {}, text.slice(at + 2, -1))] : [text];
  }

  function tableOf(caption, heads, rows, numeric) {
    const kind = (k) => (numeric.has(k) ? { class: "number" } : {});
    const head = element("tr", {}, ...heads.map((h, k) => element("th", { scope: "col", ...kind(k) }, ...splitHead(h))));
    const body = rows.map((row) => element("tr", {}, ...row.map((cell, k) => element("td", kind(k), cell))));
    return element("div", { class: "scroll" }, element("table", {}, element("caption", {}, caption),
      element("thead", {}, head), element("tbody", {}, ...body)));
  }

  // rows of the gene's tests: from its page, or from the table of all genes
  function testsTable(t, trait) {
    const { tests, test_order: order, masks, bins, notes, traits } = data("genes-shared");
    const rows = new Map();
    for (let i = 0; i < t.trait.length; i++) {
      if (traits[t.trait[i]] !== trait) continue;
      const key = `${t.mask[i]}/${t.bin[i]}`;
      if (!rows.has(key)) rows.set(key, { first: i, cells: new Map() });
      rows.get(key).cells.set(t.test[i], i);
    }
    const used = order.filter((code) => [...rows.values()].some((row) => row.cells.has(code)));
    const cell = (i) => {
      if (i === undefined) return "";
      const value = element("span", t.log10p[i] > 3 ? { class: "strong" } : {}, formatP(t.log10p[i]));
      const parts = [value];
      if (Number.isFinite(t.beta[i])) parts.push(element("small", {}, `${formatNumber(t.beta[i])} ± ${formatNumber(t.se[i])}`));
      if (!Number.isFinite(t.log10p[i]) && notes[t.note[i]]) parts.push(element("small", {}, notes[t.note[i]]));
      return element("div", {}, ...parts);
    };
    const lines = [...rows.values()].map(({ first, cells }) => [masks[t.mask[first]], "≤ " + bins[t.bin[first]],
      formatNumber(t.n_variants[first]), formatNumber(t.mac[first]), ...used.map((code) => cell(cells.get(code)))]);
    const heads = ["mask", "max. MAF", "variants", "allele count", ...used.map((code) => tests[code])];
    return tableOf("p-values; below them beta ± SE of the burden, where the test has one", heads, lines,
      new Set(heads.map((_, k) => k).slice(1)));
  }

  function variantsTable(gene, k, burden) {
    const v = unpackAll(gene.by_trait[k]);
    const members = burden ? new Set(unpack(burden.variant)) : null;
    const without = new Map();
    if (burden) {
      const values = unpack(burden.without);
      unpack(burden.variant).forEach((place, i) => without.set(place, values[i]));
    }
    const annotated = gene.masks.length > 0;
    const heads = ["position", "ref", "alt", ...(annotated ? ["category", "masks"] : []), "samples", "ALT count", "ALT frequency",
      "U", "Z", "beta", "SE", "p", ...(burden ? ["p without it (of the burden above)"] : [])];
    const z = Array.from(v.U, (u, i) => u / Math.sqrt(v.V[i]));
    const rows = Array.from(v.variant, (place, i) => [gene.position[place].toLocaleString("en"), gene.ref[place], gene.alt[place],
      ...(annotated ? [gene.category[place], gene.masks[place]] : []),
      formatNumber(v.n_samples[i]), formatNumber(v.alt_count[i]), formatNumber(v.alt_frequency[i]), formatNumber(v.U[i]),
      formatNumber(z[i]), formatNumber(v.U[i] / v.V[i]), formatNumber(1 / Math.sqrt(v.V[i])),
      element("span", v.log10p[i] > 3 ? { class: "strong" } : {}, formatP(v.log10p[i])),
      ...(burden ? [without.has(place) ? formatP(without.get(place)) : "not in it"] : [])]);
    const caption = gene.n_variants > rows.length
      ? `${rows.length} of ${gene.n_variants} variants: polymorphic, smallest p-values` : `${rows.length} variants`;
    const words = new Set(["ref", "alt", "category", "masks"]);
    const numeric = new Set(heads.map((_, j) => j).filter((j) => !words.has(heads[j])));
    const inside = members ? Array.from(v.variant, (place) => members.has(place)) : null;
    const picture = rows.length ? [stems(Array.from(v.variant, (place) => gene.position[place]), z, inside)] : [];
    const legend = inside && inside.some((x) => !x)
      ? [element("p", { class: "note" }, "Filled: in the burden above. Hollow: not in its mask, or too frequent.")] : [];
    return [...picture, ...legend, tableOf(caption, heads, rows, numeric)];
  }

  const burdenName = (b) => `${b.mask || "all variants"}, max. MAF ≤ ${b.bound}`;

  function burdenPart(gene, k, redraw) {
    const mine = gene.burdens.filter((b) => b.trait === k);
    if (!mine.length) return [null, []];
    const chosen = mine.find((b) => burdenName(b) === redraw.burden) || mine[0];
    const select = element("select", { id: "gene-burden" });
    fillSelect(select, mine.map((b) => [burdenName(b), burdenName(b)]), burdenName(chosen));
    select.addEventListener("change", () => redraw({ burden: select.value }));
    const q = chosen.q === null ? ""
      : ` Heterogeneity: Q = ${formatNumber(chosen.q)}, I² = ${formatNumber(chosen.i2 === null ? null : chosen.i2 * 100)} %.`;
    const which = chosen.mask ? "of the mask" : "of the gene, whatever their mask,";
    return [chosen, [element("h3", {}, chosen.lines.length > 1 ? "Forest across studies" : "Burden"),
      element("form", { class: "controls" }, element("label", {}, "mask and bin ", select)), forest(chosen),
      element("p", { class: "note" }, `Count burden (flat weights) of the ${formatNumber(chosen.n_variants)} variants ${which} at or ` +
        `under this frequency (${data("genes-shared").frequency}): p = ${formatP(chosen.log10p)}.${q}`)]];
  }

  function driversPart(gene, trait, redraw) {
    const mine = gene.drivers.filter((row) => row.trait === trait);
    if (!mine.length) return [];
    const name = (row) => `${row.test}, ${row.mask}, ≤ ${row.bound}: p = ${formatP(row.log10p)}`;
    const chosen = mine.find((row) => name(row) === redraw.driver) || mine[0];
    const select = element("select", { id: "gene-driver" });
    fillSelect(select, mine.map((row) => [name(row), name(row)]), name(chosen));
    select.addEventListener("change", () => redraw({ driver: select.value }));
    const rows = chosen.variants.map(([position, ref, alt, share, z, without]) => [position.toLocaleString("en"), ref, alt,
      `${formatNumber(share * 100)} %`, formatNumber(z), formatP(without === null ? NaN : without)]);
    const detail = chosen.detail ? ` Best choice of the test: ${chosen.detail}.` : "";
    return [element("h3", {}, "Drivers"), element("form", { class: "controls" }, element("label", {}, "row ", select)),
      tableOf("The variants that carry this row; share of SKAT's Q, Z of the counted allele, p of the row without the variant",
        ["position", "ref", "alt", "share of Q", "Z", "p without it"], rows, new Set([0, 3, 4, 5])),
      ...(detail ? [element("p", { class: "note" }, detail)] : [])];
  }

  // p with its Monte Carlo error below it, where that is half a per cent or more
  function withError(log10p, error, note) {
    const percent = Math.round(100 * error);
    return element("div", {}, ...(note && !Number.isFinite(log10p) ? [] : [formatP(log10p === null ? NaN : log10p)]),
      ...(percent >= 1 ? [element("small", {}, percent < 255 ? `± ${percent} %` : "± over 250 %")] : []),
      ...(note ? [element("small", {}, note)] : []));
  }

  function searchesPart(gene, trait) {
    const mine = gene.searches.filter((row) => row[0] === trait);
    if (!mine.length) return [];
    const rows = mine.map(([, search, mask, bound, n, z2, log10p, error, permutations, beyond, grouping, chosen, note]) =>
      [search, mask, "≤ " + bound, formatNumber(n), formatNumber(z2), withError(log10p, error, note),
        formatNumber(permutations), formatNumber(beyond), element("div", {}, grouping, element("small", {}, chosen))]);
    return [element("h3", {}, "Searches by permutation"), tableOf("The best grouping of variants; p by permuting this study's residuals, " +
      "the whole search repeated, with its Monte Carlo error", ["search", "mask", "max. MAF", "variants", "z²", "p", "permutations",
      "at or beyond", "grouping that won, and its variants"], rows, new Set([2, 3, 4, 5, 6, 7]))];
  }

  function conditionalPart(gene, trait) {
    const mine = gene.conditional.filter((row) => row[0] === trait);
    if (!mine.length) return [];
    const names = [...new Set(mine.map((row) => row[1]))].sort();
    const lines = new Map();
    for (const [, test, mask, bound, n, log10p, index] of mine) {
      const key = `${mask}/${bound}/${index}`;
      if (!lines.has(key)) lines.set(key, { head: [mask, "≤ " + bound, index, formatNumber(n)], cells: new Map() });
      lines.get(key).cells.set(test, formatP(log10p === null ? NaN : log10p));
    }
    const rows = [...lines.values()].map(({ head, cells }) => [...head, ...names.map((name) => cells.get(name) || "")]);
    const heads = ["mask", "max. MAF", "given", "variants", ...names];
    return [element("h3", {}, "Given index variants"), tableOf("p-values with the index variants regressed out of U and V",
      heads, rows, new Set([1, ...heads.map((_, k) => k).slice(3)]))];
  }

  function unpackAll(columns) {
    return Object.fromEntries(Object.entries(columns).map(([name, packed]) => [name, unpack(packed)]));
  }

  function auditTable(gene) {
    if (!gene.audit.length) return [];
    const heads = ["mask", "max. MAF", "listed", "in no study", "not in the mask", "monomorphic", "too frequent", "tested"];
    const rows = gene.audit.map((row) => row.map((v, k) => (k > 1 ? formatNumber(v) : v)));
    return [element("h3", {}, "Which variants the masks took"), tableOf("Variants by fate", heads, rows, new Set([1, 2, 3, 4, 5, 6, 7]))];
  }

  function drawGene(name, choice) {
    const gene = Object.hasOwn(data("genes"), name) ? data("genes")[name] : null;
    const back = element("a", { href: "#table", class: "no-print" }, "‹ back to all genes");
    if (!gene) return drawPlainGene(name, choice, back);
    const trait = choice.trait || gene.traits[0];
    const k = gene.traits.indexOf(trait);
    const redraw = (change) => drawGene(name, { trait, burden: choice.burden, driver: choice.driver, ...change });
    Object.assign(redraw, choice);
    const select = element("select", { id: "gene-trait" });
    fillSelect(select, gene.traits.map((t) => [t, t]), trait);
    select.addEventListener("change", () => redraw({ trait: select.value }));
    const [burden, forestPart] = burdenPart(gene, k, redraw);
    page.replaceChildren(element("p", {}, back),
      element("h2", {}, name), element("p", { class: "note" },
        `Chromosome ${gene.chromosome}: ${gene.start.toLocaleString("en")} to ${gene.end.toLocaleString("en")}`),
      element("form", { class: "controls" }, element("label", {}, "trait ", select)),
      element("h3", {}, `Tests of ${trait}`), testsTable(unpackAll(gene.tests), trait), ...forestPart,
      element("h3", {}, "Variants"), ...variantsTable(gene, k, burden), ...driversPart(gene, trait, redraw),
      ...searchesPart(gene, trait), ...conditionalPart(gene, trait), ...auditTable(gene));
  }

  // a gene that is not among the strongest: its tests, from the table of all genes
  function drawPlainGene(name, choice, back) {
    const found = window.report.testsOfGene ? window.report.testsOfGene(name) : null;
    if (!found) {
      page.replaceChildren(element("p", {}, back), element("h2", {}, name),
        element("p", {}, "No row of this page is of this gene; all rows are in gene_tests.tsv.gz."));
      return;
    }
    const { traits } = data("genes-shared");
    const own = [...new Set(found.columns.trait)].map((code) => traits[code]);
    const trait = choice.trait || own[0];
    const select = element("select", { id: "gene-trait" });
    fillSelect(select, own.map((t) => [t, t]), trait);
    select.addEventListener("change", () => drawPlainGene(name, { trait: select.value }, back));
    page.replaceChildren(element("p", {}, back), element("h2", {}, name),
      element("p", { class: "note" }, `Chromosome ${found.chromosome}, from ${found.start.toLocaleString("en")}`),
      element("form", { class: "controls" }, element("label", {}, "trait ", select)),
      element("h3", {}, `Tests of ${trait}`), testsTable(found.columns, trait),
      element("p", { class: "note" }, "Variants, forest and drivers are kept for the genes with the smallest p-values; " +
        "those of this gene are in single_variants.parquet, mask_variants.parquet and the study bundles."));
  }

  // the gene that the address names; "" where it names none, or was cut on its way ("%E0%A4%A")
  function geneOfAddress() {
    if (!location.hash.startsWith("#gene/") || !data("genes")) return "";
    try {
      return decodeURIComponent(location.hash.slice(6));
    } catch {
      return "";
    }
  }

  function route() {
    const open = geneOfAddress();
    if (open && page.hidden) offset = window.scrollY;
    main.hidden = Boolean(open);
    page.hidden = !open;
    if (open) {
      drawGene(open, {});
      window.scrollTo(0, 0);
      page.focus({ preventScroll: true });
    } else if (page.childNodes.length) {
      page.replaceChildren();
      window.dispatchEvent(new Event("resize"));
      const target = document.getElementById(location.hash.slice(1));
      if (target && location.hash !== "#table") target.scrollIntoView();
      else window.scrollTo(0, offset);
    }
  }

  window.addEventListener("hashchange", route);
  window.addEventListener("submit", (event) => event.preventDefault());
  route();
  document.body.dataset.genes = "ready";
})();
