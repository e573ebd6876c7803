"use strict";
// Gene pages, opened by #gene/NAME: all tests of the gene, its variants, drivers, and the forest across studies.
(() => {
  const { data, unpack, formatP, formatNumber, element, fillSelect } = window.report;
  const svg = (tag, attributes, ...children) => element("svg:" + tag, attributes, ...children);
  const page = document.getElementById("gene-page");
  const main = document.getElementById("main");
  const BLUE = "#0072b2", ORANGE = "#d55e00", GREY = "#7a7f87", INK = "#1b1f24";
  let offset = 0;

  function tableOf(caption, heads, rows, numeric) {
    const kind = (k) => (numeric.has(k) ? { class: "number" } : {});
    const head = element("tr", {}, ...heads.map((h, k) => element("th", { scope: "col", ...kind(k) }, h)));
    const body = rows.map((row) => element("tr", {}, ...row.map((cell, k) => element("td", kind(k), cell))));
    return element("div", { class: "scroll" }, element("table", {}, element("caption", {}, caption),
      element("thead", {}, head), element("tbody", {}, ...body)));
  }

  function testsTable(gene, trait) {
    const { tests, test_order: order, masks, bins, notes, traits } = data("genes-shared");
    const t = Object.fromEntries(Object.entries(gene.tests).map(([name, packed]) => [name, unpack(packed)]));
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

  function forest(burden) {
    const lines = burden.lines;
    const line = 24, left = 190, width = 420, height = lines.length * line + 46;
    const ends = lines.flatMap(([, beta, se]) => [beta - 1.96 * se, beta + 1.96 * se, 0]);
    const low = Math.min(...ends), high = Math.max(...ends);
    const x = (v) => left + ((v - low) / (high - low || 1)) * width;
    const picture = svg("svg", { class: "chart", role: "img", width: left + width + 190, height,
      viewBox: `0 0 ${left + width + 190} ${height}` }, svg("title", {}, "Forest plot of the burden"));
    picture.append(svg("line", { x1: x(0), x2: x(0), y1: 6, y2: height - 36, stroke: GREY, "stroke-dasharray": "4 3" }));
    lines.forEach(([name, beta, se, n], k) => {
      const y = 18 + k * line, pooled = k === lines.length - 1 && lines.length > 1;
      const a = x(beta - 1.96 * se), b = x(beta + 1.96 * se), mid = x(beta);
      picture.append(svg("text", { x: 0, y: y + 4 }, `${pooled ? "all studies" : name}, ${n} variants`));
      if (pooled) {
        picture.append(svg("polygon", { points: `${a},${y} ${mid},${y - 7} ${b},${y} ${mid},${y + 7}`, fill: ORANGE }));
      } else {
        picture.append(svg("line", { x1: a, x2: b, y1: y, y2: y, stroke: INK }),
          svg("rect", { x: mid - 4, y: y - 4, width: 8, height: 8, fill: BLUE }));
      }
      picture.append(svg("text", { x: left + width + 14, y: y + 4 }, `${formatNumber(beta)} ± ${formatNumber(1.96 * se)}`));
    });
    const ticks = [low, 0, high].filter((v, k, all) => k === 1 || Math.abs(x(v) - x(all[1])) > 40);
    for (const v of ticks) {
      picture.append(svg("text", { x: x(v), y: height - 20, "text-anchor": "middle" }, v === 0 ? "0" : formatNumber(v, 2)));
    }
    picture.append(svg("text", { x: left + width / 2, y: height - 4, "text-anchor": "middle" }, "effect per minor allele (95 % interval)"));
    return picture;
  }

  function stems(variants, z) {
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
        svg("circle", { cx: x(position), cy: y(z[k]), r: 3.5, fill: Math.abs(z[k]) > 3 ? ORANGE : BLUE }));
    });
    picture.append(svg("text", { x: left, y: height + 20 }, first.toLocaleString("en")),
      svg("text", { x: width - 10, y: height + 20, "text-anchor": "end" }, (first + span).toLocaleString("en")),
      svg("text", { x: width / 2, y: height + 20, "text-anchor": "middle" }, "Z by position"));
    return picture;
  }

  function variantsTable(gene, k, burden) {
    const own = gene.by_trait[k];
    const v = Object.fromEntries(Object.entries(own).map(([name, packed]) => [name, unpack(packed)]));
    const without = new Map();
    if (burden) {
      const values = unpack(burden.without);
      unpack(burden.variant).forEach((place, i) => without.set(place, values[i]));
    }
    const heads = ["position", "ref", "alt", "samples", "ALT count", "ALT frequency", "U", "Z", "beta", "SE", "p",
      ...(burden ? [`p of burden ≤ ${burden.bound} without it`] : [])];
    const z = Array.from(v.U, (u, i) => u / Math.sqrt(v.V[i]));
    const rows = Array.from(v.variant, (place, i) => [gene.position[place].toLocaleString("en"), gene.ref[place], gene.alt[place],
      formatNumber(v.n_samples[i]), formatNumber(v.alt_count[i]), formatNumber(v.alt_frequency[i]), formatNumber(v.U[i]),
      formatNumber(z[i]), formatNumber(v.U[i] / v.V[i]), formatNumber(1 / Math.sqrt(v.V[i])),
      element("span", v.log10p[i] > 3 ? { class: "strong" } : {}, formatP(v.log10p[i])),
      ...(burden ? [without.has(place) ? formatP(without.get(place)) : ""] : [])]);
    const caption = gene.n_variants > rows.length
      ? `${rows.length} of ${gene.n_variants} variants: polymorphic, smallest p-values` : `${rows.length} variants`;
    const numeric = new Set([0, ...heads.map((_, j) => j).slice(3)]);
    const picture = rows.length ? [stems(Array.from(v.variant, (place) => gene.position[place]), z)] : [];
    return [...picture, tableOf(caption, heads, rows, numeric)];
  }

  function burdenPart(gene, k, redraw) {
    const mine = gene.burdens.filter((b) => b.trait === k);
    if (!mine.length) return [null, []];
    const chosen = mine.find((b) => String(b.bound) === redraw.bound) || mine[0];
    const select = element("select", { id: "gene-bin" });
    fillSelect(select, mine.map((b) => [String(b.bound), "≤ " + b.bound]), chosen.bound);
    select.addEventListener("change", () => redraw({ bound: select.value }));
    const q = chosen.q === null ? "" : ` Heterogeneity: Q = ${formatNumber(chosen.q)}, I² = ${formatNumber(chosen.i2 * 100)} %.`;
    return [chosen, [element("h3", {}, chosen.lines.length > 1 ? "Forest across studies" : "Burden"),
      element("form", { class: "controls" }, element("label", {}, "max. MAF ", select)), forest(chosen),
      element("p", { class: "note" }, `Count burden of all variants of the gene at or under this frequency, whatever their mask: ` +
        `p = ${formatP(chosen.log10p)}.${q}`)]];
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
    if (!gene) {
      const known = window.report.findGene !== undefined;
      if (known) window.report.findGene(name);
      page.replaceChildren(element("p", {}, back), element("h2", {}, name), element("p", {},
        "Pages are kept for the genes with the smallest p-values; this one is not among them. The table lists its tests."));
      return;
    }
    const trait = choice.trait || gene.traits[0];
    const k = gene.traits.indexOf(trait);
    const redraw = (change) => drawGene(name, { ...choice, trait, ...change });
    redraw.bound = choice.bound;
    const select = element("select", { id: "gene-trait" });
    fillSelect(select, gene.traits.map((t) => [t, t]), trait);
    select.addEventListener("change", () => redraw({ trait: select.value }));
    const [burden, forestPart] = burdenPart(gene, k, redraw);
    page.replaceChildren(element("p", {}, back),
      element("h2", {}, name), element("p", { class: "note" },
        `Chromosome ${gene.chromosome}: ${gene.start.toLocaleString("en")} to ${gene.end.toLocaleString("en")}`),
      element("form", { class: "controls" }, element("label", {}, "trait ", select)),
      element("h3", {}, `Tests of ${trait}`), testsTable(gene, trait), ...forestPart,
      element("h3", {}, "Variants"), ...variantsTable(gene, k, burden), ...auditTable(gene));
  }

  function route() {
    const open = location.hash.startsWith("#gene/") && data("genes");
    if (open && page.hidden) offset = window.scrollY;
    main.hidden = Boolean(open);
    page.hidden = !open;
    if (open) {
      drawGene(decodeURIComponent(location.hash.slice(6)), {});
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
