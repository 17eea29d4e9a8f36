// Helpers for elements. Outside data becomes text only: the page's security policy refuses markup from strings.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

// Makes an element: h("td", {class: "n"}, "text", child). An attribute that is null or false is omitted.
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Writes only what differs, so that selection, focus and screen reader keep their place.
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

// As text, for a path: it may go over two lines after a slash, and nowhere else.
export function path(element, value) {
  if (element.textContent !== value) element.replaceChildren(...value.split(/(?<=\/)/).flatMap((part) => [part, h("wbr")]));
}

export function attribute(element, key, value) {
  if (value === null) element.removeAttribute(key);
  else if (element.getAttribute(key) !== value) element.setAttribute(key, value);
}

// Syncs the parent's children with items: one child per key, created once, updated each time, in order.
export function keyed(parent, items, keyOf, make, update) {
  const known = new Map([...parent.children].map((child) => [child.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = known.get(key);
    if (child) known.delete(key);
    else {
      child = make(item);
      child.key = key;
    }
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of known.values()) child.remove();
}

// A list of facts: [[term, value, title], ...]. Entries without a value are omitted.
export function facts(list, entries) {
  keyed(
    list,
    entries.filter(([, value]) => value !== null && value !== undefined),
    ([term]) => term,
    ([term]) => h("div", {}, h("dt", {}, term), h("dd")),
    (row, [, value, title]) => {
      text(row.lastElementChild, value);
      attribute(row.lastElementChild, "title", title ?? null);
    },
  );
}
