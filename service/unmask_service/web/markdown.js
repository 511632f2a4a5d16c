// A README as elements: headings, paragraphs, lists, quotes, tables, code. Everything else stands there as it was written.

import { make } from "./dom.js";

/** Elements for a text in Markdown, which may say anything: no HTML, no links and no images are made of it. */
export function fromMarkdown(text) {
  return text
    .replaceAll("\r\n", "\n")
    .split(/^(```[^]*?^```$)/m)
    .flatMap((part, i) => (i % 2 ? [fence(part)] : blocksOf(part).map(element)));
}

function blocksOf(text) {
  const apart = text.replace(/^#{1,6} .*$/gm, "\n$&\n");
  return apart.split(/\n\s*\n/).map((block) => block.trim()).filter((block) => block && !/^!\[[^\]]*\]\([^)]*\)$/.test(block));
}

function fence(text) {
  return make("pre", {}, text.replace(/^.*\n/, "").replace(/\n?```$/, ""));
}

function element(block) {
  const heading = /^(#{1,6}) (.*)$/.exec(block);
  if (heading) return make(heading[1].length > 2 ? "h5" : "h4", {}, ...inline(heading[2]));
  if (/^[-*] /.test(block)) return make("ul", {}, ...block.split(/^[-*] /m).slice(1).map((item) => make("li", {}, ...inline(item))));
  if (/^>/.test(block)) return make("blockquote", {}, ...inline(block.replace(/^> ?/gm, "")));
  if (/^\|.*\|\n\|[-:| ]+\|(\n|$)/.test(block)) return table(block.split("\n"));
  return make("p", {}, ...inline(block));
}

function table([head, , ...lines]) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const rows = (tag, chosen) => chosen.map((line) => make("tr", {}, ...cells(line).map((cell) => make(tag, {}, ...inline(cell)))));
  const named = cells(head).some((name) => name);
  return make("table", {}, make("thead", {}, ...rows("th", named ? [head] : [])), make("tbody", {}, ...rows("td", lines)));
}

function inline(text) {
  return text.split(/`([^`]+)`/).map((part, i) => (i % 2 ? make("code", {}, part) : part));
}
