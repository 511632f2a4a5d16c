// The few things that this page asks of the DOM.

export const byId = (id) => document.getElementById(id);

/** An element with properties and children: make("p", { className: "hint" }, "text", child). */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** The same for SVG, with attributes. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Terms and descriptions for a <dl>; what is null is left out. */
export function facts(pairs) {
  return pairs
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)));
}

/** `action` at most once a frame, however often this is called. */
export function oncePerFrame(action) {
  let frame = null;
  return () => {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      action();
    });
  };
}

/** Scroll `first` to the top of the window, unless all of `last`, which stands below it, can be seen already. */
export function bringIntoView(first, last) {
  const { top, bottom } = last.getBoundingClientRect();
  if (top >= 0 && bottom <= innerHeight) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  first.scrollIntoView({ block: "start", behavior: calm ? "instant" : "smooth" });
}
