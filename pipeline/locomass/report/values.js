"use strict";
// Packed columns, numbers as people read them, and DOM nodes made from text only: nothing here parses HTML.
window.report = (() => {
  const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
  const parsed = new Map();
  document.documentElement.classList.add("scripted"); // the style hides what stands in for the scripts

  function data(name) {
    if (!parsed.has(name)) {
      const node = document.getElementById("data-" + name);
      parsed.set(name, node ? JSON.parse(node.textContent) : null);
    }
    return parsed.get(name);
  }

  function unpack(column) {
    const text = atob(column.data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new KINDS[column.kind](bytes.buffer);
  }

  function formatP(log10p) {
    if (!Number.isFinite(log10p)) return "–";
    if (log10p < 3) return String(Number((10 ** -log10p).toPrecision(3)));
    const exponent = Math.ceil(log10p);
    const mantissa = (10 ** (exponent - log10p)).toFixed(1);
    return mantissa === "10.0" ? `1.0e-${exponent - 1}` : `${mantissa}e-${exponent}`;
  }

  function formatNumber(value, digits = 3) {
    if (value === null || !Number.isFinite(value)) return "–";
    if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
    const size = Math.abs(value);
    if (size < 1e-3 || size >= 1e6) return value.toExponential(digits - 1);
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
    return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
  }

  function element(tag, attributes = {}, ...children) {
    const node = tag.startsWith("svg:")
      ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
    return node;
  }

  function fillSelect(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    if (chosen !== undefined) select.value = String(chosen);
  }

  function geneLink(gene) {
    return element("a", { href: "#gene/" + encodeURIComponent(gene) }, gene);
  }

  return { data, unpack, formatP, formatNumber, element, fillSelect, geneLink };
})();
